"""Merging by rank: the pair of the lowest rank first, of several the leftmost, until no pair is left.

Short words look through their pairs each time (a few cache lines). Long ones keep a heap, so one word of 60 MB takes
n log n steps. Both give what the library gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.kernels import kernel

SHORT = 64
"""Symbols up to which pairs are looked through; a heap wins from about there on."""

NO_MERGE = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_GONE = np.uint32(0xFFFFFFFF)
_NONE = np.int32(-1)


def pair_table(left: np.ndarray, right: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Open-addressing table from pairs of ids to rank and id of what they merge to.

    Args:
        left: ids of left sides by rank, uint64 (m,); of a pair listed twice the later rank counts.
        right: ids of right sides.
        result: ids of what they merge to.

    Returns:
        uint64 (slots, 2), at most half full: left << 32 | right and rank << 32 | result; NO_MERGE in empty slots.
    """
    slots = 1 << max(4, int(2 * len(left)).bit_length())
    table = np.full((slots, 2), NO_MERGE)
    _fill_pairs(table, left, right, result)
    return table


@kernel
def _fill_pairs(table: Any, left: Any, right: Any, result: Any) -> Any:
    mask = np.uint64(len(table) - 1)
    for rank in range(len(left)):
        pair = (left[rank] << _HALF) | right[rank]
        slot = (pair * _MIX) >> _HALF & mask
        while table[slot, 0] != NO_MERGE and table[slot, 0] != pair:
            slot = (slot + np.uint64(1)) & mask
        table[slot, 0] = pair
        table[slot, 1] = (np.uint64(rank) << _HALF) | result[rank]


@kernel
def merge_of(pairs: Any, left: Any, right: Any) -> Any:
    """Rank << 32 | id of the merge of two ids, or NO_MERGE."""
    mask = np.uint64(len(pairs) - 1)
    pair = (np.uint64(left) << _HALF) | np.uint64(right)
    slot = (pair * _MIX) >> _HALF & mask
    while pairs[slot, 0] != pair and pairs[slot, 0] != NO_MERGE:
        slot = (slot + np.uint64(1)) & mask
    return pairs[slot, 1]


@kernel
def merge_short(ids: Any, number: Any, pairs: Any, ranked: Any) -> Any:
    """Merge up to SHORT symbols in place and give how many are left; `ranked` is scratch of the same length."""
    for place in range(number - 1):
        ranked[place] = merge_of(pairs, ids[place], ids[place + 1])
    while number > 1:
        best = NO_MERGE
        at = 0
        for place in range(number - 1):
            if ranked[place] < best:
                best = ranked[place]
                at = place
        if best == NO_MERGE:
            break
        ids[at] = np.uint32(best & _LOW)
        number -= 1
        for place in range(at + 1, number):
            ids[place] = ids[place + 1]
            ranked[place - 1] = ranked[place]
        if at + 1 < number:
            ranked[at] = merge_of(pairs, ids[at], ids[at + 1])
        if at > 0:
            ranked[at - 1] = merge_of(pairs, ids[at - 1], ids[at])
    return number


@kernel
def merge_long(ids: Any, number: Any, pairs: Any) -> Any:
    """Merge any number of symbols in place and give how many are left; 24 bytes of scratch a symbol while it runs."""
    after = np.empty(number, np.int32)
    before = np.empty(number, np.int32)
    heap = np.empty(2 * number, np.uint64)
    size = 0
    for place in range(number):
        after[place] = place + 1 if place + 1 < number else _NONE
        before[place] = place - 1
        if place + 1 < number:
            found = merge_of(pairs, ids[place], ids[place + 1])
            if found != NO_MERGE:
                heap[size] = (found & ~_LOW) | np.uint64(place)
                size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sift_down(heap, place, size)
    while size:
        top = heap[0]
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, np.int64(0), size)
        place = int(top & _LOW)
        right = int(after[place])
        if ids[place] == _GONE or right < 0:
            continue
        found = merge_of(pairs, ids[place], ids[right])
        if found == NO_MERGE or found >> _HALF != top >> _HALF:
            continue  # a neighbour was merged since this was put here
        ids[place] = np.uint32(found & _LOW)
        ids[right] = _GONE
        beyond = int(after[right])
        after[place] = beyond
        if beyond >= 0:
            before[beyond] = place
            size = _push(heap, size, merge_of(pairs, ids[place], ids[beyond]), place)
        left = int(before[place])
        if left >= 0:
            size = _push(heap, size, merge_of(pairs, ids[left], ids[place]), left)
    kept = 0
    for place in range(number):
        if ids[place] != _GONE:
            ids[kept] = ids[place]
            kept += 1
    return kept


@kernel
def _push(heap: Any, size: Any, found: Any, place: Any) -> Any:
    """Put a merge on the heap, if there is one, and give the heap's size."""
    if found != NO_MERGE:
        entry = (found & ~_LOW) | np.uint64(place)
        child = size
        while child > 0:
            parent = (child - 1) >> 1
            if heap[parent] <= entry:
                break
            heap[child] = heap[parent]
            child = parent
        heap[child] = entry
        size += 1
    return size


@kernel
def _sift_down(heap: Any, place: Any, size: Any) -> Any:
    """Put the entry at a place where it belongs below."""
    if place >= size:
        return
    entry = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = entry
