"""Low-rank adaptation: beside each chosen linear layer, the product of two narrow matrices is trained.

    y = W x + (alpha / rank) B A dropout(x)        A is drawn, B is 0, W stays (Hu et al. 2021, arXiv:2106.09685)

The maths is peft's, and so is the format of the exported adapter (`training.tuning.adapter`); the layers are ours, so
that names in checkpoints stay, values are drawn alike on any number of processes, and sharding sees one parameter each.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mixing.permutation import name_key
from training import checkpoint as checkpoints
from training.sharding import local_rows
from training.spec import LowRank

_OWN = ("lora_a", "lora_b")


class AdapterError(ValueError):
    """An adapter that does not fit its model."""


class AdaptedLinear(nn.Linear):
    """A frozen linear layer with a trained low-rank update; R is the rank."""

    def __init__(self, layer: nn.Linear, options: LowRank) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        device = layer.weight.device
        self.lora_a = nn.Parameter(torch.empty(options.rank, layer.in_features, device=device))
        self.lora_b = nn.Parameter(torch.empty(layer.out_features, options.rank, device=device))
        self.scale, self.dropout = options.alpha / options.rank, options.dropout

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply the layer and its update."""
        y = functional.linear(x_BTD, self.weight, self.bias)
        # Measuring runs without gradients, and without dropout.
        dropped = functional.dropout(x_BTD, self.dropout) if self.dropout and torch.is_grad_enabled() else x_BTD
        return y + functional.linear(functional.linear(dropped, self.lora_a), self.lora_b) * self.scale


def adapt(model: nn.Module, options: LowRank) -> nn.Module:
    """Put an update beside the chosen layers of every block, in place, and freeze all else.

    Embedding and output layer are trained whole where `options.embeddings`, as a template's new tokens need.

    Raises:
        AdapterError: for a layer that the model does not have (its layers are listed), or a rank above its width.
    """
    layers = layer_names(model)
    missing = [name for name in options.targets if name not in layers]
    if missing:
        raise AdapterError(f"finetuning.lora.targets: no layer {', '.join(missing)}; it has {', '.join(layers)}")
    for parameter in model.parameters():
        parameter.requires_grad = False
    for block in model.blocks:
        for part in list(block.modules()):
            for name, layer in list(part.named_children()):
                if name in options.targets and isinstance(layer, nn.Linear):
                    _check_rank(name, layer, options.rank)
                    setattr(part, name, AdaptedLinear(layer, options))
    if options.embeddings:
        model.embedding.weight.requires_grad = True
        model.output_weight.requires_grad = True
    return model


def layer_names(model: nn.Module) -> list[str]:
    """Names of the linear layers of a model's blocks, in their order."""
    found = (name.rpartition(".")[2] for name, layer in model.blocks.named_modules() if isinstance(layer, nn.Linear))
    return list(dict.fromkeys(found))


def _check_rank(name: str, layer: nn.Linear, rank: int) -> None:
    narrow = min(layer.in_features, layer.out_features)
    if rank > narrow:
        raise AdapterError(
            f"finetuning.lora.rank: {rank} is more than the {narrow} that {name} ({layer.in_features} to "
            f"{layer.out_features}) can have; choose {max(1, narrow // 4)} or so, or tune all weights (lora: null)"
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an update."""
    return name.rpartition(".")[2] in _OWN


def fill(model: nn.Module, start: Path, resumed: checkpoints.Checkpoint | None, seed: int) -> None:
    """Set an adapted model: frozen weights from `start`, trained ones drawn, or from the checkpoint that goes on."""
    names = [name for name, _ in model.named_parameters()]
    checkpoints.load(checkpoints.open_checkpoint(start), model, {name for name in names if not is_adapter(name)})
    if resumed is not None:
        checkpoints.load(resumed, model, trained_names(model))
        return
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            rows = local_rows(parameter)
            values = initial_values(name, tuple(parameter.shape), seed)
            with torch.no_grad():
                rows.tensor.copy_(values[rows.first : rows.first + rows.count])


def trained_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def initial_values(name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """A's rows uniform within 1 / sqrt(inputs) as in peft, B zero; a function of name and seed alone."""
    if name.endswith("lora_b"):
        return torch.zeros(size)
    generator = torch.Generator().manual_seed(name_key(seed, name) >> 1)
    bound = 1 / math.sqrt(size[1])
    return torch.empty(size).uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of an adapted model with its updates added in, under the names of a plain one."""
    weights = {name: value.detach().clone() for name, value in model.named_parameters() if not is_adapter(name)}
    for name, layer in model.named_modules():
        if isinstance(layer, AdaptedLinear):
            update = layer.lora_b.double() @ layer.lora_a.double() * layer.scale
            weights[f"{name}.weight"] = (layer.weight.double() + update).float()
    return weights
