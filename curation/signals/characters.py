"""Signals of single characters: what kinds a text is made of, which scripts, how repetitive its bytes are."""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.signals.signal import Columns, Family, Signal, Texts
from curation.text.properties import (
    ALPHA,
    ANY_PUNCTUATION,
    ANY_SYMBOL,
    CONTROL,
    DECIMAL,
    NUM_CODE_POINTS,
    SCRIPT_SHIFT,
    SPACE,
    UPPER,
    property_table,
)
from curation.text.segment import Array, decode

IMPLEMENTATION = "gristmill characters (Unicode 14.0.0)"
# In the order of the script numbers in `curation.text.properties`, from LATIN.
SCRIPTS = (
    "latin",
    "han",
    "cyrillic",
    "greek",
    "arabic",
    "hebrew",
    "kana",
    "hangul",
    "thai",
    "devanagari",
    "other_script",
)
_HASH_BITS = 12
_WINDOW = 65535


def _signal(name: str, description: str, *needs: str, dtype: str = "float64") -> Signal:
    return Signal(name, "characters", dtype, 1, IMPLEMENTATION, description, needs)


SIGNALS = (
    _signal("character_count", "code points", dtype="int64"),
    _signal("letter_share", "alphabetic characters / characters"),
    _signal("digit_share", "decimal digits of any script / characters"),
    _signal("whitespace_share", "white space / characters"),
    _signal("punctuation_share", "general category P / characters"),
    _signal("symbol_share", "general category S / characters"),
    _signal("control_share", "controls, format and private characters that are no white space / characters"),
    _signal("uppercase_share", "upper-case letters / alphabetic characters"),
    _signal("replacement_count", "U+FFFD: invalid bytes that were repaired, here or earlier", dtype="int64"),
    _signal("distinct_character_share", "distinct characters / characters"),
    _signal("longest_word_length", "characters of the longest run without white space", dtype="int64"),
    _signal("longest_line_length", "characters of the longest line (by line feeds)", "lines", dtype="int64"),
    _signal("mean_line_length", "characters / lines (by line feeds), line feeds left out", "lines"),
    _signal("compression_ratio", "bytes of a greedy LZ4 block (4096 hashes, 64 KiB window) / bytes: low is repetitive"),
    *(_signal(f"{script}_share", f"letters of this script / letters: {script}") for script in SCRIPTS),
)


@kernel
def _extra_bytes(length: int, free: int) -> int:
    """Bytes that LZ4 needs beyond its token for a length of which `free` fit into the token."""
    return 0 if length < free else 1 + (length - free) // 255


@kernel
def _load(buf: Array, i: int) -> np.uint32:
    return (
        np.uint32(buf[i])
        | np.uint32(buf[i + 1]) << np.uint32(8)
        | np.uint32(buf[i + 2]) << np.uint32(16)
        | np.uint32(buf[i + 3]) << np.uint32(24)
    )


@kernel
def lz4_size(buf: Array, start: int, end: int, latest: Array) -> int:
    """Bytes of a greedy LZ4 parse of `buf[start:end]`.

    `latest` is scratch of 4096 int64, the last place of a hash of four bytes; places before `start` do not count, so
    that it needs no clearing.
    """
    size, literals, i = 0, 0, start
    while i + 4 <= end:
        four = _load(buf, i)
        slot = np.int64(np.uint32(four * np.uint32(2654435761)) >> np.uint32(32 - _HASH_BITS))
        before = latest[slot]
        latest[slot] = i
        if before < start or i - before > _WINDOW or _load(buf, before) != four:
            literals += 1
            i += 1
            continue
        length = 4
        while i + length < end and buf[before + length] == buf[i + length]:
            length += 1
        size += 3 + _extra_bytes(literals, 15) + literals + _extra_bytes(length - 4, 15)
        literals = 0
        i += length
    literals += end - i
    return size + 1 + _extra_bytes(literals, 15) + literals


@kernel
def _measure_text(buf: Array, start: int, end: int, row: int, table: Array, seen: Array, out: Array) -> None:
    """All signals but compression; `seen` holds for each code point the last row that had it."""
    counts, scripts = np.zeros(9, np.int64), np.zeros(16, np.int64)
    distinct, word, longest_word, line, longest_line, i = 0, 0, 0, 0, 0, start
    while i < end:
        code_point, i = decode(buf, i)
        bits = table[np.uint64(code_point)]
        space = bits & SPACE != 0
        counts[0] += 1
        counts[1] += bits & ALPHA != 0
        counts[2] += bits & DECIMAL != 0
        counts[3] += space
        counts[4] += bits & ANY_PUNCTUATION != 0
        counts[5] += bits & ANY_SYMBOL != 0
        counts[6] += bits & CONTROL != 0
        counts[7] += bits & ALPHA != 0 and bits & UPPER != 0
        counts[8] += code_point == 0xFFFD
        if bits & ALPHA:
            scripts[(bits >> SCRIPT_SHIFT) & 15] += 1
        if seen[code_point] != row:
            seen[code_point] = row
            distinct += 1
        word = 0 if space else word + 1
        line = 0 if code_point == 10 else line + 1
        longest_word, longest_line = max(longest_word, word), max(longest_line, line)
    out[0], out[8], out[10], out[11] = counts[0], counts[8], longest_word, longest_line
    lines = 1
    for k in range(start, end):
        lines += buf[k] == 10
    out[12] = (counts[0] - lines + 1) / lines
    if counts[0]:
        for k in range(1, 7):
            out[k] = counts[k] / counts[0]
        out[9] = distinct / counts[0]
    if counts[1]:
        out[7] = counts[7] / counts[1]
        for k in range(11):
            out[14 + k] = scripts[k + 1] / counts[1]


@kernel
def _measure_characters(buf: Array, offsets: Array, present: Array, table: Array, out: Array) -> None:
    seen, latest = np.full(NUM_CODE_POINTS, -1, np.int32), np.full(1 << _HASH_BITS, -1, np.int64)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            _measure_text(buf, start, end, row, table, seen, out[row])
            if end > start:
                out[row, 13] = lz4_size(buf, start, end, latest) / (end - start)


def measure_characters(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All signals of characters; shares of nothing are undefined."""
    out = np.full((len(texts.present), len(SIGNALS)), np.nan)
    _measure_characters(texts.content, texts.offsets, texts.present, property_table(), out)
    return {signal.name: out[:, k] for k, signal in enumerate(SIGNALS)}


CHARACTERS = Family("characters", SIGNALS, measure_characters)
