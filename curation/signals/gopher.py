"""The quality signals of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), as datatrove 0.10.1 counts them.

datatrove's definitions: words include symbols where they are a denominator; words made of punctuation alone do not count
as words; stop words are compared exactly, upper and lower case apart; lines are those of `str.splitlines`. The words are
ours (`curation.text.segment`): with equal words every value equals datatrove's.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.signals.signal import Family, Signal, Texts
from curation.text.properties import ALPHA, NOT_PUNCTUATION, property_table
from curation.text.segment import frozen, next_segment
from curation.text.spans import ends_with_ellipsis, next_break, span_hash, trim_end, trim_start
from curation.text.stop_words import GOPHER_STOP_WORDS

IMPLEMENTATION = "gopher (datatrove 0.10.1 semantics)"


def _signal(name: str, dtype: str, description: str, *needs: str) -> Signal:
    return Signal(name, "gopher", dtype, 1, IMPLEMENTATION, description, needs)


SIGNALS = (
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
def _stop_word_place(value, stop_hashes):
    for k in range(stop_hashes.shape[0]):
        if stop_hashes[k] == value:
            return k
    return -1


@kernel
def _measure_words(buf, start, end, table, stop_hashes, out):
    segments, words, characters, alpha, i = 0, 0, 0, 0, start
    seen = np.uint64(0)
    while True:
        i, stop, num_characters, value, bits = next_segment(buf, i, end, table)
        if i == stop:
            break
        i = stop
        segments += 1
        alpha += (bits & ALPHA) != 0
        if bits & NOT_PUNCTUATION:
            words += 1
            characters += num_characters
        if num_characters < 8:  # the longest stop word has 7 characters
            place = _stop_word_place(value, stop_hashes)
            if place >= 0:
                seen |= np.uint64(1) << np.uint64(place)
    distinct = 0
    for k in range(stop_hashes.shape[0]):
        distinct += (seen >> np.uint64(k)) & np.uint64(1)
    out[0], out[1] = words, segments
    out[2] = characters / words if words else np.nan
    out[5] = alpha / segments if segments else np.nan
    out[6] = distinct if stop_hashes.shape[0] else np.nan


@kernel
def _count_symbols(buf, start, end):
    """Hashes, and ellipses as `str.count` counts them, without overlap."""
    hashes, ellipses, dots = 0, 0, 0
    for i in range(start, end):
        b = buf[i]
        if b == 46:
            dots += 1
            continue
        if dots:
            ellipses += dots // 3
            dots = 0
        if b == 35:
            hashes += 1
        elif b == 0xE2 and buf[i + 1] == 0x80 and buf[i + 2] == 0xA6:
            ellipses += 1
    return hashes, ellipses + dots // 3


@kernel
def _measure_lines(buf, start, end, table, out):
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
def _measure_quality(buf, offsets, present, table, stop_hashes, out):
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            _measure_words(buf, start, end, table, stop_hashes, out[row])
            _measure_lines(buf, start, end, table, out[row])
            hashes, ellipses = _count_symbols(buf, start, end)
            segments = out[row, 1]
            out[row, 3] = hashes / segments if segments else np.nan
            out[row, 4] = ellipses / segments if segments else np.nan


def word_hashes(words: tuple[str, ...]) -> np.ndarray:
    """Hashes of words as `next_segment` computes them, uint64 (len(words),), read-only."""
    spans = [frozen(np.frombuffer(word.encode(), np.uint8)) for word in words]
    return frozen(np.array([span_hash(span, 0, len(span)) for span in spans], np.uint64))


def measure_quality(texts: Texts, language: str, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    """All quality signals; `stop_word_count` is undefined in a language without a list."""
    out = np.full((len(texts.present), len(SIGNALS)), np.nan)
    stop_hashes = word_hashes(GOPHER_STOP_WORDS.get(language, ()))
    _measure_quality(texts.content, texts.offsets, texts.present, property_table(), stop_hashes, out)
    return {signal.name: out[:, k] for k, signal in enumerate(SIGNALS)}


QUALITY = Family("gopher", SIGNALS, measure_quality)
