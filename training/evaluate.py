"""Held-out loss by domain, of a model in training or of a checkpoint. No Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import HeldOut, share
from training.sharding import reshard
from training.step import StepOptions, no_others, nothing, sequence_nats
from training.watch import domain_means


@dataclass(frozen=True)
class DomainLoss:
    """Held-out loss of one domain.

    Attributes:
        domain: its name.
        loss_nats: mean nats of a predicted token; None without sequences.
        bits_per_byte: the same in bits a byte of text; None where the bytes are unknown.
        num_tokens: predicted tokens.
    """

    domain: str
    loss_nats: float | None
    bits_per_byte: float | None
    num_tokens: int


@torch.no_grad()
def held_out_losses(
    model: nn.Module,
    held_out: HeldOut,
    options: StepOptions,
    device: torch.device,
    *,
    rank: int = 0,
    reduce: Callable[[Tensor], Any] = no_others,
    beat: Callable[[], None] = nothing,
) -> list[DomainLoss]:
    """Measure every held-out sequence once; every process calls it and gets all domains.

    Each sequence's nats are one process's and are added up by domain in a fixed order, so that the losses of a model do
    not depend on how many processes measure it. Memory: 16 bytes a held-out sequence, and a micro-batch.
    `beat` is called after each micro-batch, as a sign of life.
    """
    sums, domains = held_out_sums(model, held_out, options, device, rank=rank, reduce=reduce, beat=beat)
    return by_domain(held_out, sums, domains)


@torch.no_grad()
def held_out_sums(
    model: nn.Module,
    held_out: HeldOut,
    options: StepOptions,
    device: torch.device,
    *,
    rank: int = 0,
    reduce: Callable[[Tensor], Any] = no_others,
    beat: Callable[[], None] = nothing,
) -> tuple[np.ndarray, np.ndarray]:
    """Nats and predicted tokens of every held-out sequence, float64 (N, 2), and the number of its domain (N,)."""
    domains = np.repeat(np.arange(len(held_out.domains)), held_out.num_sequences)
    # no domain may have a whole window of held-out text
    sequences = np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in held_out.num_sequences)])
    sums = torch.zeros(len(domains), 2, dtype=torch.float64, device=device)
    rounds = -(-len(domains) // (options.world * options.micro_batch))
    for round_ in range(rounds):
        start = round_ * options.world * options.micro_batch
        turn = range(start, min(len(domains), start + options.world * options.micro_batch))
        mine = share(len(turn), rank, options.world)
        places = slice(start + mine.start, start + mine.stop)
        tokens = np.zeros((0, held_out.context + 1))
        if mine:
            tokens = held_out.reader.read(domains[places], sequences[places], held_out.context)
        _, sums[places] = sequence_nats(model, torch.from_numpy(tokens.astype(np.int64)).to(device), 0.0, options)
        beat()
    reshard(model)
    reduce(sums)
    return sums.cpu().numpy(), domains


def by_domain(held_out: HeldOut, sums: np.ndarray, domains: np.ndarray) -> list[DomainLoss]:
    """Mean loss of each domain from the sums of its sequences."""
    nats, tokens = sums.T
    means = domain_means(nats, domains, tokens, len(held_out.domains))
    counts = np.bincount(domains, weights=tokens, minlength=len(means)).astype(np.int64).tolist()
    widths = held_out.bytes_per_token or [None] * len(means)
    return [
        DomainLoss(name, mean, mean / math.log(2) / width if mean is not None and width else None, count)
        for name, mean, width, count in zip(held_out.domains, means, widths, counts)
    ]


def mean_bits_per_byte(losses: Sequence[DomainLoss]) -> float:
    """Bits a byte of all domains' text together: all bits by all bytes. Every loss must be known."""
    bits = [found.loss_nats * found.num_tokens / math.log(2) for found in losses]
    num_bytes = sum(of / found.bits_per_byte for of, found in zip(bits, losses) if found.bits_per_byte)
    return sum(bits) / num_bytes


def evaluate_checkpoint(
    folder: Path, held_out: HeldOut, *, options: StepOptions | None = None, device: str = "cpu"
) -> list[DomainLoss]:
    """Measure a checkpoint's held-out loss in this process, whatever the number of processes that wrote it.

    Args:
        folder: of the checkpoint.
        held_out: what is measured.
        options: precision and separator of documents that it was trained with: a model that never read across documents
            is not measured by what it makes of that. fp32 without a separator where there are none.
        device: what it runs on.

    Raises:
        training.checkpoint.CheckpointError: if the checkpoint is damaged.
    """
    from training.checkpoint import load_model, open_checkpoint

    model = load_model(open_checkpoint(Path(folder)), device)
    return held_out_losses(model, held_out, options or StepOptions(8), torch.device(device))
