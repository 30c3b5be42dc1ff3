r"""RedPajama-V2's normalised text: its words, and what is counted while it is read.

Normalised words are what white space parts after ASCII punctuation is removed, in lower case and NFD; their characters
are counted in NFD. Letters of unspaced scripts are words of their own. One pass over the UTF-8 bytes writes no text:
only each word's hash and where it ends.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.text.dictionary import NO_JOINS
from curation.text.properties import (
    ALPHA,
    ASCII_PUNCTUATION,
    CHARACTER,
    DECIMAL,
    EXTEND,
    NUMERIC,
    SPACE,
    UPPER,
    WORD_CLASS,
    folded_tables,
    property_table,
)
from curation.text.segment import HASH_BASE, Array, decode, utf8_buffers

_LOREM = tuple(ord(x) for x in "loremipsum")
_LOREM_SIZE = len(_LOREM)


class Unicode(NamedTuple):
    """Tables of `curation.text.properties`."""

    bits: Array
    folded_index: Array
    folded_pool: Array


def unicode_tables() -> Unicode:
    """The tables, read-only."""
    return Unicode(property_table(), *folded_tables())


class Words(NamedTuple):
    """Scratch: normalised words' hashes (uint64), and characters before each (int32, one longer)."""

    hashes: Array
    characters: Array


class Normal(NamedTuple):
    """What a text's normalised words are, and the sums of shares of its lines.

    Attributes:
        num_words: words.
        num_spaced: words that white space parts.
        matches: times that `lorem ipsum` stands in the normalised text.
        numeric, upper: numeric characters of a normalised line, upper-case ones of a line; their shares, summed.
    """

    num_words: int
    num_spaced: int
    matches: int
    numeric: float
    upper: float


@kernel
def _lorem_ipsum(buf: Array, space: int, text: tuple[int, int], unicode: Unicode) -> bool:
    """Whether the normalised text has `lorem ipsum` with its blank at the white space `buf[space]` of a text.

    Only ASCII letters fold to these; the last one may be a letter that decomposes to `m` and marks.
    """
    start, end = text
    i, k = space - 1, 4
    while k >= 0:
        if i < start or buf[i] >= 0x80:
            return False
        byte = buf[i]
        if unicode.bits[byte] & ASCII_PUNCTUATION == 0:
            if byte | 32 != _LOREM[k]:
                return False
            k -= 1
        i -= 1
    i, k = space, 5
    while i < end:
        code_point, i = decode(buf, i)
        bits = unicode.bits[code_point]
        if bits & ASCII_PUNCTUATION or (k == 5 and bits & SPACE):
            continue
        place = unicode.folded_index[code_point]
        if (unicode.folded_pool[place + 1] if place else code_point) != _LOREM[k]:
            return False
        if k + 1 == _LOREM_SIZE:
            return True
        if place and unicode.folded_pool[place] > 1:
            return False
        k += 1
    return False


@kernel
def normalise(  # noqa: C901
    buf: Array, start: int, end: int, unicode: Unicode, joined: Array, words: Words
) -> Normal:
    """Write the normalised words of a text to `words`; no word goes on over a line."""
    bits_of, folded_index, folded_pool = unicode.bits, unicode.folded_index, unicode.folded_pool
    hashes, before = words.hashes, words.characters
    count, spaced, matches, total, value, last, i = 0, 0, 0, 0, np.uint64(0), 0, start
    line_start, place, numeric, normal, capitals = 0, 0, 0, 0, 0  # characters: before the line, before this one; of it
    sum_numeric, sum_upper = 0.0, 0.0
    open_word, open_spaced, alone = False, False, False
    before[0] = 0
    while True:
        if i < end:
            goes_on, begin = joined.shape[0] != 0 and joined[i] != 0, i
            code_point, i = decode(buf, i)
            bits = bits_of[np.uint64(code_point)]
            place += 1
            capitals += bits & UPPER != 0
            if bits & ASCII_PUNCTUATION:
                continue
            space, single = bits & SPACE != 0, bits & WORD_CLASS == CHARACTER
            starts = not goes_on and (space or single or (alone and bits & WORD_CLASS != EXTEND))
        else:
            code_point, bits, space, single, starts, begin = -1, np.uint32(0), True, False, True, end
        if open_word and starts:
            hashes[np.uint64(count)] = value
            count += 1
            before[np.uint64(count)] = total
            open_word = False
        if space:
            if open_spaced and last == 109:
                matches += _lorem_ipsum(buf, begin, (start, end), unicode)
            open_spaced = False
            if code_point == 10 or (code_point < 0 and place > line_start):
                sum_numeric += numeric / normal if normal else 0.0
                sum_upper += capitals / (place - line_start)
                line_start, numeric, normal, capitals = place, 0, 0, 0
            if code_point < 0:
                break
            continue
        if not open_spaced:
            open_spaced = True
            normal += normal > 0
            spaced += 1
        if not open_word:
            open_word, alone, value = True, single, np.uint64(0)
        folded = folded_index[np.uint64(code_point)]
        if folded == 0:
            last, length = code_point, 1
            value = value * np.uint64(HASH_BASE) + np.uint64(code_point + 1)
            numeric += bits & NUMERIC != 0
        else:
            length = folded_pool[np.uint64(folded)]
            for k in range(length):
                last = np.int64(folded_pool[np.uint64(folded + 1 + k)])
                value = value * np.uint64(HASH_BASE) + np.uint64(last + 1)
                numeric += bits_of[np.uint64(last)] & NUMERIC != 0
        if not alone:  # quickly over ASCII letters and digits inside a word
            begin = i
            while i < end:
                byte = np.uint64(buf[np.uint64(i)])
                bits = bits_of[byte]
                if byte >= np.uint64(0x80) or bits & (ALPHA | DECIMAL) == 0:
                    break
                capitals += bits & UPPER != 0
                numeric += bits & NUMERIC != 0
                byte += np.uint64(32) * np.uint64(bits & UPPER != 0)
                value = value * np.uint64(HASH_BASE) + (byte + np.uint64(1))
                last = np.int64(byte)
                i += 1
            place += i - begin
            length += i - begin
        normal += length
        total += length
    return Normal(count, spaced, matches, sum_numeric, sum_upper)


@kernel
def _words_of_rows(
    buf: Array, offsets: Array, present: Array, unicode: Unicode, words: Words, hashes: Array, bounds: Array
) -> None:
    """All rows' normalised words, one after the other."""
    total = 0
    for row in range(present.shape[0]):
        if present[row]:
            count = normalise(buf, offsets[row], offsets[row + 1], unicode, NO_JOINS, words).num_words
            hashes[total : total + count] = words.hashes[:count]
            total += count
        bounds[row + 1] = total


class WordHashes(NamedTuple):
    """Hashes of the words of texts, uint64; those of row i are `hashes[offsets[i]:offsets[i + 1]]`."""

    hashes: Array
    offsets: Array


def normalised_words(text: pa.Array) -> WordHashes:
    """Normalised words of row-aligned texts; a null has none. Memory: 8 bytes for each byte of the texts."""
    content, offsets = utf8_buffers(text)
    present = ~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
    longest = int(np.diff(offsets).max(initial=0))
    words = Words(np.empty(longest + 2, np.uint64), np.empty(longest + 2, np.int32))
    hashes, bounds = np.empty(int(offsets[-1] - offsets[0]) + 1, np.uint64), np.zeros(len(text) + 1, np.int64)
    _words_of_rows(content, offsets, present, unicode_tables(), words, hashes, bounds)
    return WordHashes(hashes[: bounds[-1]], bounds)
