"""Which windows of n units stand earlier in a corpus: exact, within any memory, in as many passes as that takes.

A window is every run of n units of one document. A pass takes the windows whose hash begins with some bits: first a
table of two bits a slot tells the slots that more than one window falls into, then a hash table keeps the first
window of each such hash. An equal hash is compared unit by unit with the first window, so a collision costs time and
never a wrong answer; and a window that a million documents repeat costs one entry.

This gives the same windows as a suffix array (repeated substrings of n or more are the unions of repeated windows of
n) without its 5 to 9 bytes of memory for every byte of the corpus.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.dedup.shingle import mix
from curation.kernels import inline_kernel, kernel

MIN_MEMORY = 1 << 20  # a table too small to split any further
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SLOTS_PER_WINDOW = 8  # two bits each: of unique windows about 12 % share a slot and reach the hash table
_BYTES_PER_ENTRY = 16  # hash and place; at most two thirds of a table are filled
_START_ENTRIES = 1 << 12


@inline_kernel
def _in_part(hashed: Any, bits: Any, part: Any) -> Any:
    """Whether a hash begins with the `bits` bits of `part`."""
    return bits == 0 or (hashed >> np.uint64(64 - bits)) == part


@inline_kernel
def _first_window(units: np.ndarray, start: Any, size: Any) -> Any:
    value = np.uint64(0)
    for index in range(start, start + size):
        value = value * _FACTOR + units[index]
    return value


@inline_kernel
def _power(size: Any) -> Any:
    power = np.uint64(1)
    for _ in range(size):
        power *= _FACTOR
    return power


@kernel
def _mark_slots(
    units: np.ndarray, ends: np.ndarray, size: Any, bits: Any, part: Any, once: np.ndarray, twice: np.ndarray
) -> None:
    """Set the bit of every window's slot in `once`, and in `twice` where it was set already."""
    mask, power, start = np.uint64(64 * once.shape[0] - 1), _power(size), 0
    for document in range(ends.shape[0]):
        end = ends[document]
        if end - start >= size:
            value = _first_window(units, start, size)
            for place in range(start, end - size + 1):
                hashed = mix(value)
                if _in_part(hashed, bits, part):
                    slot = hashed & mask
                    word, bit = np.int64(slot >> np.uint64(6)), np.uint64(1) << (slot & np.uint64(63))
                    twice[word] |= once[word] & bit
                    once[word] |= bit
                if place + size < end:
                    value = value * _FACTOR + units[place + size] - units[place] * power
        start = end


@kernel
def _find(  # noqa: PLR0913
    units: np.ndarray,
    ends: np.ndarray,
    first_document: Any,
    size: Any,
    bits: Any,
    part: Any,
    twice: np.ndarray,
    hashes: np.ndarray,
    places: np.ndarray,
    filled: Any,
    origin: np.ndarray,
) -> Any:
    """Note in `origin` the first window that equals each one (its place + 1); returns (document, entries filled).

    Stops before a document when the table is two thirds full, to be called again with a larger one; a document that
    is done twice finds its own windows.
    """
    mask, slots = np.uint64(64 * twice.shape[0] - 1), np.uint64(hashes.shape[0] - 1)
    room, power = 2 * hashes.shape[0] // 3, _power(size)
    start = ends[first_document - 1] if first_document > 0 else 0
    for document in range(first_document, ends.shape[0]):
        end = ends[document]
        if end - start >= size:
            value = _first_window(units, start, size)
            for place in range(start, end - size + 1):
                hashed = mix(value)
                slot = hashed & mask
                if (
                    _in_part(hashed, bits, part)
                    and (twice[np.int64(slot >> np.uint64(6))] >> (slot & np.uint64(63))) & 1
                ):
                    at = np.int64(mix(hashed) & slots)
                    while places[at] >= 0:
                        first = places[at]
                        if hashes[at] == hashed:
                            same = 0
                            while same < size and units[first + same] == units[place + same]:
                                same += 1
                            if same == size:
                                break
                        at = np.int64((at + 1) & slots)
                    if places[at] >= 0:
                        if places[at] != place:
                            origin[place] = places[at] + 1
                    else:
                        if filled >= room:
                            return document, filled
                        hashes[at], places[at] = hashed, place
                        filled += 1
                if place + size < end:
                    value = value * _FACTOR + units[place + size] - units[place] * power
        start = end
    return ends.shape[0], filled


