"""Words of a text: Unicode word segmentation over UTF-8 bytes, for any script, without a dictionary.

A text is cut into *segments*: words and symbols; separators (white space, controls) belong to none.

* A word is a run of letters, digits, connectors (`_`) and the marks and format characters on them. Letters also join over
  `. ' ’ : ·` (`don't`, `z.B`, `example.com`) and digits over `. ' , ;` (`1.000,50`): the rules WB5-WB13b of UAX #29.
* A letter of a script written without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tai, Yi, Tangut ...) is a word of its
  own, with its marks. Here we leave UAX #29, which joins katakana; so no script ever has "0 words", and no dictionary
  decides. Thresholds on words of such a language must be chosen for characters.
* Any other character is a symbol; a run of the same one (`...`, `----`) is one segment.

`SEGMENTATION` names these rules: signals that count words carry it in their definition.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.text.properties import (
    CHARACTER,
    CONNECTOR,
    DIGIT,
    EXTEND,
    LETTER,
    MID_LETTER,
    MID_NUMBER,
    MID_NUMBER_LETTER,
    SEPARATOR,
    SYMBOL,
    WORD_CLASS,
    property_table,
)

SEGMENTATION = "unicode-14 words, unspaced scripts by character (1)"
HASH_BASE = 0x9E3779B97F4A7C15 | 1  # an odd multiplier with well-mixed bits: polynomials modulo 2**64
WORD = 1 << 31  # set in the properties of a segment that is a word; the other bits are those of all its characters


@kernel
def decode(buf, i):
    """Code point at byte `i` of valid UTF-8, and the place of the next one."""
    first = np.int64(buf[i])
    if first < 0x80:
        return first, i + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(buf[i + 1]) & 0x3F, i + 2
    low = (np.int64(buf[i + 1]) & 0x3F) << 6 | np.int64(buf[i + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | low, i + 3
    return (first & 0x07) << 18 | low << 6 | np.int64(buf[i + 3]) & 0x3F, i + 4


@kernel
def mixed(value):
    """Spread the bits of a uint64 (the finaliser of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def _joins(buf, i, end, table, previous):
    """Whether the mid character before `i` joins: the next letter (digit) after marks is of the kind before it."""
    while i < end:
        code_point, i = decode(buf, i)
        kind = table[code_point] & WORD_CLASS
        if kind != EXTEND:
            return kind == previous
    return False


@kernel
def next_segment(buf, i, end, table):
    """The first segment of `buf[i:end]`.

    Returns:
        start, stop: bytes; start == stop when nothing is left.
        num_characters: code points.
        value: uint64 polynomial of the bytes, base HASH_BASE; that of a concatenation follows from its parts.
        bits: uint32, the properties of all its characters, or-ed; WORD is set for a word.
    """
    code_point, bits, kind, after = np.int64(0), np.uint32(0), np.uint32(0), i
    while True:
        if i >= end:
            return end, end, np.int64(0), np.uint64(0), np.uint32(0)
        code_point, after = decode(buf, i)
        bits = table[code_point]
        kind = bits & WORD_CLASS
        if kind != SEPARATOR:
            break
        i = after
    start, num_characters, value = i, np.int64(0), np.uint64(0)
    first, previous, all_bits = code_point, kind, np.uint32(0)
    if kind == LETTER or kind == DIGIT or kind == CONNECTOR:
        all_bits = np.uint32(WORD)
        wide = True
    else:
        if kind == CHARACTER:
            all_bits = np.uint32(WORD)
        wide = False
    while True:
        all_bits |= bits & np.uint32(0xFFFFFF00)
        num_characters += 1
        for k in range(i, after):
            value = value * np.uint64(HASH_BASE) + np.uint64(buf[k]) + np.uint64(1)
        i = after
        if i >= end:
            break
        code_point, after = decode(buf, i)
        bits = table[code_point]
        kind = bits & WORD_CLASS
        if kind == EXTEND:
            continue
        if wide:
            if kind == LETTER or kind == DIGIT or kind == CONNECTOR:
                previous = kind
                continue
            between = kind == MID_NUMBER_LETTER and (previous == LETTER or previous == DIGIT)
            between = between or (kind == MID_LETTER and previous == LETTER)
            between = between or (kind == MID_NUMBER and previous == DIGIT)
            if between and _joins(buf, after, end, table, previous):
                previous = kind
                continue
        elif previous != CHARACTER and code_point == first:
            continue
        break
    return start, i, num_characters, value, all_bits


@kernel
def _segment_spans(buf, start, end, table, starts, stops, is_word):
    count, i = 0, start
    while True:
        i, stop, _, _, bits = next_segment(buf, i, end, table)
        if i == stop:
            return count
        starts[count], stops[count], is_word[count] = i, stop, bits & np.uint32(WORD) != 0
        count += 1
        i = stop


def segments(text: str) -> list[tuple[str, bool]]:
    """Segments of one text with whether each is a word; for tests, examples and other libraries' tokenizer slots."""
    raw = text.encode()
    buf = frozen(np.frombuffer(raw, np.uint8))
    starts, stops = np.empty((2, len(raw) + 1), np.int64)
    is_word = np.empty(len(raw) + 1, np.bool_)
    count = _segment_spans(buf, 0, len(raw), property_table(), starts, stops, is_word)
    return [(raw[a:b].decode(), bool(w)) for a, b, w in zip(starts[:count], stops[:count], is_word[:count])]


def words(text: str) -> list[str]:
    """Words of one text, without the symbols between them."""
    return [segment for segment, is_word in segments(text) if is_word]


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, read-only: kernels are compiled once, for read-only text."""
    array.setflags(write=False)
    return array


def utf8_buffers(text: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (uint8, read-only) and offsets (int64, rows + 1, read-only) of a string array, without a copy.

    A null row has an empty span or one whose bytes mean nothing: the caller knows the nulls.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    if not pa.types.is_large_string(text.type):
        text = text.cast(pa.large_string())
    _, offsets, raw = text.buffers()
    if len(text) == 0 or offsets is None:
        return frozen(np.zeros(0, np.uint8)), frozen(np.zeros(len(text) + 1, np.int64))
    spans = np.frombuffer(offsets, np.int64, len(text) + 1, text.offset * 8)
    content = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.zeros(0, np.uint8)
    return frozen(content), frozen(spans)
