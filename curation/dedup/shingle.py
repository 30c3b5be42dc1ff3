"""Words and shingles of a document as 64-bit hashes, straight from Arrow's UTF-8 buffers.

A document is scanned in blocks, so the kernels need a few KiB whatever its length. A unit is a word or a character of
the normalised text (words joined by one space); a shingle is n units that stand side by side. The hash of a word is
FNV-1a over its folded code points with a finaliser, the hash of a shingle a polynomial of its units' hashes modulo
2^64 with a finaliser; tests/curation/test_dedup_shingle.py holds the plain Python twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import Fold, load_fold
from curation.kernels import inline_kernel, kernel

BLOCK = 4096  # units scanned at a time
_FNV_START = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x00000100000001B3)
_SHINGLE_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's 64-bit finaliser
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_EXACT_1 = np.uint64(0xA0761D6478BD642F)  # odd constants of wyhash
_EXACT_2 = np.uint64(0xE7037ED1A0B428DB)
_SINGLE = np.uint32(1 << 31)
_EXPANDS = np.uint32(1 << 30)
_MARK = np.uint32(1 << 29)
_CODE_POINT = np.uint32((1 << 21) - 1)
_SPACE = np.uint64(32)
_OUTSIDE, _INSIDE, _ALONE = np.uint64(0), np.uint64(1), np.uint64(2)


def text_buffers(text: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UTF-8 bytes, int64 offsets (rows + 1,) and bool validity (rows,) of a large_string array; text is not copied."""
    text = text.cast(pa.large_string()) if text.type != pa.large_string() else text
    _, offset_buffer, byte_buffer = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[text.offset : text.offset + len(text) + 1]
    content = np.frombuffer(byte_buffer, np.uint8) if byte_buffer is not None else np.zeros(0, np.uint8)
    valid = np.asarray(text.is_valid().to_numpy(zero_copy_only=False))
    return content, offsets if len(offsets) else np.zeros(1, np.int64), valid


def made_text(content: np.ndarray, offsets: np.ndarray, valid: np.ndarray) -> pa.Array:
    """A large_string array of bytes, int64 offsets (rows + 1,) and bool validity (rows,); undoes `text_buffers`."""
    validity = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    parts = pa.py_buffer(offsets), pa.py_buffer(content[: offsets[-1]]), validity
    return pa.LargeStringArray.from_buffers(len(valid), *parts)


@inline_kernel
def mix(x: Any) -> Any:
    """MurmurHash3's finaliser, a bijection on 64 bits."""
    x ^= x >> np.uint64(33)
    x *= _MIX_1
    x ^= x >> np.uint64(33)
    x *= _MIX_2
    return x ^ (x >> np.uint64(33))


@kernel
def _next_words(  # noqa: C901, PLR0913
    content: np.ndarray,
    place: Any,
    end: Any,
    table: np.ndarray,
    starts: np.ndarray,
    expansions: np.ndarray,
    state: np.ndarray,
    units: np.ndarray,
    filled: Any,
) -> Any:
    """Hash words from `place` until `units` is full or the document ends, unfinished; returns (place, filled)."""
    hashed, where = state[0], state[1]
    room = units.shape[0] - 24  # one character adds at most its expansion, 18 code points
    while place < end and filled < room:
        byte = content[place]
        inside = np.int64(where == _INSIDE)
        if byte < 0x80 and where != _ALONE:
            # Plain ASCII, without a branch that depends on where words end: a misprediction costs more than a word.
            while byte < 0x80 and filled < room:
                folded = table[byte]
                here = np.int64(folded != 0)
                units[filled] = hashed
                filled += inside & (1 - here)
                hashed = (hashed ^ np.uint64(folded)) * _FNV_PRIME if folded != 0 else _FNV_START
                inside = here
                place += 1
                if place >= end:
                    break
                byte = content[place]
            where = _INSIDE if inside == 1 else _OUTSIDE
            continue
        if byte < 0x80:
            code_point = np.uint32(byte)
            place += 1
        elif byte < 0xE0:
            code_point = (np.uint32(byte & 0x1F) << 6) | np.uint32(content[place + 1] & 0x3F)
            place += 2
        elif byte < 0xF0:
            code_point = (
                (np.uint32(byte & 0x0F) << 12)
                | (np.uint32(content[place + 1] & 0x3F) << 6)
                | np.uint32(content[place + 2] & 0x3F)
            )
            place += 3
        else:
            code_point = (
                (np.uint32(byte & 0x07) << 18)
                | (np.uint32(content[place + 1] & 0x3F) << 12)
                | (np.uint32(content[place + 2] & 0x3F) << 6)
                | np.uint32(content[place + 3] & 0x3F)
            )
            place += 4
        folded = table[code_point]
        if folded == 0:
            if where != _OUTSIDE:
                units[filled] = hashed
                filled += 1
                hashed, where = _FNV_START, _OUTSIDE
        elif folded < _MARK and where != _ALONE:  # the usual case: a letter of a spaced script
            hashed = (hashed ^ np.uint64(folded)) * _FNV_PRIME
            where = _INSIDE
        else:
            first, last = np.int64(0), np.int64(1)
            expands = (folded & _EXPANDS) != 0
            if expands:
                first = starts[np.int64(folded & _CODE_POINT)]
                last = starts[np.int64(folded & _CODE_POINT) + 1]
            for index in range(first, last):
                part = expansions[index] if expands else folded
                alone = (part & _SINGLE) != 0
                joins = (part & _MARK) != 0 or (where == _INSIDE and not alone)
                if where != _OUTSIDE and not joins:
                    units[filled] = hashed
                    filled += 1
                    hashed = _FNV_START
                if not joins or where == _OUTSIDE:
                    where = _ALONE if alone else _INSIDE
                hashed = (hashed ^ np.uint64(part & _CODE_POINT)) * _FNV_PRIME
    if place == end and where != _OUTSIDE:
        units[filled] = hashed
        filled += 1
        hashed, where = _FNV_START, _OUTSIDE
    state[0], state[1] = hashed, where
    return place, filled


