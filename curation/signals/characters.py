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
_KINDS = (ALPHA, DECIMAL, SPACE, ANY_PUNCTUATION, ANY_SYMBOL, CONTROL)  # of the signals 1 to 6
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
def _tally(buf: Array, start: int, end: int, table: Array, tally: Array, distinct: Array) -> tuple[int, int, int]:
    """Count each code point in `tally`, which is 0 everywhere before, and list those that occur in `distinct`.

    Returns how many occur, and the characters of the longest word and line.
    """
    found, characters, word, line, longest_word, longest_line, i = 0, 0, 0, 0, 0, 0, start
    while i < end:
        code_point, i = decode(buf, i)
        place = np.uint64(code_point)
        times = tally[place]
        tally[place] = times + 1
        distinct[np.uint64(found)] = code_point
        found += times == 0
        if table[place] & SPACE:
            longest_word = max(longest_word, characters - word)
            word = characters + 1
            if code_point == 10:
                longest_line = max(longest_line, characters - line)
                line = characters + 1
        characters += 1
    return found, max(longest_word, characters - word), max(longest_line, characters - line)


@kernel
def _measure_text(buf: Array, start: int, end: int, table: Array, tally: Array, distinct: Array, out: Array) -> None:
    """All signals but compression, from how often each character occurs; `tally` is cleared again."""
    counts, scripts = np.zeros(9, np.int64), np.zeros(16, np.int64)
    found, longest_word, longest_line = _tally(buf, start, end, table, tally, distinct)
    lines = 1 + tally[10]
    for k in range(found):
        code_point = distinct[k]
        bits, times = table[code_point], np.int64(tally[code_point])
        tally[code_point] = 0
        counts[0] += times
        for place, kind in enumerate(_KINDS):
            counts[place + 1] += times if bits & kind else 0
        if bits & ALPHA:
            counts[7] += times if bits & UPPER else 0
            scripts[(bits >> SCRIPT_SHIFT) & 15] += times
        counts[8] += times if code_point == 0xFFFD else 0
    out[0], out[8], out[10], out[11] = counts[0], counts[8], longest_word, longest_line
    out[12] = (counts[0] - lines + 1) / lines
    if counts[0]:
        for k in range(1, 7):
            out[k] = counts[k] / counts[0]
        out[9] = found / counts[0]
    if counts[1]:
        out[7] = counts[7] / counts[1]
        for k in range(11):
            out[14 + k] = scripts[k + 1] / counts[1]


@kernel
def _measure_characters(buf: Array, offsets: Array, present: Array, table: Array, out: Array) -> None:
    tally, distinct = np.zeros(NUM_CODE_POINTS, np.int32), np.empty(NUM_CODE_POINTS + 1, np.int32)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            _measure_text(buf, offsets[row], offsets[row + 1], table, tally, distinct, out[row])


@kernel
def _measure_compression(buf: Array, offsets: Array, present: Array, out: Array) -> None:
    latest = np.full(1 << _HASH_BITS, -1, np.int64)
    for row in range(offsets.shape[0] - 1):
        start, end = offsets[row], offsets[row + 1]
        if present[row] and end > start:
            out[row] = lz4_size(buf, start, end, latest) / (end - start)


def measure_characters(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All signals of characters, compression (half of the work) where it is wanted; shares of nothing are undefined."""
    out = np.full((len(texts.present), len(SIGNALS)), np.nan)
    _measure_characters(texts.content, texts.offsets, texts.present, property_table(), out)
    columns = {signal.name: out[:, k] for k, signal in enumerate(SIGNALS)}
    if "compression_ratio" in wanted:
        _measure_compression(texts.content, texts.offsets, texts.present, columns["compression_ratio"])
    else:
        del columns["compression_ratio"]
    return columns


CHARACTERS = Family("characters", SIGNALS, measure_characters)
