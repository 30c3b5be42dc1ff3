"""Kernels of `curation.lines`: where lines are, what they are like, and the text without some of them."""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curation.kernels import kernel
from curation.signals.c4 import c4_line, copy_without_citations, count_split, phrases_in
from curation.text.dictionary import NO_JOINS
from curation.text.ngrams import clear_table, find_slot, never_zero
from curation.text.properties import ALPHA, DECIMAL, SPACE, TERMINAL, UPPER
from curation.text.scan import new_segments, scan_segments
from curation.text.segment import WORD, Array, decode
from curation.text.spans import ends_with_ellipsis, next_break, span_digest, trim_end, trim_start

NUMBERS = (  # columns of `measure_spans`
    "characters",
    "words",
    "segments",
    "longest_word",
    "letter_share",
    "digit_share",
    "uppercase_share",
    "symbol_share",
    "position",
    "repeats",
    "starts_bullet",
    "ends_terminal",
    "ends_ellipsis",
)


class SignalColumns(NamedTuple):
    """Lines of many texts: the bytes; per line its row (int64), first byte, the byte after it and after its break."""

    content: Array
    rows: Array
    starts: Array
    stops: Array
    nexts: Array


@kernel
def _next_paragraph(buf: Array, i: int, end: int) -> tuple[int, int]:
    """The next run of breaks with at least one blank line: where the paragraph stops, where the next starts."""
    while i < end:
        if buf[i] == 10:
            feeds, after, k = 1, i + 1, i + 1
            while k < end and (buf[k] == 10 or buf[k] == 32 or buf[k] == 9 or buf[k] == 13):
                k += 1
                if buf[k - 1] == 10:
                    feeds, after = feeds + 1, k
            if feeds > 1:
                return i, after
        i += 1
    return end, end


@kernel
def line_spans(buf: Array, offsets: Array, present: Array, paragraphs: bool) -> tuple[Array, Array, Array, Array]:
    """Rows, starts, stops and nexts (see SignalColumns) of all lines or paragraphs, in order."""
    size = 16
    for attempt in range(2):  # counts first, then fills
        spans = np.empty((4, size), np.int64)
        count = 0
        for row in range(offsets.shape[0] - 1):
            i, end = offsets[row], offsets[row + 1]
            while present[row] and i < end:
                stop, after = _next_paragraph(buf, i, end) if paragraphs else next_break(buf, i, end)
                if attempt:
                    spans[0, count], spans[1, count], spans[2, count], spans[3, count] = row, i, stop, after
                count += 1
                i = after
        size = count
    return spans[0], spans[1], spans[2], spans[3]


@kernel
def _measure_characters(buf: Array, start: int, end: int, table: Array, out: Array) -> None:
    characters, letters, digits, upper, spaces, i = 0, 0, 0, 0, 0, start
    while i < end:
        code_point, i = decode(buf, i)
        bits = table[np.uint64(code_point)]
        characters += 1
        letters += bits & ALPHA != 0
        digits += bits & DECIMAL != 0
        spaces += bits & SPACE != 0
        upper += bits & ALPHA != 0 and bits & UPPER != 0
    out[0] = characters
    if characters:
        out[4], out[5] = letters / characters, digits / characters
        out[7] = (characters - letters - digits - spaces) / characters
    if letters:
        out[6] = upper / letters


@kernel
def _measure_ends(buf: Array, start: int, end: int, table: Array, out: Array) -> None:
    out[10:13] = 0.0
    if start == end:
        return
    out[10] = buf[start] == 45 or (
        end - start >= 3 and buf[start] == 0xE2 and buf[start + 1] == 0x80 and buf[start + 2] == 0xA2
    )
    i = end - 1
    while buf[i] & 0xC0 == 0x80:
        i -= 1
    out[11] = table[decode(buf, i)[0]] & TERMINAL != 0
    out[12] = ends_with_ellipsis(buf, start, end)


