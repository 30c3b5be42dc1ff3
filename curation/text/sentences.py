"""Sentences of a line, by punctuation alone, for any language.

A sentence ends after a run of `.` and sentence-ending characters with the closing quotes and brackets behind it:

* at once where the run holds a full-width terminator (`。！？`): Chinese and Japanese write no space behind it;
* else before white space, unless the next character is lower case (UAX #29, SB8), or the run is one `.` behind a single
  letter (`J. S. Bach`, `z. B.`) or a number of one or two digits (`am 3. Mai`, German ordinals);
* and at the end of the line. What is left without a terminator is a sentence too, if it is not white space.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.text.load import eight_bytes
from curation.text.properties import ALNUM, ALPHA, CLOSING, DECIMAL, LOWER, SENTENCE_END, SPACE
from curation.text.segment import Array, decode
from curation.text.spans import trim_start, zero_bytes

SENTENCES = "terminators, lower-case and initials rules (1)"
_ONES, _HIGHS = 0x0101010101010101, 0x8080808080808080  # eight bytes at a time
_FULL_WIDTH = 0x3000  # CJK punctuation and full-width forms begin here


@kernel
def _before(buf: Array, start: int, i: int) -> int:
    """Place of the character before byte `i`; `start - 1` when there is none."""
    i -= 1
    while i > start and buf[i] & 0xC0 == 0x80:
        i -= 1
    return i


@kernel
def _ends_short(buf: Array, start: int, i: int, table: Array) -> bool:
    """Whether `buf[start:i]` ends with a word of one letter, or a number of one or two digits."""
    for length in range(1, 3):
        i = _before(buf, start, i)
        if i < start:
            return False
        bits = table[decode(buf, i)[0]]
        if not (bits & DECIMAL or (length == 1 and bits & ALPHA)):
            return False
        alone = i == start or table[decode(buf, _before(buf, start, i))[0]] & ALNUM == 0
        if alone or bits & ALPHA:
            return alone
    return False


@kernel
def _ends_here(buf: Array, start: int, at: int, after: int, end: int, table: Array, dots: int) -> bool:
    """Whether a sentence ends after a terminator run at `at` that stops at `after`; `dots` is 1 for a single `.`."""
    if after >= end:
        return True
    if table[decode(buf, after)[0]] & SPACE == 0:
        return False
    following = trim_start(buf, after, end, table)
    if following >= end:
        return True
    if table[decode(buf, following)[0]] & LOWER:
        return False
    return dots != 1 or not _ends_short(buf, start, at, table)


@kernel
def _next_terminator(buf: Array, i: int, end: int) -> int:
    """The next byte at or after `i` that is `.`, `!`, `?` or not ASCII, or `end`."""
    ones, highs = np.uint64(_ONES), np.uint64(_HIGHS)
    while i + 8 <= end:
        word = eight_bytes(buf, i)
        marks = zero_bytes(word ^ ones * np.uint64(46)) | zero_bytes(word ^ ones * np.uint64(33))
        if (word & highs) | marks | zero_bytes(word ^ ones * np.uint64(63)):
            break
        i += 8
    while i < end and buf[i] < 0x80 and buf[i] != 46 and buf[i] != 33 and buf[i] != 63:
        i += 1
    return i


@kernel
def next_sentence(buf: Array, start: int, end: int, table: Array) -> int:
    """End of the first sentence of the line `buf[start:end]`: behind its terminators, or `end`."""
    i = start
    while i < end:
        if buf[np.uint64(i)] < 0x80:
            i = _next_terminator(buf, i, end)
            if i >= end:
                break
        code_point, after = decode(buf, i)
        if code_point != 46 and table[np.uint64(code_point)] & SENTENCE_END == 0:
            i = after
            continue
        at, dots, others, full_width = i, 0, 0, False
        while i < end:
            code_point, after = decode(buf, i)
            if code_point == 46:
                dots += 1
            elif table[np.uint64(code_point)] & SENTENCE_END:
                others += 1
                full_width |= code_point >= _FULL_WIDTH
            else:
                break
            i = after
        while i < end:
            code_point, after = decode(buf, i)
            if table[np.uint64(code_point)] & CLOSING == 0 or (
                full_width and (code_point == 0x201C or code_point == 0x2018)
            ):
                break  # “ closes a German quotation and opens a Chinese one
            i = after
        if full_width or _ends_here(buf, start, at, i, end, table, dots if others == 0 else 2):
            return i
    return end


@kernel
def count_sentences(buf: Array, start: int, end: int, table: Array) -> int:
    """Sentences of the line `buf[start:end]`; white space alone is none."""
    count = 0
    start = trim_start(buf, start, end, table)
    while start < end:
        count += 1
        start = trim_start(buf, next_sentence(buf, start, end, table), end, table)
    return count