@kernel
def _next_characters(  # noqa: PLR0913
    content: np.ndarray,
    place: Any,
    end: Any,
    table: np.ndarray,
    starts: np.ndarray,
    expansions: np.ndarray,
    state: np.ndarray,
    units: np.ndarray,
    filled: Any,
) -> Any:
    """Folded code points from `place`, one space between words; returns (place, filled)."""
    room = units.shape[0] - 24
    while place < end and filled < room:
        byte = content[place]
        length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        code_point = np.uint32(byte)
        if length > 1:
            code_point = np.uint32(byte & (0xFF >> (length + 1)))
            for index in range(1, length):
                code_point = (code_point << np.uint32(6)) | np.uint32(content[place + index] & 0x3F)
        place += length
        folded = table[code_point]
        if folded == 0:
            if state[1] == _INSIDE:
                state[1] = _ALONE  # a space is due before the next word
            continue
        if state[1] == _ALONE:
            units[filled] = _SPACE
            filled += 1
        state[1] = _INSIDE
        if (folded & _EXPANDS) != 0:
            for index in range(starts[np.int64(folded & _CODE_POINT)], starts[np.int64(folded & _CODE_POINT) + 1]):
                units[filled] = np.uint64(expansions[index] & _CODE_POINT)
                filled += 1
        else:
            units[filled] = np.uint64(folded & _CODE_POINT)
            filled += 1
    return place, filled


@kernel
def _roll(units: np.ndarray, count: int, size: int, shingles: np.ndarray) -> None:
    """Hashes of `count` shingles, each from the one before: the polynomial loses its first unit and gains one."""
    value, power = np.uint64(0), np.uint64(1)
    for offset in range(size - 1):
        value = value * _SHINGLE_FACTOR + units[offset]
        power *= _SHINGLE_FACTOR
    for index in range(count):
        value = value * _SHINGLE_FACTOR + units[index + size - 1]
        shingles[index] = mix(value)
        value -= units[index] * power


@kernel
def next_shingles(  # noqa: PLR0913
    content: np.ndarray,
    end: Any,
    fold: Any,
    characters: Any,
    size: Any,
    cursor: np.ndarray,
    exact: np.ndarray,
    units: np.ndarray,
    shingles: np.ndarray,
) -> Any:
    """Scan one block of a document: fill `shingles` with hashes, update `exact`; returns how many there are.

    `cursor` int64 (2,): place in `content`, units carried over from the block before. `exact` uint64 (5,): the word
    state (2), two running hashes of all units, number of units. The document is done when `cursor[0] == end`.
    """
    table, starts, expansions = fold
    place, carried = cursor[0], cursor[1]
    if characters:
        place, filled = _next_characters(content, place, end, table, starts, expansions, exact, units, carried)
    else:
        place, filled = _next_words(content, place, end, table, starts, expansions, exact, units, carried)
        for index in range(carried, filled):
            units[index] = mix(units[index])
    first, second = exact[2], exact[3]
    for index in range(carried, filled):
        first = (first ^ units[index]) * _EXACT_1
        second = (second + units[index]) * _EXACT_2
    exact[2], exact[3] = first, second
    exact[4] += np.uint64(filled - carried)
    count = filled - size + 1
    if count <= 0:
        cursor[0], cursor[1] = place, filled
        return 0
    if size == 5:  # the usual case, unrolled
        for index in range(count):
            value = (units[index] * _SHINGLE_FACTOR + units[index + 1]) * _SHINGLE_FACTOR + units[index + 2]
            shingles[index] = mix((value * _SHINGLE_FACTOR + units[index + 3]) * _SHINGLE_FACTOR + units[index + 4])
    else:
        _roll(units, count, size, shingles)
    for index in range(size - 1):
        units[index] = units[count + index]
    cursor[0], cursor[1] = place, size - 1
    return count


