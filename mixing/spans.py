"""Spans: stretches of a phase with one law of weights, made by following the cumulative targets to each one's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixing.schedule import Blocked, ScheduleError
from mixing.targets import DENOMINATOR, TICKS, end_span, first_remainder


@dataclass(frozen=True)
class Span:
    """A stretch of a phase with one law of weights; the tuples after `ramp` run over the domains it draws from.

    Attributes:
        start: its first position.
        num_positions: sequences it holds.
        ticks: its plan time, in parts of 2**-20 sequences.
        ramp: sequences over which the weights change; 0: constant.
        domains: indices into the plan's domains, rising.
        weights: integers of 1/D at the start.
        changes: what the ramp adds by its end.
        remainders: what each domain brings along, in units of 1/D.
        draws_before: draws each domain has given in the run before this span.
        draws: draws each domain gives in it.
    """

    start: int
    num_positions: int
    ticks: int
    ramp: int
    domains: tuple[int, ...]
    weights: tuple[int, ...]
    changes: tuple[int, ...]
    remainders: tuple[int, ...]
    draws_before: tuple[int, ...]
    draws: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The first position after the span."""
        return self.start + self.num_positions


@dataclass
class Course:
    """Where the targets stand while the plan is made: remainders and draws per domain, and the next position."""

    remainders: list[int]
    draws: list[int]
    position: int = 0

    def advance(self, ramp: int, weights: Sequence[int], changes: Sequence[int], num_sequences: int) -> Span:
        """Add a span of `num_sequences`; one with a ramp ends with it, if that comes first."""
        chosen = [g for g in range(len(weights)) if weights[g] or changes[g]]
        w, d = [weights[g] for g in chosen], [changes[g] for g in chosen]
        r = [self.remainders[g] for g in chosen]
        before = tuple(self.draws[g] for g in chosen)
        ticks, draws, left = end_span(w, d, ramp, r, num_sequences)
        for g, drawn, remainder in zip(chosen, draws, left, strict=True):
            self.draws[g] += drawn
            self.remainders[g] = remainder
        start = self.position
        self.position += sum(draws)
        return Span(start, sum(draws), ticks, ramp, tuple(chosen), tuple(w), tuple(d), tuple(r), before, tuple(draws))


def block_spans(phase: str, order: Blocked, names: Sequence[str], spans: Sequence[Span], seed: int) -> list[Span]:
    """Rearrange a phase's draws block by block: the same draws as in uniform order, one block after the other."""
    before: dict[int, int] = {}
    draws: dict[int, int] = {}
    for span in spans:
        for g, first, count in zip(span.domains, span.draws_before, span.draws, strict=True):
            before.setdefault(g, first)
            draws[g] = draws.get(g, 0) + count
    index = {name: g for g, name in enumerate(names)}
    unknown = sorted({name for block in order.blocks for name in block if name not in index})
    if unknown:
        raise ScheduleError(f"phase {phase!r}: blocks of unknown domains {', '.join(unknown)}")
    blocks = [sorted(index[name] for name in block) for block in order.blocks]
    _check_blocks(phase, names, blocks, draws)
    position = spans[0].start
    rearranged = []
    for block in blocks:
        chosen = tuple(g for g in block if draws.get(g))
        length = sum(draws[g] for g in chosen)
        if not length:
            continue
        rearranged.append(
            Span(
                position,
                length,
                length * TICKS,
                0,
                chosen,
                tuple(draws[g] * DENOMINATOR // length for g in chosen),
                (0,) * len(chosen),
                tuple(first_remainder(seed, names[g]) for g in chosen),
                tuple(before[g] for g in chosen),
                tuple(draws[g] for g in chosen),
            )
        )
        position += length
    return rearranged


def _check_blocks(phase: str, names: Sequence[str], blocks: Sequence[Sequence[int]], draws: Mapping[int, int]) -> None:
    """Refuse a block order that names a drawn domain twice or not at all."""
    counts = [0] * len(names)
    for block in blocks:
        for g in block:
            counts[g] += 1
    wrong = [f"{names[g]!r} stands in {counts[g]} blocks" for g in range(len(names)) if counts[g] > 1]
    wrong += [f"{names[g]!r} stands in no block" for g in sorted(draws) if draws[g] and not counts[g]]
    if wrong:
        raise ScheduleError(f"phase {phase!r}: {', '.join(wrong)}; name each domain in one block ('*' is the rest)")
