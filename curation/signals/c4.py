"""C4's cleaning rules (Raffel et al. 2020, arXiv:1910.10683), as datatrove 0.10.1's C4QualityFilter applies them.

C4 removes lines and then judges what is left. Here one pass tells what would be left, so that rules can decide without
editing: `curation.lines` (preset c4_lines) removes the same lines. datatrove's definitions: a line is checked in a
fixed order; the words `lorem ipsum` and a curly bracket count only on lines that pass the checks before. Sentences are
ours (`curation.text.sentences`). Letters in phrases match in either case of ASCII.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.signals.signal import Columns, Family, Signal, Texts
from curation.text.load import eight_bytes
from curation.text.properties import DECIMAL, SPACE, property_table
from curation.text.scan import longest_text
from curation.text.segment import Array, decode, frozen
from curation.text.sentences import count_sentences
from curation.text.spans import (
    copy_span,
    count_characters,
    next_break,
    next_newline,
    next_of_two,
    trim_end,
    trim_start,
    zero_bytes,
)

IMPLEMENTATION = "c4 (datatrove 0.10.1 semantics)"
MAX_WORD_CHARACTERS = 1000  # a line with a longer word is removed
MIN_LINE_WORDS = 3
LONG_LINE_CHARACTERS = 200  # of mC4's paragraph rule (Xue et al. 2021, arXiv:2010.11934)
# What becomes of a line, in the order of the checks.
KEPT, LONG_WORD, NO_TERMINAL, FEW_WORDS, LOREM_IPSUM, JAVASCRIPT, CURLY_BRACKET, POLICY = range(8)
LINE_REASONS = (
    "kept",
    "long_word",
    "no_terminal_punctuation",
    "few_words",
    "lorem_ipsum",
    "javascript",
    "curly_bracket",
    "policy",
)
# What phrases mean, and a pair of letters in each that is rare elsewhere: where it begins.
_PHRASES = (
    (LOREM_IPSUM, "lorem ipsum", 7),
    (JAVASCRIPT, "javascript", 0),
    (POLICY, "terms of use", 3),
    (POLICY, "privacy policy", 5),
    (POLICY, "cookie policy", 2),
    (POLICY, "uses cookies", 7),
    (POLICY, "use of cookies", 9),
    (POLICY, "use cookies", 6),
)
_PAIRS = tuple(sorted({tuple(phrase[at : at + 2].encode()) for _, phrase, at in _PHRASES}))
_ONES = 0x0101010101010101  # eight bytes at a time


def _signal(name: str, dtype: str, description: str, *needs: str) -> Signal:
    return Signal(name, "c4", dtype, 1, IMPLEMENTATION, description, needs)


SIGNALS = (
    _signal("c4_line_count", "int64", "lines of str.splitlines", "lines"),
    _signal("c4_kept_line_count", "int64", "lines that C4 would keep", "lines"),
    _signal("c4_kept_char_share", "float64", "characters of kept lines, citations removed / characters", "lines"),
    _signal("c4_sentence_count", "int64", "sentences on kept lines", "lines", "sentences"),
    _signal("c4_lorem_ipsum", "bool", "`lorem ipsum` on a line that passed the checks before it", "lines"),
    _signal("c4_curly_bracket", "bool", "`{` on a line that passed the checks before it", "lines"),
    _signal(
        "c4_long_line_count", "int64", "lines (by line feeds) of at least 200 characters: mC4's paragraphs", "lines"
    ),
)


def _phrase_table() -> np.ndarray:
    """Phrases, uint8 (phrases, 17), read-only: meaning, length, place of the rare pair, lower-case letters."""
    table = np.zeros((len(_PHRASES), 17), np.uint8)
    for place, (meaning, phrase, pair) in enumerate(_PHRASES):
        table[place, :3] = meaning, len(phrase), pair
        table[place, 3 : 3 + len(phrase)] = np.frombuffer(phrase.encode(), np.uint8)
    return frozen(table)


PHRASES = _phrase_table()


@kernel
def _phrases_at(line: Array, at: int, size: int, phrases: Array) -> int:
    """A bit for each meaning of a phrase whose rare pair stands at `at`, in either case."""
    found = 0
    for n in range(phrases.shape[0]):
        length, start = np.int64(phrases[n, 1]), at - np.int64(phrases[n, 2])
        if start < 0 or start + length > size:
            continue
        k = 0
        while k < length:
            b = line[start + k]
            if (b + 32 if 65 <= b <= 90 else b) != phrases[n, 3 + k]:
                break
            k += 1
        if k == length:
            found |= 1 << np.int64(phrases[n, 0])
    return found


@kernel
def phrases_in(line: Array, size: int, phrases: Array) -> int:
    """A bit for each meaning of a phrase, and of `{`, that `line[:size]` holds."""
    found, i = 0, 0
    if next_of_two(line, 0, size, 123, 123) < size:
        found |= 1 << CURLY_BRACKET
    ones = np.uint64(_ONES)
    while i + 9 <= size:
        first, second = eight_bytes(line, i) | ones * np.uint64(32), eight_bytes(line, i + 1) | ones * np.uint64(32)
        hits = np.uint64(0)
        for a, b in _PAIRS:
            hits |= zero_bytes((first ^ ones * np.uint64(a)) | (second ^ ones * np.uint64(b)))
        if hits:
            for k in range(8):
                found |= _phrases_at(line, i + k, size, phrases)
        i += 8
    for k in range(i, size - 1):
        found |= _phrases_at(line, k, size, phrases)
    return found


_EDIT, _CITATION = tuple(b"[edit]"), tuple(b"[citation needed]")


@kernel
def _same_bytes(buf: Array, i: int, end: int, mark: tuple[int, ...]) -> int:
    """The length of `mark` where it stands at `i`, else 0."""
    size = len(mark)
    if i + size > end:
        return 0
    for k in range(size):
        if buf[i + k] != mark[k]:
            return 0
    return size


@kernel
def _citation_end(buf: Array, i: int, end: int, table: Array) -> int:
    """End of a citation mark (`[12]`, `[]`, `[edit]`, `[citation needed]`) at the bracket `i`, or `i`."""
    j = i + 1
    while j < end:
        code_point, after = decode(buf, j)
        if table[np.uint64(code_point)] & DECIMAL == 0:
            break
        j = after
    if j < end and buf[j] == 93:
        return j + 1
    if i + 1 < end and buf[i + 1] == _CITATION[1]:
        size = _same_bytes(buf, i, end, _CITATION)
    else:
        size = _same_bytes(buf, i, end, _EDIT)
    return i + size


@kernel
def copy_without_citations(buf: Array, start: int, end: int, table: Array, line: Array) -> int:
    """Copy the span to `line` without citation marks; returns its bytes."""
    size, i = 0, start
    while i < end:
        stop = next_of_two(buf, i, end, 91, 91)
        copy_span(buf, i, stop, line, size)
        size += stop - i
        i = stop
        if i < end:
            i = _citation_end(buf, i, end, table)
            if i == stop:
                line[size] = 91
                size, i = size + 1, i + 1
    return size


@kernel
def count_split(buf: Array, start: int, end: int, table: Array) -> tuple[int, int]:
    """Words of `str.split()`, and the characters of the longest."""
    count, longest, length, i = 0, 0, 0, start
    while i < end:
        code_point, i = decode(buf, i)
        if table[np.uint64(code_point)] & SPACE:
            length = 0
        else:
            count += length == 0
            length += 1
            longest = max(longest, length)
    return count, longest


@kernel
def _first_words(buf: Array, start: int, end: int, table: Array) -> int:
    """Words of `str.split()`, as far as MIN_LINE_WORDS."""
    count, i = 0, trim_start(buf, start, end, table)
    while i < end and count < MIN_LINE_WORDS:
        count += 1
        while i < end:
            if 32 < buf[i] < 0x80:  # quickly over ASCII
                i += 1
                continue
            code_point, after = decode(buf, i)
            if table[np.uint64(code_point)] & SPACE:
                break
            i = after
        i = trim_start(buf, i, end, table)
    return count


@kernel
def c4_line(buf: Array, start: int, end: int, table: Array, phrases: Array, line: Array) -> tuple[int, int]:  # noqa: PLR0911
    """What C4 makes of a stripped line: KEPT or the check it fails first; its bytes in `line`, citations removed."""
    if end - start > MAX_WORD_CHARACTERS and count_split(buf, start, end, table)[1] > MAX_WORD_CHARACTERS:
        return LONG_WORD, 0
    last = buf[end - 1] if end > start else 0
    if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39 or last == 93):
        return NO_TERMINAL, 0  # most lines that go: no need to look for citations, which end with a bracket (93)
    size = copy_without_citations(buf, start, end, table, line)
    last = line[size - 1] if size else 0
    if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39):
        return NO_TERMINAL, 0
    if size >= 3 and last == 46 and line[size - 2] == 46 and line[size - 3] == 46:
        return NO_TERMINAL, 0
    if _first_words(buf, start, end, table) < MIN_LINE_WORDS:
        return FEW_WORDS, 0
    found = phrases_in(line, size, phrases)
    for verdict in (LOREM_IPSUM, JAVASCRIPT, CURLY_BRACKET, POLICY):
        if found >> verdict & 1:
            return verdict, 0
    return KEPT, size


@kernel
def _measure_text(buf: Array, start: int, end: int, table: Array, phrases: Array, line: Array, out: Array) -> None:
    lines, kept, characters, sentences, lorem, curly, i = 0, 0, 0, 0, 0, 0, start
    while i < end:
        stop, after = next_break(buf, i, end)
        lines += 1
        a = trim_start(buf, i, stop, table)
        verdict, size = c4_line(buf, a, trim_end(buf, a, stop, table), table, phrases, line)
        if verdict == KEPT:
            kept += 1
            characters += count_characters(line, 0, size)
            sentences += max(1, count_sentences(line, 0, size, table))
        lorem |= verdict == LOREM_IPSUM
        curly |= verdict == CURLY_BRACKET
        i = after
    out[0], out[1], out[3], out[4], out[5] = lines, kept, sentences, lorem, curly
    if end > start:
        out[2] = characters / count_characters(buf, start, end)
    long_lines, i = 0, start
    while i <= end:
        stop = next_newline(buf, i, end)
        if stop - i >= LONG_LINE_CHARACTERS:
            long_lines += count_characters(buf, i, stop) >= LONG_LINE_CHARACTERS
        i = stop + 1
    out[6] = long_lines


@kernel
def _measure_c4(buf: Array, offsets: Array, present: Array, table: Array, phrases: Array, out: Array) -> None:
    line = np.empty(longest_text(offsets, present) + 1, np.uint8)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            _measure_text(buf, offsets[row], offsets[row + 1], table, phrases, line, out[row])


def measure_c4(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All C4 signals; the same in every language."""
    out = np.full((len(texts.present), len(SIGNALS)), np.nan)
    _measure_c4(texts.content, texts.offsets, texts.present, property_table(), PHRASES, out)
    return {signal.name: out[:, k] for k, signal in enumerate(SIGNALS)}


C4 = Family("c4", SIGNALS, measure_c4)
