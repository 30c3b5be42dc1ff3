"""Texts as rows of units for substring dedup: where each unit ends, a 64-bit hash of each, and texts without some.

A unit of `words` is a word with what follows it up to the next one (the first one also has what stands before it), so
units cut a text without rest, never inside a character. A letter of a script without spaces is a word. `raw` hashes a
unit's bytes but for white space, so that a line broken elsewhere is the same span; other normalisations hash the
folded word alone. A unit of `characters` is one code point as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import load_fold
from curation.dedup.paragraph_hash import decode_utf8
from curation.dedup.shingle import made_text, mix, text_buffers
from curation.kernels import kernel

_SINGLE = np.uint32(1 << 31)
_EXPANDS = np.uint32(1 << 30)
_MARK = np.uint32(1 << 29)
_CODE_POINT = np.uint32((1 << 21) - 1)
_FNV_START = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x00000100000001B3)


@kernel
def _next_end(content: np.ndarray, start: Any, end: Any, fold: Any) -> Any:
    """Where the unit of one word that starts at `start` ends; -1 where no word is left."""
    table, starts, expansions = fold
    place, seen = start, 0  # seen: 0 before the word, 1 inside it, 2 after it
    while place < end:
        code_point, after = decode_utf8(content, place)
        folded = table[code_point]
        if (folded & _EXPANDS) != 0:
            folded = expansions[starts[np.int64(folded & _CODE_POINT)]]
        if folded == 0:
            seen = 2 if seen == 1 else seen
        elif (folded & _SINGLE) != 0:
            if seen != 0:
                return place
            seen = 2
        elif (folded & _MARK) != 0:
            seen = max(seen, 1)
        elif seen == 2:
            return place
        else:
            seen = 1
        place = after
    return end if seen != 0 else -1


@kernel
def _count_units(
    content: np.ndarray, offsets: np.ndarray, valid: np.ndarray, fold: Any, characters: Any, ends: np.ndarray
) -> Any:
    total = 0
    for row in range(ends.shape[0]):
        place, stop = offsets[row], offsets[row + 1] if valid[row] else offsets[row]
        if characters:
            for index in range(place, stop):
                total += (content[index] & 0xC0) != 0x80
        else:
            while place < stop:
                place = _next_end(content, place, stop, fold)
                if place < 0:
                    break
                total += 1
        ends[row] = total


@kernel
def _hash_unit(content: np.ndarray, start: Any, end: Any, fold: Any, raw: Any) -> Any:
    table, starts, expansions = fold
    hashed, place = _FNV_START, start
    if raw:
        while place < end:
            if content[place] > 0x20:
                hashed = (hashed ^ np.uint64(content[place])) * _FNV_PRIME
            place += 1
        return mix(hashed)
    while place < end:
        code_point, place = decode_utf8(content, place)
        folded = table[code_point]
        if (folded & _EXPANDS) != 0:
            for index in range(starts[np.int64(folded & _CODE_POINT)], starts[np.int64(folded & _CODE_POINT) + 1]):
                hashed = (hashed ^ np.uint64(expansions[index] & _CODE_POINT)) * _FNV_PRIME
        elif folded != 0:
            hashed = (hashed ^ np.uint64(folded & _CODE_POINT)) * _FNV_PRIME
    return mix(hashed)


@kernel
def _hash_units(
    content: np.ndarray, offsets: np.ndarray, ends: np.ndarray, fold: Any, characters: Any, raw: Any, out: np.ndarray
) -> None:
    number = 0
    for row in range(ends.shape[0]):
        place = offsets[row]
        while number < ends[row]:
            if characters:
                code_point, after = decode_utf8(content, place)
                out[number] = mix(np.uint64(code_point))
            else:
                after = _next_end(content, place, offsets[row + 1], fold)
                out[number] = _hash_unit(content, place, after, fold, raw)
            place = after
            number += 1


def unit_hashes(text: pa.Array, unit: str, normalize: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all units (uint64) and where each row's units end (int64); rows without a word have none.

    Args:
        text: large_string array.
        unit: "words" or "characters".
        normalize: a normalisation of `curation.dedup.fold`; characters are hashed as they are.
    """
    content, offsets, valid = text_buffers(text)
    ends = np.zeros(len(text), np.int64)
    fold, characters = _fold_of(normalize), unit == "characters"
    _count_units(content, offsets, valid, fold, characters, ends)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint64)
    _hash_units(content, offsets, ends, fold, characters, normalize == "raw", out)
    return out, ends


def _fold_of(normalize: str) -> tuple[np.ndarray, ...]:
    """Tables that tell where words are: raw text has the words of `words`."""
    return tuple(load_fold("words" if normalize == "raw" else normalize))


@kernel
def _cut(  # noqa: PLR0913
    content: np.ndarray,
    offsets: np.ndarray,
    valid: np.ndarray,
    spans: np.ndarray,
    span_ends: np.ndarray,
    fold: Any,
    characters: Any,
    out: np.ndarray,
    new_offsets: np.ndarray,
    removed: np.ndarray,
) -> Any:
    """Copy the units outside the spans; returns the first row whose spans end beyond its units, or -1."""
    filled, at = 0, 0
    for row in range(span_ends.shape[0]):
        if not valid[row]:  # its bytes may still lie in the buffer
            at, new_offsets[row + 1] = span_ends[row], filled
            continue
        place, stop, number = offsets[row], offsets[row + 1], 0
        while at < span_ends[row]:
            first, last = spans[2 * at], spans[2 * at + 1]
            while number < last:
                if place >= stop:
                    return row
                if characters:
                    after = decode_utf8(content, place)[1]
                else:
                    after = _next_end(content, place, stop, fold)
                    if after < 0:
                        return row
                for index in range(place, after):
                    if number < first:
                        out[filled] = content[index]
                        filled += 1
                    else:
                        removed[row] += (content[index] & 0xC0) != 0x80
                place = after
                number += 1
            at += 1
        out[filled : filled + stop - place] = content[place:stop]
        filled += stop - place
        new_offsets[row + 1] = filled
    return -1


def cut_units(
    text: pa.Array, spans: np.ndarray, span_ends: np.ndarray, unit: str, normalize: str
) -> tuple[pa.Array, np.ndarray, int]:
    """Texts without some of their units.

    Args:
        text: large_string array.
        spans: first unit and the one after the last of each span, int64 (spans, 2), rising within a row.
        span_ends: where each row's spans end, int64 (rows,).
        unit: "words" or "characters".
        normalize: the normalisation the spans were found with.

    Returns:
        The texts (null where they were), characters removed of each (int64), and the first row whose spans lie beyond
        its units (another text than the spans were found in), or -1.
    """
    content, offsets, valid = text_buffers(text)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    new_offsets, removed = np.zeros(len(text) + 1, np.int64), np.zeros(len(text), np.int64)
    flat = np.ascontiguousarray(spans, np.int64).reshape(-1)
    characters = unit == "characters"
    wrong = _cut(content, offsets, valid, flat, span_ends, _fold_of(normalize), characters, out, new_offsets, removed)
    return made_text(out, new_offsets, valid), removed, int(wrong)
