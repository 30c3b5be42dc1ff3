"""Train batches: a pure function of the train step. No loader has a state that could be lost.

Train step s takes the positions that its span says; sequence i of them is the same on any number of processes, which
only share them out. A batch is read a step ahead by one thread.

Shapes: B sequences of a process, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from training.spec import Span


class Order(Protocol):
    """Where each position of the run's order leads."""

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions to (domain, draw, epoch, sequence), each int64 of their length."""


class SequenceReader(Protocol):
    """Reads sequences of domains."""

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Token ids (n, T + 1) of sequence `sequences[i]` of domain `domains[i]`, cut for `context` = T tokens.

        Negative ids are never predicted: -1 is padding, behind all text of its sequence; -2 - id is read alone.
        """


@dataclass(frozen=True)
class HeldOut:
    """Text that is measured and never trained on.

    Attributes:
        domains: names, in the order of the ids that `reader` takes.
        num_sequences: sequences of each domain.
        reader: reads them.
        context: tokens a sequence.
        bytes_per_token: bytes of text behind a predicted token, a domain; None where unknown. Gives bits per byte.
    """

    domains: Sequence[str]
    num_sequences: Sequence[int]
    reader: SequenceReader
    context: int
    bytes_per_token: Sequence[float | None] | None = None


def no_checksums(contexts: Sequence[int]) -> dict[str, str]:
    """Of text that lies in no file."""
    return {}


@dataclass(frozen=True)
class TokenStream:
    """All text that a training reads."""

    domains: Sequence[str]
    order: Order
    reader: SequenceReader
    held_out: HeldOut | None = None
    # Contexts -> checksums by name, equal where the text is.
    checksums: Callable[[Sequence[int]], dict[str, str]] = no_checksums


@dataclass(frozen=True)
class Batch:
    """One process's share of a train step.

    Attributes:
        step: the train step, from 0.
        first: place of the share's first sequence in the train step's batch.
        total: sequences of the whole batch.
        domains: domain ids of the whole batch, int64 (total,).
        tokens: the share's tokens, int64 (B, T + 1).
    """

    step: int
    first: int
    total: int
    domains: np.ndarray
    tokens: torch.Tensor

    def to(self, device: torch.device, **options: bool) -> Batch:
        """Move the tokens to a device."""
        return Batch(self.step, self.first, self.total, self.domains, self.tokens.to(device, **options))


def span_of(spans: Sequence[Span], step: int) -> Span:
    """The span that a train step belongs to."""
    return next(span for span in reversed(spans) if span.first_step <= step)


def positions_of(spans: Sequence[Span], step: int) -> tuple[int, int]:
    """First position of a train step and the one behind its last."""
    span = span_of(spans, step)
    first = span.first_position + (step - span.first_step) * span.sequences
    return first, first + span.sequences


def position_after(spans: Sequence[Span], steps: int) -> int:
    """The position at which a run stands after so many train steps; text skipped right there is not yet passed."""
    return positions_of(spans, steps - 1)[1] if steps else spans[0].first_position


def tokens_after(spans: Sequence[Span], steps: int) -> int:
    """The token clock after so many train steps."""
    if steps == 0:
        return spans[0].first_token
    span = span_of(spans, steps - 1)
    return span.first_token + (steps - span.first_step) * span.sequences * span.context


def skip_after(spans: Sequence[Span], step: int, num_steps: int) -> tuple[Span, ...]:
    """Spans that leave out the text of `num_steps` planned train steps after `step` of them.

    The token clock passes over it too: positions and learning rates of the text behind stay as planned and the run
    becomes shorter, so the caller lowers the run's steps by `num_steps`.
    """
    behind = step + num_steps
    span = span_of(spans, behind)
    planned = behind - span.first_step
    jump = Span(
        first_step=step,
        first_position=span.first_position + planned * span.sequences,
        first_token=span.first_token + planned * span.sequences * span.context,
        sequences=span.sequences,
        context=span.context,
    )
    later = [replace(other, first_step=other.first_step - num_steps) for other in spans if other.first_step > behind]
    return (*(other for other in spans if other.first_step < step), jump, *later)


def share(sequences: int, rank: int, world: int) -> range:
    """The places of a batch that a process takes; shares differ by one sequence at most."""
    return range(rank * sequences // world, (rank + 1) * sequences // world)


def num_micro_batches(sequences: int, world: int, micro_batch: int) -> int:
    """Micro-batches of a train step, the same on every process: sharded weights are gathered by all together."""
    largest_share = -(-sequences // world)
    return -(-largest_share // micro_batch)


def read_batch(stream: TokenStream, spans: Sequence[Span], step: int, rank: int, world: int) -> Batch:
    """Read a process's share of a train step."""
    first, end = positions_of(spans, step)
    domains, _, _, sequences = stream.order.locate(np.arange(first, end, dtype=np.int64))
    mine = share(end - first, rank, world)
    context = span_of(spans, step).context
    if not mine:  # more processes than sequences
        return Batch(step, mine.start, end - first, domains, torch.zeros(0, context + 1, dtype=torch.int64))
    tokens = stream.reader.read(domains[mine.start : mine.stop], sequences[mine.start : mine.stop], context)
    return Batch(step, mine.start, end - first, domains, torch.from_numpy(tokens.astype(np.int64)))


class TrainBatches:
    """The train steps from `start` to `end` as an iterable with a length, one read ahead.

    Lightning takes a batch too many from an iterable without length; and nothing here counts what was taken.
    """

    def __init__(self, stream: TokenStream, spans: Sequence[Span], start: int, end: int, rank: int, world: int) -> None:
        self.stream, self.spans, self.start, self.end = stream, spans, start, end
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1, "batches") as reader:

            def ahead(step: int):
                return reader.submit(read_batch, self.stream, self.spans, step, self.rank, self.world)

            coming = ahead(self.start) if self.start < self.end else None
            for step in range(self.start, self.end):
                batch = coming.result()
                coming = ahead(step + 1) if step + 1 < self.end else None
                yield batch


class _SyntheticText:
    """Sequences drawn by a counter-based generator; each domain repeats runs of its own small alphabet."""

    def __init__(self, vocabulary: int, num_domains: int, seed: int) -> None:
        self.vocabulary, self.num_domains, self.seed = vocabulary, num_domains, seed

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Domains in turn."""
        draws = positions // self.num_domains
        return positions % self.num_domains, draws, np.zeros_like(positions), draws

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Each sequence from its own counter."""
        wanted = zip(domains.tolist(), sequences.tolist())
        return np.stack([self._sequence(domain, sequence, context) for domain, sequence in wanted])

    def _sequence(self, domain: int, sequence: int, context: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, domain], counter=[0, 0, 0, sequence]))
        alphabet = max(2, self.vocabulary // (domain + 2))
        steps = generator.integers(0, 2, context + 1)
        return (generator.integers(0, alphabet) + np.cumsum(steps)) % alphabet


def synthetic_stream(
    vocabulary: int, domains: Sequence[str], context: int, seed: int = 0, held_out_sequences: int = 0
) -> TokenStream:
    """A stream without text, for tests and for measuring speed: easily learnt walks through small alphabets."""
    text = _SyntheticText(vocabulary, len(domains), seed)
    unseen = _SyntheticText(vocabulary, len(domains), seed + 1)
    counts = [held_out_sequences] * len(domains)
    widths = [4.0] * len(domains)
    held_out = HeldOut(list(domains), counts, unseen, context, widths) if held_out_sequences else None
    return TokenStream(list(domains), text, text, held_out)
