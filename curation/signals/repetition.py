"""The repetition signals of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), as datatrove 0.10.1 counts them.

datatrove's definitions: shares are of the characters of the whole text; lines are parted by any number of line feeds,
paragraphs by two or more; the top n-gram counts its spaces and, when nothing repeats, is the first n-gram, once;
duplicate n-grams are compared as words joined by nothing and counted from left to right without overlap. With equal
words every value equals datatrove's.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from curation.kernels import kernel
from curation.signals.signal import Signal
from curation.text.ngrams import (
    Tables,
    clear_table,
    insert_new,
    joined_places,
    mark_windows,
    narrow_places,
    repeated_joined,
    repeated_pairs,
    top_tuple,
)
from curation.text.scan import Segments
from curation.text.segment import Array
from curation.text.spans import count_byte, count_characters, next_newline, span_digest, trim_end, trim_start

IMPLEMENTATION = "gopher repetition (datatrove 0.10.1 semantics)"
TOP_ORDERS = (2, 3, 4)
DUPLICATE_ORDERS = (5, 6, 7, 8, 9, 10)


def _signal(name: str, description: str, *needs: str) -> Signal:
    return Signal(name, "gopher", "float64", 1, IMPLEMENTATION, description, needs)


SIGNALS = (
    _signal("duplicate_line_share", "lines that occurred before / lines", "lines"),
    _signal("duplicate_line_char_share", "their characters / characters", "lines"),
    _signal("duplicate_paragraph_share", "paragraphs that occurred before / paragraphs", "paragraphs"),
    _signal("duplicate_paragraph_char_share", "their characters / characters", "paragraphs"),
    *(
        _signal(
            f"top_{n}gram_char_share", f"characters of the most frequent {n}-gram x its count / characters", "words"
        )
        for n in TOP_ORDERS
    ),
    *(
        _signal(f"duplicate_{n}gram_char_share", f"characters in {n}-grams that occurred before / characters", "words")
        for n in DUPLICATE_ORDERS
    ),
)


@kernel
def _duplicate_parts(buf: Array, start: int, end: int, least: int, keys: Array, most: int) -> tuple[int, int, int]:
    """Parts between `least` or more line feeds, at most `most`: how many, how many came before, characters of these."""
    bits = clear_table(keys, most)
    parts, duplicates, characters, begin, i = 0, 0, 0, start, start
    while True:
        stop = next_newline(buf, i, end)
        i = stop
        while i < end and buf[i] == 10:
            i += 1
        if stop < end and i - stop < least:
            continue
        parts += 1
        if not insert_new(keys, bits, span_digest(buf, begin, stop)):
            duplicates += 1
            characters += count_characters(buf, begin, stop)
        if stop == end:
            return parts, duplicates, characters
        begin = i


@kernel
def measure_parts(buf: Array, start: int, end: int, table: Array, tables: Tables, out: Array) -> None:
    """Duplicate lines and paragraphs of one text that is not empty."""
    characters, feeds, blank = count_characters(buf, start, end), count_byte(buf, start, end, 10), 0
    i = next_newline(buf, start, end)
    while i + 1 < end:
        blank += buf[i + 1] == 10
        i = next_newline(buf, i + 1, end)
    parts, duplicates, repeated = _duplicate_parts(buf, start, end, 1, tables.keys, feeds + 1)
    out[0], out[1] = duplicates / parts, repeated / characters
    out[2:4] = 0.0
    if blank:
        a = trim_start(buf, start, end, table)
        b = trim_end(buf, a, end, table)
        parts, duplicates, repeated = _duplicate_parts(buf, a, b, 2, tables.keys, blank + 1)
        out[2], out[3] = duplicates / parts, repeated / characters


@kernel
def measure_ngrams(segments: Segments, count: int, characters: int, tables: Tables, out: Array) -> None:
    """Top and duplicate n-grams of one scanned text of `count` segments and `characters` > 0 characters."""
    out[4:13] = 0.0
    if count >= 2:
        found = repeated_pairs(segments.hashes, count, tables)
        for n in range(2, 5):
            if n > 2:
                found = narrow_places(tables, found)
            if count >= n:
                first, times = top_tuple(segments.hashes, n, tables, found)
                length = segments.characters[first + n] - segments.characters[first] + n - 1
                out[n + 2] = length * times / characters
    if count >= 5:
        mark_windows(segments, count, tables)
        among = joined_places(segments, count, 5, tables)
        for n in range(5, 11):
            out[n + 2] = repeated_joined(segments, count, n, tables, among) / characters
