"""Hashes of a document's paragraphs (its lines), straight from UTF-8 buffers.

`ccnet`: the first 64 bits of SHA-1 over CCNet's normalised line (stripped, lower case, digits 0, its list of Unicode
punctuation and all control characters deleted; accents stay). `raw`: a 64-bit hash of the line's bytes, as Dolma
compares them. A paragraph with fewer than `min_words` words gets 0: it is exempt. So is one of white space only: blank
lines part paragraphs, and as copies of each other all but the first of a corpus would go.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import load_fold, load_line_fold
from curation.dedup.sha1 import sha1_start
from curation.dedup.shingle import mix, text_buffers
from curation.kernels import inline_kernel, kernel

_NEWLINE = 10
_SPACE = np.uint32(1 << 31)
_REMOVED = np.uint32(1 << 30)
_SINGLE = np.uint32(1 << 31)
_CODE_POINT = np.uint32((1 << 21) - 1)
_SIGMA, _DOTTED_I = np.uint32(0x3A3), np.uint32(0x130)
_FACTOR = np.uint64(0xA0761D6478BD642F)


@inline_kernel
def decode_utf8(content: np.ndarray, place: Any) -> Any:
    """Code point at `place` and the place after it."""
    byte = content[place]
    if byte < 0x80:
        return np.uint32(byte), place + 1
    if byte < 0xE0:
        return (np.uint32(byte & 0x1F) << np.uint32(6)) | np.uint32(content[place + 1] & 0x3F), place + 2
    if byte < 0xF0:
        high = (np.uint32(byte & 0x0F) << np.uint32(12)) | (np.uint32(content[place + 1] & 0x3F) << np.uint32(6))
        return high | np.uint32(content[place + 2] & 0x3F), place + 3
    high = (np.uint32(byte & 0x07) << np.uint32(18)) | (np.uint32(content[place + 1] & 0x3F) << np.uint32(12))
    return high | (np.uint32(content[place + 2] & 0x3F) << np.uint32(6)) | np.uint32(
        content[place + 3] & 0x3F
    ), place + 4


@inline_kernel
def _encode(code_point: Any, out: np.ndarray, filled: Any) -> Any:
    """Write a code point as UTF-8; returns the new length."""
    if code_point < 0x80:
        out[filled] = np.uint8(code_point)
        return filled + 1
    if code_point < 0x800:
        out[filled] = np.uint8(0xC0 | (code_point >> 6))
        out[filled + 1] = np.uint8(0x80 | (code_point & 0x3F))
        return filled + 2
    if code_point < 0x10000:
        out[filled] = np.uint8(0xE0 | (code_point >> 12))
        out[filled + 1] = np.uint8(0x80 | ((code_point >> 6) & 0x3F))
        out[filled + 2] = np.uint8(0x80 | (code_point & 0x3F))
        return filled + 3
    out[filled] = np.uint8(0xF0 | (code_point >> 18))
    out[filled + 1] = np.uint8(0x80 | ((code_point >> 12) & 0x3F))
    out[filled + 2] = np.uint8(0x80 | ((code_point >> 6) & 0x3F))
    out[filled + 3] = np.uint8(0x80 | (code_point & 0x3F))
    return filled + 4


@kernel
def _normalize_line(content: np.ndarray, start: Any, end: Any, table: np.ndarray, out: np.ndarray) -> Any:
    """CCNet's normalised line into `out`; returns its length, -1 where a sigma needs Python's word-end rule."""
    place, filled, stripped = start, 0, -1  # -1: only white space so far
    while place < end:
        if content[place] < 0x80:
            entry = table[content[place]]
            place += 1
            out[filled] = np.uint8(entry & np.uint32(0x7F))
            filled += (entry & _REMOVED) == 0
            if (entry & _SPACE) == 0:
                stripped = filled
            elif stripped < 0:
                filled = 0
            continue
        code_point, place = decode_utf8(content, place)
        if code_point == _SIGMA:
            return -1
        entry = table[code_point]
        if (entry & _REMOVED) == 0:
            if code_point == _DOTTED_I:
                filled = _encode(np.uint32(0x69), out, filled)
                filled = _encode(np.uint32(0x307), out, filled)
            else:
                filled = _encode(entry & _CODE_POINT, out, filled)
        if (entry & _SPACE) == 0:
            stripped = filled
        elif stripped < 0:
            filled = 0
    return max(stripped, 0)


@kernel
def is_blank(content: np.ndarray, start: Any, end: Any, table: np.ndarray) -> Any:
    """Whether there is nothing but white space; `table` is that of `load_line_fold`."""
    place = start
    while place < end:
        code_point, place = decode_utf8(content, place)
        if (table[code_point] & _SPACE) == 0:
            return False
    return True


@kernel
def _has_words(
    content: np.ndarray,
    start: Any,
    end: Any,
    table: np.ndarray,
    starts: np.ndarray,
    expansions: np.ndarray,
    wanted: Any,
) -> Any:
    """Whether a paragraph has at least `wanted` words; each letter of a script without spaces is one."""
    words, inside, place = 0, False, start
    while place < end and words < wanted:
        code_point, place = decode_utf8(content, place)
        folded = table[code_point]
        if folded == 0:
            inside = False
        elif (folded & _SINGLE) != 0:
            words += 1
            inside = False
        elif not inside:
            words += 1
            inside = True
    return words >= wanted


@kernel
def _hash_bytes(content: np.ndarray, start: Any, end: Any) -> Any:
    hashed, place = np.uint64(end - start) * _FACTOR, start
    while place < end:
        word = np.uint64(0)
        for index in range(min(8, end - place)):
            word |= np.uint64(content[place + index]) << np.uint64(8 * index)
        hashed = (hashed ^ mix(word)) * _FACTOR
        hashed ^= hashed >> np.uint64(32)
        place += 8
    return mix(hashed)


@kernel
def _count_lines(content: np.ndarray, offsets: np.ndarray, valid: np.ndarray, ends: np.ndarray) -> Any:
    total = 0
    for row in range(offsets.shape[0] - 1):
        if valid[row] and offsets[row + 1] > offsets[row]:
            total += 1
            for byte in content[offsets[row] : offsets[row + 1]]:  # a slice, so that the loop becomes vector code
                total += byte == _NEWLINE
        ends[row] = total


@kernel
def _hash_lines(  # noqa: PLR0913
    content: np.ndarray,
    offsets: np.ndarray,
    ends: np.ndarray,
    fold: Any,
    table: np.ndarray,
    ccnet: Any,
    min_words: Any,
    line: np.ndarray,
    out: np.ndarray,
) -> Any:
    """Hash each line into `out`; returns how many lines need Python, their indices being left in `out` order as 1s."""
    state, words = np.zeros(5, np.uint32), np.zeros(80, np.uint32)
    number, unsure = 0, 0
    for row in range(offsets.shape[0] - 1):
        place = offsets[row]
        while number < ends[row]:
            stop = place
            while stop < offsets[row + 1] and content[stop] != _NEWLINE:
                stop += 1
            out[number] = np.uint64(0)
            if min_words == 0:
                compared = not is_blank(content, place, stop, table)
            else:
                compared = _has_words(content, place, stop, fold[0], fold[1], fold[2], min_words)
            if compared:
                if ccnet:
                    length = _normalize_line(content, place, stop, table, line)
                    if length < 0:
                        unsure += 1
                        out[number] = np.uint64(1)
                    else:
                        out[number] = sha1_start(line, 0, length, state, words)
                else:
                    out[number] = _hash_bytes(content, place, stop)
                if out[number] == 0:
                    out[number] = np.uint64(2)
            place = stop + 1
            number += 1
    return unsure


def line_hashes(text: pa.Array, normalize: str, min_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all lines (uint64) and where each row's lines end (int64); empty and null texts have no lines.

    Args:
        text: large_string array.
        normalize: "ccnet" or "raw".
        min_words: paragraphs with fewer words get the hash 0; blank ones always do.
    """
    content, offsets, valid = text_buffers(text)
    ends = np.zeros(len(text), np.int64)
    _count_lines(content, offsets, valid, ends)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint64)
    longest = int(np.diff(offsets).max()) if len(text) else 0
    line = np.zeros(2 * longest + 8, np.uint8)  # no lower case is longer than twice its capital
    fold = tuple(load_fold("words"))
    unsure = _hash_lines(content, offsets, ends, fold, load_line_fold(), normalize == "ccnet", min_words, line, out)
    if unsure:
        _hash_unsure(text, ends, out)
    return out, ends


def _hash_unsure(text: pa.Array, ends: np.ndarray, out: np.ndarray) -> None:
    """Hash the lines marked 1 (they hold a capital sigma, whose lower case depends on its neighbours) in Python."""
    for row in np.unique(np.searchsorted(ends, np.flatnonzero(out == 1), side="right")):
        first = int(ends[row - 1]) if row else 0
        for number, line in enumerate(text[int(row)].as_py().split("\n"), start=first):
            if out[number] == 1:
                out[number] = int.from_bytes(hashlib.sha1(normalize_line(line).encode()).digest()[:8], "little")


def normalize_line(line: str) -> str:
    """CCNet's `normalize_for_dedup` of one line, the plain definition."""
    table = load_line_fold()
    lowered = line.strip().lower()
    entries = [(character, int(table[ord(character)])) for character in lowered]
    return "".join(chr(entry & 0x1FFFFF) for _, entry in entries if not entry & int(_REMOVED))
