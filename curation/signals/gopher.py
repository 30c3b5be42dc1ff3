"""The quality signals of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), as datatrove 0.10.1 counts them.

datatrove's definitions: words include symbols where they are a denominator; words made of punctuation alone do not
count as words; stop words are compared exactly, upper and lower case apart; lines are those of `str.splitlines`. The
words are ours (`curation.text.segment`): with equal words every value equals datatrove's.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.signals import repetition
from curation.signals.signal import Columns, Family, Signal, Texts
from curation.text.ngrams import find_slot, never_zero, new_tables, table_bits
from curation.text.properties import ALPHA, NOT_PUNCTUATION, property_table
from curation.text.scan import Segments, longest_text, new_segments, scan_segments
from curation.text.segment import Array, frozen
from curation.text.spans import (
    count_byte,
    count_characters,
    ends_with_ellipsis,
    next_break,
    next_of_two,
    span_hash,
    trim_end,
    trim_start,
)
from curation.text.stop_words import GOPHER_STOP_WORDS

IMPLEMENTATION = "gopher (datatrove 0.10.1 semantics)"


def _signal(name: str, dtype: str, description: str, *needs: str) -> Signal:
    return Signal(name, "gopher", dtype, 1, IMPLEMENTATION, description, needs)


QUALITY_SIGNALS = (
    _signal("word_count", "int64", "segments that are not punctuation alone", "words"),
    _signal("segment_count", "int64", "words and symbols: the denominator of the ratios to words", "words"),
    _signal("mean_word_length", "float64", "characters of a word (of word_count), mean", "words"),
    _signal("hash_word_ratio", "float64", "`#` characters / segments", "words"),
    _signal("ellipsis_word_ratio", "float64", "`...` and `…` / segments", "words"),
    _signal("alpha_word_share", "float64", "segments with an alphabetic character / segments", "words"),
    _signal("stop_word_count", "int64", "distinct stop words of the language that occur; null without a list", "words"),
    _signal("line_count", "int64", "lines of str.splitlines", "lines"),
    _signal("bullet_line_share", "float64", "lines that begin with `•` or `-` / lines", "lines"),
    _signal("ellipsis_line_share", "float64", "lines that end with `...` or `…` / lines", "lines"),
)


@kernel
def _measure_words(segments: Segments, count: int, stop_keys: Array, stop_seen: Array, row: int, out: Array) -> None:
    """Signals 0, 1, 2, 5 and 6 of a scanned text; `stop_seen` remembers for each stop word the last row that had it."""
    bits = table_bits(stop_keys.shape[0] // 4)
    words, characters, alpha, distinct = 0, 0, 0, 0
    for i in range(count):
        alpha += (segments.bits[i] & ALPHA) != 0
        is_word = (segments.bits[i] & NOT_PUNCTUATION) != 0
        words += is_word
        characters += (segments.characters[i + 1] - segments.characters[i]) * is_word
        slot = find_slot(stop_keys, bits, never_zero(segments.hashes[i]))
        if stop_keys[slot] != np.uint64(0) and stop_seen[slot] != row:
            stop_seen[slot] = row
            distinct += 1
    out[0], out[1] = words, count
    out[2] = characters / words if words else np.nan
    out[5] = alpha / count if count else np.nan
    out[6] = distinct if stop_keys.any() else np.nan


@kernel
def count_symbols(buf: Array, start: int, end: int) -> tuple[int, int]:
    """Hashes, and ellipses as `str.count` counts them, without overlap."""
    ellipses, dots, i = 0, 0, start
    while i < end:
        b = buf[i]
        if b == 46:
            dots += 1
        else:
            ellipses += dots // 3
            dots = 0
            if b == 0xE2:
                ellipses += buf[i + 1] == 0x80 and buf[i + 2] == 0xA6
            else:
                i = next_of_two(buf, i, end, 46, 0xE2)
                continue
        i += 1
    return count_byte(buf, start, end, 35), ellipses + dots // 3


@kernel
def _measure_lines(buf: Array, start: int, end: int, table: Array, out: Array) -> None:
    lines, bullets, ellipses, i = 0, 0, 0, start
    while i < end:
        stop, after = next_break(buf, i, end)
        lines += 1
        a = trim_start(buf, i, stop, table)
        b = trim_end(buf, a, stop, table)
        if a < b:
            bullets += buf[a] == 45 or (b - a >= 3 and buf[a] == 0xE2 and buf[a + 1] == 0x80 and buf[a + 2] == 0xA2)
            ellipses += ends_with_ellipsis(buf, a, b)
        i = after
    out[7] = lines
    out[8] = bullets / lines if lines else np.nan
    out[9] = ellipses / lines if lines else np.nan


@kernel
def _measure_gopher(
    buf: Array, offsets: Array, present: Array, table: Array, joined: Array, stop_keys: Array, out: Array
) -> None:
    """All rows; `out` has ten columns for quality alone and thirteen more for repetition."""
    longest = longest_text(offsets, present)
    segments, tables = new_segments(longest), new_tables(longest)
    stop_seen = np.full(stop_keys.shape[0], -1, np.int64)
    quality = 10
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            count = scan_segments(buf, start, end, table, joined, segments)
            _measure_words(segments, count, stop_keys, stop_seen, row, out[row])
            _measure_lines(buf, start, end, table, out[row])
            hashes, ellipses = count_symbols(buf, start, end)
            out[row, 3] = hashes / count if count else np.nan
            out[row, 4] = ellipses / count if count else np.nan
            if out.shape[1] > quality and end > start:
                repetition.measure_parts(buf, start, end, table, tables, out[row, quality:])
                characters = count_characters(buf, start, end)
                repetition.measure_ngrams(segments, count, characters, tables, out[row, quality:])


def word_keys(words: tuple[str, ...]) -> np.ndarray:
    """A table (see `find_slot`) of the hashes that `scan_segments` gives these words, uint64, read-only."""
    spans = [frozen(np.frombuffer(word.encode(), np.uint8)) for word in words]
    size = max(2, len(words))
    sparse = 5 if size <= 16 else 2  # most words then meet an empty slot, which a processor foresees
    keys = np.zeros(2 ** (int(table_bits(size)) + sparse), np.uint64)
    bits = int(table_bits(len(keys) // 4))
    for span in spans:
        value = np.uint64(span_hash(span, 0, len(span)))
        keys[find_slot(keys, bits, value)] = value
    return frozen(keys)


def measure_gopher(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """Quality signals, and those of repetition where one is wanted.

    `stop_word_count` is undefined in a language without a list, a share where its denominator is 0.
    """
    signals = QUALITY_SIGNALS if wanted <= {signal.name for signal in QUALITY_SIGNALS} else SIGNALS
    out = np.full((len(texts.present), len(signals)), np.nan)
    stop_keys = word_keys(GOPHER_STOP_WORDS.get(language, ()))
    _measure_gopher(texts.content, texts.offsets, texts.present, property_table(), texts.joined, stop_keys, out)
    return {signal.name: out[:, k] for k, signal in enumerate(signals)}


SIGNALS = QUALITY_SIGNALS + repetition.SIGNALS
GOPHER = Family("gopher", SIGNALS, measure_gopher)
