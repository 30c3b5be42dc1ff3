"""Order windows as kernels: a plan laid out as flat arrays, and the look-ups in them both ways.

Window b of a span holds, of each domain, the draws between the span's cumulative targets at plan times bB and (b+1)B,
laid out domain after domain and mixed by a keyed permutation. `mixing.order` explains the whole and is the way in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curation.kernels import inline_kernel, kernel
from mixing.permutation import Word, derive_key, permute, permute_local, unpermute, unpermute_local
from mixing.targets import Int64s, count_drawn

Int32s = npt.NDArray[np.int32]
UInt64s = npt.NDArray[np.uint64]


class Located(NamedTuple):
    """Where positions lead; arrays of the positions' length.

    Attributes:
        domain: index into the plan's domains, int32.
        draw: how many sequences the domain has given before this one, in the whole run, int64.
        epoch: which pass over the domain at this context, int64.
        sequence: which of the domain's sequences, int64.
    """

    domain: Int32s
    draw: Int64s
    epoch: Int64s
    sequence: Int64s


class Tables(NamedTuple):
    """The plan as flat arrays: one entry for each span (S,) or for each span and domain drawn in it (E,)."""

    start: Int64s
    stop: Int64s
    window: Int64s
    num_windows: Int64s
    ramp: Int64s
    window_key: UInt64s
    first: Int64s  # (S + 1,): a span's entries are first[s] to first[s + 1]
    domain: Int32s
    weight: Int64s
    change: Int64s
    remainder: Int64s
    before: Int64s
    draws: Int64s
    size: Int64s  # sequences of the domain at the span's context
    shift: Int64s  # draw - shift counts the draws at this context only
    epoch_key: UInt64s
    stretch: Int64s  # sequences of a stretch that stays together; 0: shuffled over the whole domain
    sorted_from: Int64s  # where the entry's draws lie in `in_order`; -1: drawn as they come
    in_order: Int64s


@kernel
def boundary(tables: Tables, s: Word, window: Word, drawn: Int64s) -> Word:
    """Fill what each domain of span s has given in it by the start of a window, (entries,); return the sum."""
    first, last = tables.first[s], tables.first[s + 1]
    if window <= 0:
        drawn[: last - first] = 0
        return np.int64(0)
    if window >= tables.num_windows[s]:
        drawn[: last - first] = tables.draws[first:last]
        return tables.stop[s] - tables.start[s]
    time = window * tables.window[s]
    ramp = tables.ramp[s]
    total = np.int64(0)
    for e in range(first, last):
        count = count_drawn(tables.weight[e], tables.change[e], ramp, tables.remainder[e], time)
        drawn[e - first] = count
        total += count
    return total


@kernel
def find_window(tables: Tables, s: Word, offset: Word, low: Int64s, high: Int64s) -> tuple[Word, Word, Word]:
    """Find the window that holds the offset-th sequence of span s; fill its boundaries.

    The sum of the targets stays within one sequence per domain of plan time, and a window is at least 8 per domain:
    the window at plan time `offset` is right or next to right.
    Returns: (window, offset of its start, offset of its stop).
    """
    window = min(offset // tables.window[s], tables.num_windows[s] - 1)
    start = boundary(tables, s, window, low)
    while start > offset:
        window -= 1
        start = boundary(tables, s, window, low)
    stop = boundary(tables, s, window + 1, high)
    while stop <= offset:
        window += 1
        start = stop
        low[:] = high
        stop = boundary(tables, s, window + 1, high)
    return window, start, stop


@inline_kernel
def _last_at_most(sorted_values: Int64s, value: Word) -> Word:
    """Return the last index whose value is at most `value`; the first value always is."""
    low, high = 0, sorted_values.size
    while high - low > 1:
        middle = (low + high) // 2
        if sorted_values[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@kernel
def locate_sorted(tables: Tables, positions: Int64s, where: Int64s, out: Located) -> None:
    """Fill `out[where[i]]` for rising positions; a window's boundaries are kept while positions stay in it."""
    most = 0
    for s in range(tables.start.size):
        most = max(most, tables.first[s + 1] - tables.first[s])
    low, high = np.zeros(most, np.int64), np.zeros(most, np.int64)
    cumulative = np.zeros(most + 1, np.int64)
    window_start: Word = np.int64(0)
    window_stop: Word = np.int64(0)
    first: Word = np.int64(0)
    last: Word = np.int64(0)
    s, key = 0, np.uint64(0)
    for i in range(positions.size):
        position = positions[i]
        if position >= window_stop:
            s = _last_at_most(tables.start, position)
            first, last = tables.first[s], tables.first[s + 1]
            window, start, stop = find_window(tables, s, position - tables.start[s], low, high)
            window_start, window_stop = tables.start[s] + start, tables.start[s] + stop
            key = derive_key(tables.window_key[s], window)
            for e in range(last - first):
                cumulative[e + 1] = cumulative[e] + high[e] - low[e]
        slot = permute(position - window_start, window_stop - window_start, key)
        entry = _last_at_most(cumulative[: last - first], slot)
        _fill(tables, first + entry, low[entry] + slot - cumulative[entry], where[i], out)


