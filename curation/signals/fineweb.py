"""FineWeb's quality signals (Penedo et al. 2024, arXiv:2406.17557), as datatrove 0.10.1 counts them.

datatrove's definitions: lines are parted by line feeds and not stripped, blank ones are left out; the ratio of line
feeds to words counts symbols as words. With equal words every value equals datatrove's.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.signals.signal import Columns, Family, Signal, Texts
from curation.text.ngrams import clear_table, insert_new
from curation.text.properties import TERMINAL, property_table
from curation.text.scan import longest_text, new_segments, scan_segments
from curation.text.segment import Array, decode
from curation.text.spans import count_byte, count_characters, next_newline, span_digest, trim_start

IMPLEMENTATION = "fineweb (datatrove 0.10.1 semantics)"
SHORT_LINE_CHARACTERS = 30


def _signal(name: str, dtype: str, description: str, *needs: str) -> Signal:
    return Signal(name, "fineweb", dtype, 1, IMPLEMENTATION, description, needs)


SIGNALS = (
    _signal("fineweb_line_count", "int64", "lines that are not blank", "lines"),
    _signal(
        "fineweb_terminal_line_share", "float64", "lines that end with a sentence terminator of any script", "lines"
    ),
    _signal("fineweb_short_line_share", "float64", "lines of at most 30 characters", "lines"),
    _signal(
        "fineweb_duplicate_char_share", "float64", "characters of lines that occurred before / characters", "lines"
    ),
    _signal("fineweb_newline_word_ratio", "float64", "line feeds / segments", "lines", "words"),
)


@kernel
def _ends_terminal(buf: Array, start: int, end: int, table: Array) -> bool:
    i = end - 1
    while i > start and buf[i] & 0xC0 == 0x80:
        i -= 1
    return table[decode(buf, i)[0]] & TERMINAL != 0


@kernel
def _measure_lines(buf: Array, start: int, end: int, table: Array, keys: Array, out: Array) -> int:
    """The first four signals of one text; returns its line feeds."""
    feeds = count_byte(buf, start, end, 10)
    bits = clear_table(keys, feeds + 1)
    lines, terminal, short, repeated, i = 0, 0, 0, 0, start
    while i <= end:
        stop = next_newline(buf, i, end)
        if trim_start(buf, i, stop, table) < stop:
            lines += 1
            characters = count_characters(buf, i, stop)
            terminal += _ends_terminal(buf, i, stop, table)
            short += characters <= SHORT_LINE_CHARACTERS
            if not insert_new(keys, bits, span_digest(buf, i, stop)):
                repeated += characters
        i = stop + 1
    out[0] = lines
    if lines:
        out[1], out[2] = terminal / lines, short / lines
        out[3] = repeated / (count_characters(buf, start, end) - feeds)
    return feeds


@kernel
def _measure_fineweb(
    buf: Array, offsets: Array, present: Array, table: Array, joined: Array, counts: Array, out: Array
) -> None:
    """All rows; `counts` are the segments of each, or empty: then they are counted here."""
    longest = longest_text(offsets, present)
    segments = new_segments(longest if counts.shape[0] == 0 else 0)
    keys = np.empty(4 * longest + 16, np.uint64)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            feeds = _measure_lines(buf, start, end, table, keys, out[row])
            count = counts[row] if counts.shape[0] else float(scan_segments(buf, start, end, table, joined, segments))
            if count:
                out[row, 4] = feeds / count


def measure_fineweb(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All FineWeb signals; where `segment_count` is known already, words are not looked for again."""
    out = np.full((len(texts.present), len(SIGNALS)), np.nan)
    counts = np.ascontiguousarray(known.get("segment_count", np.zeros(0)))
    _measure_fineweb(texts.content, texts.offsets, texts.present, property_table(), texts.joined, counts, out)
    return {signal.name: out[:, k] for k, signal in enumerate(SIGNALS)}


FINEWEB = Family("fineweb", SIGNALS, measure_fineweb)
