"""Cumulative targets in exact integers: how many sequences each domain has given after t sequences of a span.

A weight is an integer w of the denominator D = 10**12. From a remainder r (0 <= r < D) a domain has given

    floor((w t + floor(d t**2 / (2 R)) + r) / D)

sequences at plan time t, where d is by how much w changes over a ramp of R sequences (d = 0: constant). The inner floor
changes nothing (the other terms are integers), so this is the floor of the exact integral of the weight. The remainder
is the domain's staggered offset at the start of the run, and what is left over at the start of every later span.

D is the square of 10**6, so that two nested divisions stay within 64 bits: with w = a 10**6 + b,
floor((w t + r) / D) = floor((a t + floor((b t + r) / 10**6)) / 10**6), exact while t < 2**42.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curation.kernels import inline_kernel, kernel
from mixing.permutation import Word, name_key

DENOMINATOR = 10**12
MAX_SPAN = 2**42
"""Most sequences of a span (9e15 tokens of context 2,048)."""
MAX_RAMP = 2**31
"""Most sequences of a ramp (4.4e12 tokens of context 2,048): t**2 stays within 64 bits."""
TICKS = 2**20
"""Parts of a unit of plan time by which a span's end is told."""

_HALF = 10**6
Int64s = npt.NDArray[np.int64]


@inline_kernel
def _ramp_units(change: Word, ramp: Word, t: Word) -> tuple[Word, Word]:
    """Return floor(change * t**2 / (2 * ramp)) as (high, low): high * 10**6 + low, without leaving 64 bits."""
    double = 2 * ramp
    whole = (t * t) // double
    rest = t * t - whole * double
    high = change // _HALF
    low = change - high * _HALF
    part = (high * rest) // double
    left = high * rest - part * double
    return high * whole + part, low * whole + (left * _HALF + low * rest) // double


@inline_kernel
def count_drawn(weight: Word, change: Word, ramp: Word, remainder: Word, t: Word) -> Word:
    """Return the sequences a domain has given at plan time t of a span (see the formula above), int64."""
    high = weight // _HALF
    low = weight - high * _HALF
    a = high * t
    b = low * t + remainder
    if change != 0:
        ramp_high, ramp_low = _ramp_units(change, ramp, t)
        a += ramp_high
        b += ramp_low
    return (a + b // _HALF) // _HALF


@kernel
def sum_drawn(weights: Int64s, changes: Int64s, ramp: Word, remainders: Int64s, t: Word) -> Word:
    """Return the sequences all domains together have given at plan time t of a span; arrays are (domains,)."""
    total = np.int64(0)
    for g in range(weights.size):
        total += count_drawn(weights[g], changes[g], ramp, remainders[g], t)
    return total


def first_remainder(seed: int, name: str) -> int:
    """Return a domain's staggered offset u in units of 1/D, between D/1024 and D, keyed by its name.

    Without it, domains of equal weight would all be drawn at once. It is at least 1/1024 so that the end of a span,
    told in ticks of 2**-20, never takes a domain a whole sequence from its target, within a thousand phases.
    """
    lowest = DENOMINATOR // 1024
    return lowest + name_key(seed, "offset", name) % (DENOMINATOR - lowest)


def exact_units(weight: int, change: int, ramp: int, ticks: int) -> int:
    """Return floor(w t + d t**2 / (2 R)) at t = ticks / 2**20 in Python's integers of any length."""
    if change == 0:
        return weight * ticks // TICKS
    return (weight * ticks * 2 * ramp * TICKS + change * ticks * ticks) // (2 * ramp * TICKS * TICKS)


def find_time(weights: Int64s, changes: Int64s, ramp: int, remainders: Int64s, num_sequences: int) -> int:
    """Return the smallest whole plan time at which the domains have given at least `num_sequences` (>= 1) together.

    A ramp must give that many by its end, past which its formula means nothing.
    """
    low, high = 0, ramp or num_sequences + weights.size + 1
    while high - low > 1:
        middle = (low + high) // 2
        if sum_drawn(weights, changes, ramp, remainders, middle) >= num_sequences:
            high = middle
        else:
            low = middle
    return high


def drawn_at(
    weights: Sequence[int], changes: Sequence[int], ramp: int, remainders: Sequence[int], ticks: int
) -> list[int]:
    """Return what each domain has given at plan time ticks / 2**20 of a span, in exact integers."""
    return [
        (exact_units(w, d, ramp, ticks) + r) // DENOMINATOR
        for w, d, r in zip(weights, changes, remainders, strict=True)
    ]


def end_span(
    weights: Sequence[int], changes: Sequence[int], ramp: int, remainders: Sequence[int], num_sequences: int
) -> tuple[int, list[int], list[int]]:
    """Find where a span has given exactly `num_sequences`, or where its ramp ends if that comes first.

    Args:
        weights: integers of 1/D for each domain, in order of the domains' names, at the span's start.
        changes: what a ramp adds to each weight by its end; zeros without a ramp.
        ramp: sequences over which the weights change; 0 without a ramp.
        remainders: what each domain brings along, 0 <= r < D.
        num_sequences: most sequences of the span, at least 1.

    Returns:
        (ticks, draws, remainders): plan time of the end in ticks, sequences each domain gives until then, and the
        remainders with which the next span begins. When several domains reach their next sequence within the last
        tick, the first by name give theirs, and the others stay just below it (D - 1).
    """
    ticks = ramp * TICKS
    if not ramp or sum(drawn_at(weights, changes, ramp, remainders, ticks)) > num_sequences:
        ticks = _end_tick(weights, changes, ramp, remainders, num_sequences)
    units = [exact_units(w, d, ramp, ticks) + r for w, d, r in zip(weights, changes, remainders, strict=True)]
    draws = [unit // DENOMINATOR for unit in units]
    left_over = [unit % DENOMINATOR for unit in units]
    excess = sum(draws) - num_sequences
    if excess > 0:
        before = drawn_at(weights, changes, ramp, remainders, ticks - 1)
        for g in [g for g in range(len(draws)) if draws[g] > before[g]][-excess:]:
            draws[g] -= 1
            left_over[g] = DENOMINATOR - 1
    return ticks, draws, left_over


def _end_tick(
    weights: Sequence[int], changes: Sequence[int], ramp: int, remainders: Sequence[int], num_sequences: int
) -> int:
    """Return the first tick at which the domains have given `num_sequences` or more.

    The next whole time instead, where they have not given more by then: any tick between is as good an end.
    """
    arrays = [np.array(values, dtype=np.int64) for values in (weights, changes, remainders)]
    time = find_time(arrays[0], arrays[1], ramp, arrays[2], num_sequences)
    start = drawn_at(weights, changes, ramp, remainders, (time - 1) * TICKS)
    end = drawn_at(weights, changes, ramp, remainders, time * TICKS)
    if sum(end) == num_sequences:
        return time * TICKS
    moving = [g for g in range(len(start)) if end[g] > start[g]]
    wanted = num_sequences - sum(start)
    chosen = [[values[g] for g in moving] for values in (weights, changes, remainders)]
    given = sum(start[g] for g in moving)
    low, high = (time - 1) * TICKS, time * TICKS
    while high - low > 1:
        middle = (low + high) // 2
        if sum(drawn_at(chosen[0], chosen[1], ramp, chosen[2], middle)) - given >= wanted:
            high = middle
        else:
            low = middle
    return high