@inline_kernel
def _fill(tables: Tables, e: Word, drawn: Word, i: Word, out: Located) -> None:
    """Write the domain, draw, epoch and sequence of the drawn-th draw of entry e."""
    out.domain[i] = tables.domain[e]
    out.draw[i] = tables.before[e] + drawn
    draw = tables.before[e] + drawn
    if tables.sorted_from[e] >= 0:
        draw = tables.in_order[tables.sorted_from[e] + drawn]
    epoch, sequence = _sequence(tables, e, draw)
    out.epoch[i] = epoch
    out.sequence[i] = sequence


@inline_kernel
def _sequence(tables: Tables, e: Word, draw: Word) -> tuple[Word, Word]:
    """Return the (epoch, sequence) that a draw of entry e is in uniform order."""
    size = tables.size[e]
    at_context = draw - tables.shift[e]
    epoch = at_context // size
    key = derive_key(tables.epoch_key[e], epoch)
    return epoch, permute_local(at_context - epoch * size, size, key, tables.stretch[e])


@kernel
def _position(tables: Tables, s: Word, e: Word, drawn: Word, low: Int64s, high: Int64s) -> Word:
    """Return the position of the drawn-th draw that entry e gives in span s."""
    left: Word = np.int64(0)
    right: Word = tables.num_windows[s]
    while right - left > 1:
        middle = (left + right) // 2
        time = middle * tables.window[s]
        given = count_drawn(tables.weight[e], tables.change[e], tables.ramp[s], tables.remainder[e], time)
        if given <= drawn:
            left = middle
        else:
            right = middle
    start = boundary(tables, s, left, low)
    stop = boundary(tables, s, left + 1, high)
    slot = drawn - low[e - tables.first[s]]
    for other in range(e - tables.first[s]):
        slot += high[other] - low[other]
    key = derive_key(tables.window_key[s], left)
    return tables.start[s] + start + unpermute(slot, stop - start, key)


@kernel
def fill_positions(tables: Tables, span_of: Int64s, entry_of: Int64s, drawn: Int64s, positions: Int64s) -> None:
    """Fill the positions of draws given by their span, entry and count within it; all arrays (draws,)."""
    most = 0
    for s in range(tables.start.size):
        most = max(most, tables.first[s + 1] - tables.first[s])
    low, high = np.zeros(most, np.int64), np.zeros(most, np.int64)
    for i in range(drawn.size):
        positions[i] = _position(tables, span_of[i], entry_of[i], drawn[i], low, high)


@kernel
def fill_sequences(tables: Tables, e: Word, draws: Int64s, epochs: Int64s, sequences: Int64s) -> None:
    """Fill the (epoch, sequence) of draws of entry e in uniform order."""
    for i in range(draws.size):
        epochs[i], sequences[i] = _sequence(tables, e, draws[i])


@kernel
def fill_draws(size: Word, key: Word, stretch: Word, epochs: Int64s, sequence: Word, draws: Int64s) -> None:
    """Fill which draw at its context a sequence is in each epoch, (epochs,)."""
    for i in range(epochs.size):
        draws[i] = epochs[i] * size + unpermute_local(sequence, size, derive_key(key, epochs[i]), stretch)