@kernel
def _move(hashes: np.ndarray, places: np.ndarray, new_hashes: np.ndarray, new_places: np.ndarray) -> None:
    """Put a table's entries into a larger one. Equal hashes of unequal windows keep entries of their own."""
    slots = np.uint64(new_hashes.shape[0] - 1)
    for index in range(hashes.shape[0]):
        if places[index] >= 0:
            at = np.int64(mix(hashes[index]) & slots)
            while new_places[at] >= 0:
                at = np.int64((at + 1) & slots)
            new_hashes[at], new_places[at] = hashes[index], places[index]


def find_repeats(units: np.ndarray, ends: np.ndarray, size: int, memory: int, origin: np.ndarray) -> int:
    """Note for every window that stands earlier in the corpus where it stands first.

    Args:
        units: of all documents one after another, uint64; may lie on disk.
        ends: where each document's units end, int64.
        size: units of a window.
        memory: bytes for the tables; fewer mean more passes over `units`, and the same result.
        origin: int64 (units,), zero; gets the place of the first equal window + 1 where there is an earlier one.

    Returns:
        The number of passes.
    """
    bits = 0
    while 2 * _SLOTS_PER_WINDOW * len(units) >> (bits + 3) > memory // 4 and bits < 32:
        bits += 1
    return sum(_find_part(units, ends, size, (bits, part), memory, origin) for part in range(1 << bits))


def _find_part(
    units: np.ndarray, ends: np.ndarray, size: int, part: tuple[int, int], memory: int, origin: np.ndarray
) -> int:
    """Find the repeats of one part; one that needs a larger table than the memory is done in halves."""
    bits, number = np.int64(part[0]), np.uint64(part[1])
    slots = 1 << max(10, (_SLOTS_PER_WINDOW * len(units) >> part[0]).bit_length())
    once, twice = np.zeros(slots // 64, np.uint64), np.zeros(slots // 64, np.uint64)
    _mark_slots(units, ends, size, bits, number, once, twice)
    del once
    hashes, places = _table(_START_ENTRIES)
    document = filled = 0
    while True:
        document, filled = _find(
            units, ends, document, size, bits, number, twice, hashes, places, filled, origin
        )  # fmt: skip
        if document == len(ends):
            return 1
        if 3 * len(hashes) * _BYTES_PER_ENTRY > memory // 2 and memory > MIN_MEMORY:  # old and new one side by side
            halves = [(part[0] + 1, 2 * part[1]), (part[0] + 1, 2 * part[1] + 1)]
            return 1 + sum(_find_part(units, ends, size, half, memory, origin) for half in halves)
        larger = _table(2 * len(hashes))
        _move(hashes, places, *larger)
        hashes, places = larger


def _table(entries: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(entries, np.uint64), np.full(entries, -1, np.int64)


@kernel
def _spans(
    ends: np.ndarray,
    first_document: Any,
    size: Any,
    origin: np.ndarray,
    out: np.ndarray,
    out_ends: np.ndarray,
    copy_of: np.ndarray,
) -> Any:
    """Unions of repeated windows by document; returns how many fit, or more than `len(out)` where they do not."""
    filled = 0
    start = ends[first_document - 1] if first_document > 0 else 0
    for number in range(out_ends.shape[0]):
        end, longest, first = ends[first_document + number], 0, -1
        for place in range(start, end - size + 1):
            if origin[place] == 0:
                continue
            if first < 0 or place > out[filled - 1, 1] + start:
                if filled >= out.shape[0]:
                    return out.shape[0] + 1
                out[filled, 0] = place - start
                first = place
                filled += 1
            out[filled - 1, 1] = place + size - start
            if place + size - first > longest:
                longest, copy_of[number] = place + size - first, origin[first] - 1
        out_ends[number] = filled
        start = end
    return filled


def spans_of(
    ends: np.ndarray, first: int, last: int, size: int, origin: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spans of repeated units of the documents `first` to `last`.

    Returns:
        Spans as first unit and the one after the last, counted within their document (int64 (spans, 2)); where each
        document's spans end (int64); and the place in the corpus of the first copy of its longest span, or -1 (int64).
    """
    room = 1024
    while True:
        out, out_ends = np.zeros((room, 2), np.int64), np.zeros(last - first, np.int64)
        copy_of = np.full(last - first, -1, np.int64)
        filled = int(_spans(ends, first, size, origin, out, out_ends, copy_of))
        if filled <= room:
            return out[:filled], out_ends, copy_of
        room *= 8
