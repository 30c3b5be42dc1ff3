"""K proxies of one shape trained at once as one stacked model, each on a mixture, seed and text of its own.

Every parameter gets a leading dimension K; forward runs through `torch.func.vmap`, which turns the K small products of
a layer into one batched product. Loss, norm and clipping stay each proxy's own, AdamW works element by element, so a
stacked proxy has the losses of a single one up to the order of float sums. What is saved is the cost of starting many
small operations; `benchmarks.swarm` measures it, and docs/ablation.md says where it pays.

Shapes: K proxies, B sequences, T tokens, D width.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from training.documents import Documents, documents_of
from training.loss import cross_entropy
from training.models import ModelShape, build
from training.models.initial import initialise
from training.spec import Optimizer
from training.step import StepOptions, autocast


class _Hidden(nn.Module):
    """A model called for its last layer, because `functional_call` knows `forward` alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, document_BT: Tensor | None) -> Tensor:
        """Token ids to the last layer's output, (B, T, D)."""
        return self.model.hidden(tokens_BT, None if document_BT is None else Documents(document_BT))


@dataclass(frozen=True)
class Stack:
    """K proxies as one: an empty model that says what to compute, and their parameters (K, ...) by name."""

    skeleton: nn.Module
    parameters: dict[str, Tensor]
    number: int

    @property
    def output_weight(self) -> Tensor:
        """Weights of the K output layers, (K, V, D)."""
        name = "model.output.weight" if "model.output.weight" in self.parameters else "model.embedding.weight"
        return self.parameters[name]

    def hidden(self, tokens_KBT: Tensor, documents: Documents | None) -> Tensor:
        """Last layer's output of every proxy, (K, B, T, D); documents have the same leading dimension."""

        def one(parameters: dict[str, Tensor], tokens_BT: Tensor, document_BT: Tensor | None) -> Tensor:
            return functional_call(self.skeleton, parameters, (tokens_BT, document_BT))

        document_KBT = None if documents is None else documents.numbers
        dims = (0, 0, None if documents is None else 0)
        return vmap(one, in_dims=dims)(self.parameters, tokens_KBT, document_KBT)


def make_stack(shape: ModelShape, seeds: Sequence[int], device: str = "cpu") -> Stack:
    """Initialise K proxies, each by its own seed, and stack them."""
    models = []
    for seed in seeds:
        with torch.device("meta"):
            model = build(shape)
        model.to_empty(device=device)
        initialise(model, shape, seed)
        models.append(_Hidden(model))
    parameters, _ = stack_module_state(models)
    with torch.device("meta"):
        skeleton = _Hidden(build(shape))
    return Stack(skeleton, parameters, len(models))


def make_optimizer(stack: Stack, options: Optimizer) -> torch.optim.AdamW:
    """AdamW over the stack, decaying what is a matrix in a single proxy."""
    parameters = list(stack.parameters.values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 3], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 3], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.epsilon, fused=True)


def stacked_step(
    stack: Stack, optimizer: torch.optim.Optimizer, tokens_KBT1: Tensor, learning_rate: float, options: StepOptions
) -> Tensor:
    """One train step of all proxies.

    Args:
        stack: the proxies.
        optimizer: of `make_optimizer`.
        tokens_KBT1: a batch of each, int64 (K, B, T + 1), without padding.
        learning_rate: of this step.
        options: micro-batch (sequences of each proxy at once), precision, clipping, z-loss, separator.

    Returns:
        Gradient norm before clipping and mean loss in nats of each proxy, float64 (K, 2).
    """
    number, batch = tokens_KBT1.shape[:2]
    weight = 1 / (batch * (tokens_KBT1.shape[2] - 1))
    nats_K = torch.zeros(number, dtype=torch.float64, device=tokens_KBT1.device)
    with _one_by_one_allowed():
        for start in range(0, batch, options.micro_batch):
            loss, micro_K = _losses(stack, tokens_KBT1[:, start : start + options.micro_batch], weight, options)
            loss.backward()
            nats_K += micro_K
    norms_K = _clip(stack, options.clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return torch.stack([norms_K, nats_K * weight], dim=1)


@contextlib.contextmanager
def _one_by_one_allowed() -> Iterator[None]:
    """Let vmap run what it cannot batch (flash attention on a CPU) one proxy after another, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


def _losses(stack: Stack, tokens_KbT1: Tensor, weight: float, options: StepOptions) -> tuple[Tensor, Tensor]:
    """Sum of the proxies' weighted losses, with gradients, and the nats of each, float64 (K,)."""
    inputs_KbT, targets_KbT = tokens_KbT1[..., :-1], tokens_KbT1[..., 1:]
    documents = None if options.separator is None else documents_of(inputs_KbT, options.separator)
    with autocast(tokens_KbT1.device, options.precision):
        hidden_KbTD = stack.hidden(inputs_KbT, documents)
        weights_bT = torch.full(inputs_KbT.shape[1:], weight, dtype=torch.float32, device=inputs_KbT.device)
        # One after another: the logits of K vocabularies at once would fill memory and save nothing.
        parts = [
            cross_entropy(hidden_KbTD[k], stack.output_weight[k], targets_KbT[k], weights_bT, options.z_loss)
            for k in range(stack.number)
        ]
    losses, nats = zip(*parts, strict=True)
    return torch.stack(losses).sum(), torch.stack([one.double().sum() for one in nats])


def _clip(stack: Stack, clip: float | None) -> Tensor:
    """Scale each proxy's gradient to a norm of at most `clip`; returns the norms before, float64 (K,)."""
    gradients = [p.grad for p in stack.parameters.values() if p.grad is not None]
    squares = [torch.linalg.vector_norm(g.flatten(1), dim=1).double().square() for g in gradients]
    norms_K = torch.stack(squares).sum(0).sqrt()
    if clip is not None:
        scale_K = (clip / (norms_K + 1e-6)).clamp(max=1.0).float()
        for gradient in gradients:
            gradient.mul_(scale_K.view(-1, *([1] * (gradient.ndim - 1))))
    return norms_K


@torch.no_grad()
def stacked_nats(stack: Stack, tokens_BT1: Tensor, options: StepOptions) -> Tensor:
    """Mean nats a token of the same sequences by every proxy, float64 (K,)."""
    same_KBT1 = tokens_BT1.expand(stack.number, *tokens_BT1.shape)
    total_K = torch.zeros(stack.number, dtype=torch.float64, device=tokens_BT1.device)
    with _one_by_one_allowed():
        for start in range(0, tokens_BT1.shape[0], options.micro_batch):
            total_K += _losses(stack, same_KBT1[:, start : start + options.micro_batch], 0.0, options)[1]
    return total_K / (tokens_BT1.shape[0] * (tokens_BT1.shape[1] - 1))
