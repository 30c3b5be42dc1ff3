"""Words of a text: Unicode word segmentation over UTF-8 bytes, for any script, without a dictionary.

A text is cut into *segments*: words and symbols; separators (white space, controls) belong to none.

* A word is a run of letters, digits, connectors (`_`) and the marks and format characters on them. Letters also join
  over `. ' ’ : ·` (`don't`, `z.B`, `example.com`) and digits over `. ' , ;` (`1.000,50`): the rules WB5-WB13b of UAX
  #29.
* A letter of a script written without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tai, Yi, Tangut ...) is a word of
  its own, with its marks. Here we leave UAX #29, which joins katakana; so no script ever has "0 words", and no
  dictionary decides. Thresholds on words of such a language must be chosen for characters.
* Any other character is a symbol; a run of the same one (`...`, `----`) is one segment.

`SEGMENTATION` names these rules: signals that count words carry it in their definition.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.text.properties import (
    DIGIT,
    EXTEND,
    LETTER,
    MID_LETTER,
    MID_NUMBER,
    MID_NUMBER_LETTER,
    WORD_CLASS,
)

SEGMENTATION = "unicode-14 words, unspaced scripts by character (1)"
Array = np.ndarray
HASH_BASE = 0x9E3779B97F4A7C15 | 1  # an odd multiplier with well-mixed bits: polynomials modulo 2**64
WORD = 1 << 31  # set in the properties of a segment that is a word; the other bits are those of all its characters


@kernel
def decode(buf: Array, i: int) -> tuple[int, int]:
    """Code point at byte `i` of valid UTF-8, and the place of the next one."""
    # unsigned places throughout: numba makes no code for negative ones then
    first = np.int64(buf[np.uint64(i)])
    if first < 0x80:
        return first, i + 1
    second = np.int64(buf[np.uint64(i + 1)]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, i + 2
    low = second << 6 | np.int64(buf[np.uint64(i + 2)]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | low, i + 3
    return (first & 0x07) << 18 | low << 6 | np.int64(buf[np.uint64(i + 3)]) & 0x3F, i + 4


@kernel
def joins(buf: Array, i: int, end: int, table: Array, kind: int, previous: int) -> bool:
    """Whether a character of `kind` before `i` joins: the next one after marks is of the kind before it."""
    if previous == LETTER:
        may = kind in (MID_NUMBER_LETTER, MID_LETTER)
    else:
        may = previous == DIGIT and kind in (MID_NUMBER_LETTER, MID_NUMBER)
    while may and i < end:
        code_point, i = decode(buf, i)
        following = table[np.uint64(code_point)] & WORD_CLASS
        if following != EXTEND:
            return following == previous
    return False


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
