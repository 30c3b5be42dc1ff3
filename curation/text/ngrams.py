"""Repeated word n-grams of one document: kernels over the hashes of its segments.

Nearly all n-grams of sound text occur once, and a value that occurs once cannot matter to any count of repetitions. So
cheap passes over two bitmaps (seen; seen again), which stay in the nearest cache, leave the places that may be
repeated, and only these reach a hash table. The results are exact: a false alarm of a bitmap costs time.

* Tuples of words nest: a 3-gram can be repeated only where the 2-grams at its first and second word are.
* Words joined by nothing do not nest (`1 11` and `11 1` join alike), but equal strings begin with equal bytes: an
  n-gram of at least 8 (16, 24, 32) bytes can be repeated only where its first 8 (16, 24, 32) bytes are.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curation.kernels import kernel
from curation.text.load import eight_bytes
from curation.text.scan import Segments, joined_hash
from curation.text.segment import Array

_SCATTER = 0xD6E8FEB86659FD93  # odd: the high bits of value * _SCATTER depend on all bits of the value
_WORD_BASE = 0xC2B2AE3D27D4EB4F  # odd, of the polynomial over words
MAX_WINDOWS = 4  # of eight bytes each; `Segments.joined` has as many zero bytes behind it


class Tables(NamedTuple):
    """Scratch of the n-gram kernels.

    keys: uint64, an open-addressing table in its first 2**bits slots; 0 is empty.
    counts, firsts: int32, beside keys.
    seen, again: uint64, the bitmaps.
    values: uint64, one value a place.
    places: int32, places that may be repeated.
    windows: uint8, per segment: how many times eight bytes from it on may be repeated, up to MAX_WINDOWS.
    among: int32, places to look at again.
    sketch: uint8, counters of hashes, up to 255.
    """

    keys: Array
    counts: Array
    firsts: Array
    seen: Array
    again: Array
    values: Array
    places: Array
    windows: Array
    among: Array
    sketch: Array


@kernel
def new_tables(num_values: int) -> Tables:
    """Scratch for at most `num_values` segments or parts; the system maps only as much of it as is used."""
    return Tables(
        np.empty(4 * num_values + 16, np.uint64),
        np.empty(4 * num_values + 16, np.int32),
        np.empty(4 * num_values + 16, np.int32),
        np.empty(num_values + 16, np.uint64),
        np.empty(num_values + 16, np.uint64),
        np.empty(num_values + 16, np.uint64),
        np.empty(num_values + 16, np.int32),
        np.empty(num_values + 16, np.uint8),
        np.empty(num_values + 16, np.int32),
        np.empty(8 * num_values + 64, np.uint8),
    )


@kernel
def table_bits(count: int) -> int:
    """The exponent of the smallest power of two that is at least twice `count`, and at least 8."""
    bits = 3
    while (1 << bits) < 2 * count:
        bits += 1
    return bits


@kernel
def may_repeat(tables: Tables, count: int) -> int:
    """Fill the bitmaps for `values[:count]`; `is_repeat` then tells for each. Returns the shift that it needs."""
    bits = table_bits(count) + 3  # 16 to 32 bits a value: one false alarm in 16 to 32
    shift, low = 64 - bits, np.uint64(63)
    num_words = 1 << max(0, bits - 6)
    tables.seen[:num_words] = 0
    tables.again[:num_words] = 0
    for i in range(count):
        key = tables.values[i] >> np.uint64(shift)
        word, bit = key >> np.uint64(6), np.uint64(1) << (key & low)
        before = tables.seen[word]
        tables.again[word] |= before & bit
        tables.seen[word] = before | bit
    return shift


@kernel
def is_repeat(tables: Tables, value: np.uint64, shift: int) -> np.int64:
    """1 where the bitmaps say that the value may occur more than once, else 0."""
    key = value >> np.uint64(shift)
    return np.int64((tables.again[key >> np.uint64(6)] >> (key & np.uint64(63))) & np.uint64(1))


@kernel
def never_zero(value: np.uint64) -> np.uint64:
    """The value as a key of a table, whose empty slots are 0."""
    return value if value != np.uint64(0) else np.uint64(1)


@kernel
def find_slot(keys: Array, bits: int, value: np.uint64) -> np.uint64:
    """The slot of `value` in an open-addressing table of 2**bits keys: where it is, or the empty slot (0) for it."""
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    slot = (value * np.uint64(_SCATTER)) >> np.uint64(64 - bits)
    while (keys[slot] != np.uint64(0)) & (keys[slot] != value):  # one condition, which a processor foresees
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def clear_table(keys: Array, count: int) -> int:
    """Make `keys` an empty table for `count` values; returns its bits. `keys` has at least 4 x count + 8 slots."""
    bits = table_bits(count)
    keys[: 1 << bits] = 0
    return bits


@kernel
def insert_new(keys: Array, bits: int, value: np.uint64) -> bool:
    """Put a value into a set; whether it was not there yet."""
    value = never_zero(value)
    slot = find_slot(keys, bits, value)
    if keys[slot] == value:
        return False
    keys[slot] = value
    return True


@kernel
def tuple_hash(hashes: Array, first: int, n: int) -> np.uint64:
    """Hash of n words as a tuple."""
    value = hashes[np.uint64(first)]
    for k in range(first + 1, first + n):
        value = value * np.uint64(_WORD_BASE) + hashes[np.uint64(k)]
    return value * np.uint64(_SCATTER)


@kernel
def repeated_pairs(hashes: Array, count: int, tables: Tables) -> int:
    """Write the places of 2-grams that may be repeated to `places`, in order; returns how many there are."""
    for i in range(count - 1):
        tables.values[i] = tuple_hash(hashes, i, 2)
    shift = may_repeat(tables, count - 1)
    found = 0
    for i in range(count - 1):
        tables.places[np.uint64(found)] = i
        found += is_repeat(tables, tables.values[i], shift)
    return found


@kernel
def narrow_places(tables: Tables, found: int) -> int:
    """Keep the places whose right neighbour is a place too: those where an n-gram one longer may be repeated."""
    left = 0
    for k in range(found - 1):
        place = tables.places[k]
        follows = tables.places[k + 1] == place + 1
        tables.places[np.uint64(left)] = place
        left += follows
    return left


@kernel
def _frequent_values(tables: Tables, found: int) -> int:
    """Keep in `values[:found]` and `among` (their indices) only what may be the most frequent value; returns how many.

    One row of counters bounds every count from above; the exact count of one value in the fullest cell bounds the
    largest count from below, and values whose cell counted less cannot be the most frequent.
    """
    bits = table_bits(found) + 1
    shift, sketch = np.uint64(64 - bits), tables.sketch
    sketch[: 1 << bits] = 0
    fullest, candidate = 0, np.uint64(0)
    for k in range(found):
        cell = tables.values[k] >> shift
        count = np.int64(sketch[cell])
        count += count < 255
        sketch[cell] = count
        if count > fullest:
            fullest, candidate = count, tables.values[k]
    least = 0
    for k in range(found):
        least += tables.values[k] == candidate
    least = min(255, max(2, least))
    left = 0
    for k in range(found):
        value = tables.values[k]
        tables.among[np.uint64(left)], tables.values[np.uint64(left)] = k, value
        left += np.int64(sketch[value >> shift]) >= least
    return left


@kernel
def top_tuple(hashes: Array, n: int, tables: Tables, found: int) -> tuple[int, int]:
    """The most frequent n-gram of those at `places[:found]`, the earliest of equals: its first place and its count.

    (0, 1) when nothing repeats: every n-gram occurs once, and the first is the earliest.
    """
    for k in range(found):
        tables.values[k] = tuple_hash(hashes, tables.places[k], n)
    left = _frequent_values(tables, found)
    bits = clear_table(tables.keys, left)
    most, first = 1, 0
    for k in range(left):
        place, value = tables.places[np.uint64(tables.among[k])], never_zero(tables.values[k])
        slot = find_slot(tables.keys, bits, value)
        if tables.keys[slot] == np.uint64(0):
            tables.keys[slot], tables.counts[slot], tables.firsts[slot] = value, 1, place
        else:
            tables.counts[slot] += 1
            count, seen = tables.counts[slot], tables.firsts[slot]
            if count > most or (count == most and seen < first):
                most, first = count, seen
    return first, most


@kernel
def mark_windows(segments: Segments, count: int, tables: Tables) -> None:
    """Fill `windows` for all segments, each further eight bytes among those left."""
    left = count
    for i in range(count):
        tables.places[i] = i
        tables.windows[i] = 0
    for level in range(MAX_WINDOWS):
        for k in range(left):
            before = tables.values[k] if level else np.uint64(0)
            more = eight_bytes(segments.joined, segments.ends[np.uint64(tables.places[k])] + 8 * level)
            value = (before ^ more) * np.uint64(_WORD_BASE)
            tables.values[k] = (value ^ (value >> np.uint64(32))) * np.uint64(_SCATTER)
        shift = may_repeat(tables, left)
        kept = 0
        for k in range(left):
            value, place = tables.values[k], tables.places[k]
            repeats = is_repeat(tables, value, shift)
            tables.windows[np.uint64(place)] += repeats
            tables.values[np.uint64(kept)], tables.places[np.uint64(kept)] = value, place
            kept += repeats
        left = kept


@kernel
def joined_places(segments: Segments, count: int, shortest: int, tables: Tables) -> int:
    """Write the places where an n-gram of at least `shortest` words may be repeated to `among`; returns how many.

    `windows` is filled. What cannot repeat with `shortest` words cannot with more: it only gets longer.
    """
    ends, found = segments.ends, 0
    for i in range(count - shortest + 1):
        tables.among[np.uint64(found)] = i
        found += tables.windows[i] >= min(MAX_WINDOWS, (ends[i + shortest] - ends[i]) >> 3)
    return found


@kernel
def repeated_joined(segments: Segments, count: int, n: int, tables: Tables, among: int) -> int:
    """Characters of n-grams that occurred before, from left to right, jumping over each n-gram that is counted.

    N-grams are compared as words joined by nothing; `among[:among]` are the places to look at (`joined_places`).
    """
    ends, found = segments.ends, 0
    while among and tables.among[among - 1] + n > count:
        among -= 1
    for k in range(among):
        i = np.uint64(tables.among[k])
        tables.places[np.uint64(found)] = i
        found += tables.windows[i] >= min(MAX_WINDOWS, (ends[i + np.uint64(n)] - ends[i]) >> 3)
    for k in range(found):
        place = tables.places[k]
        tables.values[k] = joined_hash(segments, place, place + n) * np.uint64(_SCATTER)
    shift = may_repeat(tables, found)
    left = 0
    for k in range(found):
        value = tables.values[k]
        tables.values[np.uint64(left)], tables.places[np.uint64(left)] = value, tables.places[k]
        left += is_repeat(tables, value, shift)
    bits = clear_table(tables.keys, left)
    characters, free = 0, 0
    for k in range(left):
        place = tables.places[k]
        if place >= free and not insert_new(tables.keys, bits, tables.values[k]):
            characters += segments.characters[place + n] - segments.characters[place]
            free = place + n
    return characters


@kernel
def repeated_tuples(hashes: Array, n: int, tables: Tables, found: int, characters: Array) -> int:
    """Characters covered by n-grams that occur more than once anywhere, each character once.

    `places[:found]` hold all places where an n-gram may be repeated; `characters` (one longer than `hashes`) are the
    characters before each word.
    """
    bits = clear_table(tables.keys, found)
    for k in range(found):
        value = never_zero(tuple_hash(hashes, tables.places[k], n))
        slot = find_slot(tables.keys, bits, value)
        if tables.keys[slot] == np.uint64(0):
            tables.keys[slot], tables.counts[slot] = value, 0
        tables.counts[slot] += 1
        tables.values[k] = slot
    covered, free = 0, 0
    for k in range(found):
        place = tables.places[k]
        if tables.counts[tables.values[k]] > 1:
            covered += characters[place + n] - characters[max(free, place)]
            free = place + n
    return covered


@kernel
def count_values(hashes: Array, count: int, tables: Tables) -> int:
    """Count equal hashes: `counts` of a slot are filled, `places` holds the slots in the order of first occurrence.

    Returns the number of distinct hashes.
    """
    bits = clear_table(tables.keys, count)
    distinct = 0
    for i in range(count):
        value = never_zero(hashes[i])
        slot = find_slot(tables.keys, bits, value)
        known = np.int32(tables.keys[slot] != np.uint64(0))  # no branch: every third word would be misjudged
        tables.keys[slot], tables.counts[slot] = value, tables.counts[slot] * known + np.int32(1)
        tables.places[np.uint64(distinct)] = slot
        distinct += 1 - known
    return distinct
