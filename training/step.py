"""One train step: forward and backward over micro-batches, the gradient's norm, clipping, the update.

The trainer and the proxies share it. On any number of processes a train step computes the same sums: each token weighs
1 / (predicted tokens of the whole batch), wherever it is read.

Shapes: B sequences of a process, b of a micro-batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.batches import Batch, num_micro_batches
from training.documents import documents_of
from training.sharding import local_rows
from training.spec import Optimizer

# Ids below 0 are never predicted: this one is padding, and -2 - id is a token that is only read.
PADDING = -1


@dataclass(frozen=True)
class StepOptions:
    """What a train step needs beside model and batch; see `training.spec` for the words."""

    micro_batch: int
    world: int = 1
    precision: str = "fp32"
    clip: float | None = 1.0
    z_loss: float = 0.0
    separator: int | None = None


@dataclass(frozen=True)
class StepSums:
    """What a train step leaves behind, on the device.

    Attributes:
        sequences: nats and predicted tokens of each of this process's sequences, float64 (B, 2).
        totals: gradient norm before clipping, mean loss in nats, processes asked to stop; float64 (3,), the same on
            every process.
    """

    sequences: Tensor
    totals: Tensor


def nothing() -> None:
    """What is called where nothing is to be done."""


def no_others(tensor: Tensor) -> None:
    """The sum over a single process."""


@dataclass(frozen=True)
class Hooks:
    """What surrounds a train step.

    Attributes:
        reduce: adds a float64 tensor up over all processes in place.
        backward: runs backward from the loss.
        keeps: told the totals, says whether the update is made; None always makes it and never waits for the device.
        before_update: called right before weights and moments change; until then a train step only reads them.
        beat: called after each micro-batch, as a sign of life.
    """

    reduce: Callable[[Tensor], Any] = no_others
    backward: Callable[[Tensor], Any] = Tensor.backward
    keeps: Callable[[Tensor], bool] | None = None
    before_update: Callable[[], None] = nothing
    beat: Callable[[], None] = nothing


ALONE = Hooks()


def make_optimizer(model: nn.Module, options: Optimizer) -> torch.optim.AdamW:
    """AdamW over what is trained; it decays matrices and embeddings, not norms and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.epsilon, fused=True)


def set_numbers(optimizer: torch.optim.Optimizer, options: Optimizer) -> None:
    """Change AdamW's numbers on the way."""
    for group, decay in zip(optimizer.param_groups, (options.weight_decay, 0.0)):
        group.update(betas=options.betas, eps=options.epsilon, weight_decay=decay)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which forward runs: products in bfloat16 under bf16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def micro_batches(batch: Batch, options: StepOptions) -> list[Tensor]:
    """Cut a share into as many micro-batches as every process has, (b, T + 1) each, some empty."""
    count = num_micro_batches(batch.total, options.world, options.micro_batch)
    size = options.micro_batch
    return [batch.tokens[start * size : (start + 1) * size] for start in range(count)]


def sequence_nats(model: nn.Module, tokens_BT1: Tensor, weight: float, options: StepOptions) -> tuple[Tensor, Tensor]:
    """Run a micro-batch: the loss with gradients, and nats and predicted tokens of each sequence, float64 (b, 2).

    Negative ids are never predicted. Padding stands behind all that is predicted; -2 - id is a token only read.
    An empty micro-batch runs one sequence of padding, because sharded weights are gathered by all processes together.
    """
    count = tokens_BT1.shape[0]
    if count == 0:
        tokens_BT1 = tokens_BT1.new_full((1, tokens_BT1.shape[1]), PADDING)
    real_BT = tokens_BT1[:, 1:] >= 0
    padded = torch.where(tokens_BT1 < PADDING, -2 - tokens_BT1, tokens_BT1.clamp(min=0))
    inputs_BT, targets_BT = padded[:, :-1], padded[:, 1:]
    weights_BT = real_BT * torch.tensor(weight, dtype=torch.float32, device=padded.device)
    documents = None
    if options.separator is not None:  # which padding is not, though it is read as 0
        documents = documents_of(inputs_BT.masked_fill(tokens_BT1[:, :-1] == PADDING, PADDING), options.separator)
    with autocast(padded.device, options.precision):
        loss, nats_BT = model(inputs_BT, targets_BT, weights_BT, documents=documents, z_loss=options.z_loss)
    sums_B2 = torch.stack([(nats_BT * real_BT).double().sum(1), real_BT.double().sum(1)], dim=1)
    return loss, sums_B2[:count]


def accumulate(
    model: nn.Module,
    batch: Batch,
    options: StepOptions,
    backward: Callable[[Tensor], Any] = Tensor.backward,
    beat: Callable[[], None] = nothing,
) -> Tensor:
    """Add up the gradients of a train step, as if no token were padding.

    Returns:
        Nats and predicted tokens of each sequence of the share, float64 (B, 2).
    """
    # Sharded gradients are averaged over the processes: the factor `world` turns that into a sum.
    weight = options.world / (batch.total * (batch.tokens.shape[1] - 1))
    micros = micro_batches(batch, options)
    sums: list[Tensor] = []
    for place, tokens_BT1 in enumerate(micros):
        if hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(place == len(micros) - 1)
        loss, sums_b2 = sequence_nats(model, tokens_BT1, weight, options)
        backward(loss)
        sums.append(sums_b2)
        beat()
    return torch.cat(sums)


def local_gradients(model: nn.Module) -> tuple[list[Tensor], int]:
    """This process's part of all gradients, and how many processes hold the same part."""
    rows = [local_rows(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    return [part.tensor for part in rows], rows[0].replicas


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    learning_rate: float,
    options: StepOptions,
    *,
    stop: bool = False,
    hooks: Hooks = ALONE,
) -> StepSums:
    """Train on one batch.

    Args:
        model: a model of `training.models`, sharded or not.
        optimizer: from `make_optimizer`.
        batch: this process's share.
        learning_rate: of this step.
        options: see `StepOptions`.
        stop: whether this process was asked to stop; counted over all processes.
        hooks: how several processes work together.
    """
    sequences = accumulate(model, batch, options, hooks.backward, hooks.beat)
    gradients, replicas = local_gradients(model)
    norms = torch.stack(torch._foreach_norm(gradients))
    stopping = torch.full((1,), float(stop), dtype=torch.float64, device=norms.device)
    totals = torch.cat([(norms.double().square().sum() / replicas)[None], sequences.sum(0), stopping])
    hooks.reduce(totals)
    squared_norm, nats, num_tokens, stopped = totals.unbind()
    # How many tokens are predicted is known only now; without padding this is exactly 1.
    unpadded = batch.total * (batch.tokens.shape[1] - 1) / num_tokens.clamp(min=1)
    norm = squared_norm.sqrt() * unpadded
    totals = torch.stack([norm, nats / num_tokens.clamp(min=1), stopped])
    scale = unpadded if options.clip is None else unpadded * (options.clip / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale.float())
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    if hooks.keeps is None or hooks.keeps(totals):
        hooks.before_update()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepSums(sequences, totals)