@inline_kernel
def start_document(cursor: np.ndarray, exact: np.ndarray, place: Any) -> Any:
    """Set the scanning state to the start of a document."""
    cursor[0], cursor[1] = place, 0
    exact[0], exact[1] = _FNV_START, _OUTSIDE
    exact[2], exact[3], exact[4] = _FNV_START, np.uint64(0), np.uint64(0)


@inline_kernel
def finish_exact(exact: np.ndarray, content: np.ndarray, start: Any, end: Any) -> Any:
    """128-bit hash of a scanned document's units; of its bytes where it has none (punctuation only, empty)."""
    first, second = exact[2], exact[3]
    if exact[4] == 0:
        for index in range(start, end):
            first = (first ^ np.uint64(content[index])) * _EXACT_1
            first ^= first >> np.uint64(32)
            second = (second + np.uint64(content[index]) + np.uint64(1)) * _EXACT_2
            second ^= second >> np.uint64(29)
        second ^= _EXACT_1
    return mix(first ^ exact[4]), mix(second + exact[4])


@kernel
def _fill_shingles(
    content: np.ndarray, start: Any, end: Any, fold: Any, characters: Any, size: Any, out: np.ndarray
) -> Any:
    """Shingle hashes of one document in order; only the first `len(out)` are written. Returns their number."""
    cursor, exact = np.zeros(2, np.int64), np.zeros(5, np.uint64)
    units = np.zeros(BLOCK + size + 24, np.uint64)
    shingles = np.zeros(BLOCK + size + 24, np.uint64)
    start_document(cursor, exact, start)
    total = 0
    while cursor[0] < end:
        count = next_shingles(content, end, fold, characters, size, cursor, exact, units, shingles)
        for index in range(count):
            if total + index < out.shape[0]:
                out[total + index] = shingles[index]
        total += count
    return total


@kernel
def sorted_sets(
    content: np.ndarray, offsets: np.ndarray, fold: Any, characters: Any, size: Any, out: np.ndarray, ends: np.ndarray
) -> Any:
    """Sorted distinct shingle hashes of each document, one after another in `out`.

    `ends[i]` is where document i stops. Returns the room that was needed; more than `len(out)` means: call again.
    """
    filled = 0
    for row in range(offsets.shape[0] - 1):
        total = _fill_shingles(content, offsets[row], offsets[row + 1], fold, characters, size, out[filled:])
        if filled + total > out.shape[0]:
            return filled + total
        found = np.sort(out[filled : filled + total])
        last = filled
        for index in range(total):
            if index == 0 or found[index] != found[index - 1]:
                out[last] = found[index]
                last += 1
        filled = last
        ends[row] = filled
    return filled


def shingle_hashes(text: str, normalize: str, size: int, *, characters: bool = False) -> np.ndarray:
    """Shingle hashes of one text in order, uint64: what datasketch's `update_batch` takes with `hashfunc=int`.

    Args:
        text: the document.
        normalize: a normalisation of `curation.dedup.fold`.
        size: units to a shingle.
        characters: units are characters of the normalised text instead of words.
    """
    content = np.frombuffer(text.encode(), np.uint8)
    out = np.zeros(2 * len(content) + 64, np.uint64) if len(content) else np.zeros(0, np.uint64)
    fold: Fold = load_fold(normalize)
    total = _fill_shingles(content, 0, len(content), tuple(fold), characters, size, out)
    if total > len(out):  # compatibility letters expand up to 18-fold
        out = np.zeros(total, np.uint64)
        _fill_shingles(content, 0, len(content), tuple(fold), characters, size, out)
    return out[:total]