@kernel
def measure_spans(spans: SignalColumns, table: Array, phrases: Array) -> tuple[Array, Array, Array]:
    """Signals of all lines.

    Returns:
        numbers: float64 (lines, len(NUMBERS)), NaN where undefined.
        verdicts: int64 (lines,), what C4 makes of the line (see `curation.signals.c4`).
        found: int64 (lines,), bits of the phrases that it holds.
    """
    buf, num_lines = spans.content, spans.rows.shape[0]
    longest, most, first = 0, 0, 0
    for k in range(num_lines):
        longest = max(longest, spans.stops[k] - spans.starts[k])
        first = k if k and spans.rows[k] != spans.rows[k - 1] else first
        most = max(most, k - first + 1)
    segments, line = new_segments(longest), np.empty(longest + 1, np.uint8)
    keys, counts = np.empty(4 * most + 16, np.uint64), np.empty(4 * most + 16, np.int64)
    numbers = np.full((num_lines, 13), np.nan)
    verdicts, found = np.empty(num_lines, np.int64), np.empty(num_lines, np.int64)
    first, bits = 0, 3
    for k in range(num_lines):
        start, stop, out = spans.starts[k], spans.stops[k], numbers[k]
        if k == 0 or spans.rows[k] != spans.rows[k - 1]:
            first, last = k, k
            while last < num_lines and spans.rows[last] == spans.rows[k]:
                last += 1
            bits = clear_table(keys, last - first)
        _measure_characters(buf, start, stop, table, out)
        count = scan_segments(buf, start, stop, table, NO_JOINS, segments)
        out[1], out[2], out[8] = 0, count, k - first
        for i in range(count):
            out[1] += segments.bits[i] & np.uint32(WORD) != 0
        out[3] = count_split(buf, start, stop, table)[1]
        value = never_zero(span_digest(buf, start, stop))
        slot = find_slot(keys, bits, value)
        if keys[slot] == np.uint64(0):
            keys[slot], counts[slot] = value, 0
        out[9] = counts[slot]
        counts[slot] += 1
        a = trim_start(buf, start, stop, table)
        b = trim_end(buf, a, stop, table)
        _measure_ends(buf, a, b, table, out)
        verdicts[k], _ = c4_line(buf, a, b, table, phrases, line)
        found[k] = phrases_in(line, copy_without_citations(buf, a, b, table, line), phrases)
    return numbers, verdicts, found


@kernel
def edited_text(
    spans: SignalColumns, dropped: Array, num_rows: int, clean: bool, table: Array
) -> tuple[int, Array, Array]:
    """The texts without dropped lines: bytes used, the bytes (uint8), offsets (int64, rows + 1)."""
    buf, num_lines = spans.content, spans.rows.shape[0]
    total, longest = num_lines, 0
    for k in range(num_lines):
        total += spans.nexts[k] - spans.starts[k]
        longest = max(longest, spans.nexts[k] - spans.starts[k])
    content, offsets, line = (
        np.empty(total + 1, np.uint8),
        np.zeros(num_rows + 1, np.int64),
        np.empty(longest + 1, np.uint8),
    )
    size, k = 0, 0
    for row in range(num_rows):
        begin, after_break = size, size  # after_break: where the last kept line ends without its break
        lost_last = False  # the last line, which has no break, is dropped: then the one before has none, too
        while k < num_lines and spans.rows[k] == row:
            lost_last = dropped[k] and spans.nexts[k] == spans.stops[k]
            if not dropped[k] and clean:
                a = trim_start(buf, spans.starts[k], spans.stops[k], table)
                length = copy_without_citations(buf, a, trim_end(buf, a, spans.stops[k], table), table, line)
                content[size : size + length] = line[:length]
                content[size + length] = 10
                size += length + 1
            elif not dropped[k]:
                length = spans.nexts[k] - spans.starts[k]
                content[size : size + length] = buf[spans.starts[k] : spans.nexts[k]]
                after_break = size + spans.stops[k] - spans.starts[k]
                size += length
            k += 1
        if clean:
            a = trim_start(content, begin, size, table)
            b = trim_end(content, a, size, table)
            content[begin : begin + b - a] = content[a:b].copy()
            size = begin + b - a
        elif lost_last:
            size = after_break
        offsets[row + 1] = size
    return size, content, offsets
