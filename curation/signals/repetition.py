"""The repetition signals of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), as datatrove 0.10.1 counts them.

datatrove's definitions: shares are of the characters of the whole text; lines are parted by any number of line feeds,
paragraphs by two or more; the top n-gram counts its spaces and, when nothing repeats, is the first n-gram, once; duplicate
n-grams are compared as words joined by nothing and counted from left to right without overlap. With equal words every value
equals datatrove's.
"""

from __future__ import annotations

from curation.kernels import kernel
from curation.signals.signal import Signal
from curation.text.ngrams import (
    Tables,
    clear_table,
    insert_new,
    mark_windows,
    narrow_places,
    repeated_joined,
    repeated_pairs,
    top_tuple,
)
from curation.text.scan import Segments
from curation.text.segment import Array
from curation.text.spans import count_characters, span_hash, trim_end, trim_start

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
def _break_length(buf: Array, i: int, end: int) -> int:
    length = 0
    while i + length < end and buf[i + length] == 10:
        length += 1
    return length


@kernel
def _duplicate_parts(buf: Array, start: int, end: int, least: int, keys: Array) -> tuple[int, int, int]:
    r"""Parts between `least` or more line feeds (`re.split`): how many, how many came before, and their characters."""
    most = 1
    for i in range(start, end):
        most += buf[i] == 10
    bits = clear_table(keys, most)
    parts, duplicates, characters, begin, i = 0, 0, 0, start, start
    while True:
        length = _break_length(buf, i, end) if i < end and buf[i] == 10 else 0
        if i < end and length < least:
            i += max(1, length)
            continue
        parts += 1
        if not insert_new(keys, bits, span_hash(buf, begin, i)):
            duplicates += 1
            characters += count_characters(buf, begin, i)
        if i >= end:
            return parts, duplicates, characters
        i += length
        begin = i


@kernel
def measure_parts(buf: Array, start: int, end: int, table: Array, tables: Tables, out: Array) -> None:
    """Duplicate lines and paragraphs of one text that is not empty."""
    characters = count_characters(buf, start, end)
    parts, duplicates, repeated = _duplicate_parts(buf, start, end, 1, tables.keys)
    out[0], out[1] = duplicates / parts, repeated / characters
    a = trim_start(buf, start, end, table)
    parts, duplicates, repeated = _duplicate_parts(buf, a, trim_end(buf, a, end, table), 2, tables.keys)
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
        for n in range(5, 11):
            out[n + 2] = repeated_joined(segments, count, n, tables) / characters
