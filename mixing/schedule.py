"""The schedule: phases as spans of whole train steps.

An amount that is not whole train steps is rounded down. The train batch may grow by lines (`BatchLine`): from a number
of trained tokens on, a step holds so many tokens. A step holds only sequences of one length, so a phase's context
divides the batch into sequences (rounded down), and the tokens of a train step stay the same from phase to phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mixing.weights import Number


class ScheduleError(ValueError):
    """A schedule that cannot be cut into train steps."""


@dataclass(frozen=True)
class Amount:
    """An amount of training, such as 300e9 tokens or 2000 train steps."""

    number: int
    unit: Literal["tokens", "train steps", "sequences"] = "tokens"

    def __str__(self) -> str:
        return f"{self.number:,} {self.unit}"


@dataclass(frozen=True)
class Uniform:
    """Order: every domain shuffled, anew for each epoch, all mixed by weight."""


@dataclass(frozen=True)
class Blocked:
    """Order: each block of domains whole, one after the other; inside a block shuffled and mixed as in `Uniform`."""

    blocks: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class BySignal:
    """Order: the sequences `Uniform` would draw in this phase, each domain's sorted by a signal within each epoch."""

    signal: str
    descending: bool = False


OrderKind = Uniform | Blocked | BySignal


@dataclass(frozen=True)
class Phase:
    """A span of tokens with its weights.

    Attributes:
        name: the phase's name.
        span: its length, rounded down to whole train steps.
        weights: share of tokens per domain (names resolved); domains that are absent get none.
        context: tokens of a sequence.
        ramp: over which amount the weights change linearly from those before; rounded down to whole train steps.
        order: uniform, blocked or by a signal.
    """

    name: str
    span: Amount
    weights: Mapping[str, Number]
    context: int
    ramp: Amount = Amount(0)
    order: OrderKind = Uniform()


@dataclass(frozen=True)
class BatchLine:
    """From this many trained tokens on, a train step holds `tokens` tokens."""

    from_tokens: int
    tokens: int


@dataclass(frozen=True)
class Steps:
    """A run of equal train steps."""

    num_steps: int
    sequences: int
    """Sequences of one train step, over all ranks."""

    @property
    def num_sequences(self) -> int:
        """Sequences of the whole run of steps."""
        return self.num_steps * self.sequences


def cut_steps(phases: Sequence[Phase], batch: Sequence[BatchLine]) -> list[list[Steps]]:
    """Cut phases into whole train steps.

    Args:
        phases: the schedule, in order.
        batch: lines in rising order of `from_tokens`, the first from 0. A line begins at the last whole step before it.

    Returns:
        For each phase its runs of equal steps; adjacent runs differ in size.

    Raises:
        ScheduleError: if a phase is shorter than one train step, or a step shorter than one sequence.
    """
    _check_batch(batch)
    trained = 0
    cut = []
    for phase in phases:
        steps = _cut(phase, phase.span, trained, batch)
        if not steps:
            line = _line_at(batch, trained)
            raise ScheduleError(
                f"phase {phase.name!r}: {phase.span} are less than one train step "
                f"({line.tokens:,} tokens, {line.tokens // phase.context:,} sequences of {phase.context:,}); "
                "lengthen the phase or lower the batch"
            )
        cut.append(steps)
        trained += sum(run.num_sequences for run in steps) * phase.context
    return cut


def ramp_sequences(phases: Sequence[Phase], steps: Sequence[Sequence[Steps]], batch: Sequence[BatchLine]) -> list[int]:
    """Return each phase's ramp in sequences, rounded down to whole train steps.

    Raises:
        ScheduleError: if a ramp is longer than its phase, or the first phase has one (there are no weights before).
    """
    trained = 0
    ramps = []
    for place, (phase, runs) in enumerate(zip(phases, steps, strict=True)):
        ramp = sum(run.num_sequences for run in _cut(phase, phase.ramp, trained, batch))
        length = sum(run.num_sequences for run in runs)
        if ramp and place == 0:
            raise ScheduleError(f"phase {phase.name!r}: ramp {phase.ramp}, but no weights come before; remove the ramp")
        if ramp > length:
            raise ScheduleError(
                f"phase {phase.name!r}: ramp {phase.ramp} is longer than the phase ({phase.span}); shorten the ramp"
            )
        ramps.append(ramp)
        trained += length * phase.context
    return ramps


def scale(phases: Sequence[Phase], num_tokens: int) -> list[Phase]:
    """Return the schedule shrunk or stretched to a token budget: every span and ramp by the same factor, rounded down.

    For proxies and rehearsals; phases must be given in tokens.
    """
    for phase in phases:
        if phase.span.unit != "tokens" or (phase.ramp.number and phase.ramp.unit != "tokens"):
            raise ScheduleError(f"phase {phase.name!r}: {phase.span} cannot be scaled; give the phase in tokens")
    total = sum(phase.span.number for phase in phases)
    return [
        replace(
            phase,
            span=Amount(phase.span.number * num_tokens // total),
            ramp=Amount(phase.ramp.number * num_tokens // total),
        )
        for phase in phases
    ]


def _check_batch(batch: Sequence[BatchLine]) -> None:
    starts = [line.from_tokens for line in batch]
    if not batch or starts[0] != 0 or starts != sorted(set(starts)):
        raise ScheduleError(
            f"batch lines start at {starts} tokens: they must rise from 0, such as [[0, 1M], [10B, 4M]]"
        )
    for line in batch:
        if line.tokens < 1:
            raise ScheduleError(f"batch from {line.from_tokens:,} tokens: {line.tokens} tokens a step is not positive")


def _line_at(batch: Sequence[BatchLine], trained: int) -> BatchLine:
    """Return the batch line in force once `trained` tokens are trained."""
    return [line for line in batch if line.from_tokens <= trained][-1]


def _cut(phase: Phase, amount: Amount, trained: int, batch: Sequence[BatchLine]) -> list[Steps]:
    """Cut one amount, which begins after `trained` tokens, into runs of equal steps, by the lines of the batch."""
    runs: list[Steps] = []
    left = amount.number * (phase.context if amount.unit == "sequences" else 1)
    for line, following in zip(batch, [*batch[1:], None], strict=True):
        if following is not None and following.from_tokens <= trained:
            continue
        sequences = line.tokens // phase.context
        if sequences < 1:
            raise ScheduleError(
                f"phase {phase.name!r}: a train step of {line.tokens:,} tokens holds no sequence of {phase.context:,}; "
                f"raise the batch to at least {phase.context:,} tokens"
            )
        step_tokens = sequences * phase.context
        unit = 1 if amount.unit == "train steps" else step_tokens
        wanted = left // unit
        num_steps = wanted if following is None else min(wanted, (following.from_tokens - trained) // step_tokens)
        left -= num_steps * unit
        trained += num_steps * step_tokens
        if num_steps and runs and runs[-1].sequences == sequences:
            runs[-1] = Steps(runs[-1].num_steps + num_steps, sequences)
        elif num_steps:
            runs.append(Steps(num_steps, sequences))
        if num_steps == wanted:
            break
    return runs
