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
from curation.text.properties import DECIMAL, SPACE, property_table
from curation.text.scan import longest_text
from curation.text.segment import Array, decode, frozen
from curation.text.sentences import count_sentences
from curation.text.spans import count_characters, next_break, next_newline, next_of_two, trim_end, trim_start

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
_PHRASES = (
    (LOREM_IPSUM, "lorem ipsum"),  # phrases of one first letter follow each other
    (JAVASCRIPT, "javascript"),
    (POLICY, "terms of use"),
    (POLICY, "privacy policy"),
    (POLICY, "cookie policy"),
    (POLICY, "uses cookies"),
    (POLICY, "use of cookies"),
    (POLICY, "use cookies"),
)


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
    """Phrases and where to look for them, uint8 (256 + 18 x phrases,), read-only.

    Byte b of the first 256 is 1 + the number of the first phrase that begins with b in either case, or 0. A phrase has
    18 bytes: meaning, length, lower-case letters. Phrases of one first letter follow each other.
    """
    table = np.zeros((len(_PHRASES), 18), np.uint8)
    first = np.zeros(256, np.uint8)
    for place, (meaning, phrase) in reversed(list(enumerate(_PHRASES))):
        table[place, :2] = meaning, len(phrase)
        table[place, 2 : 2 + len(phrase)] = np.frombuffer(phrase.encode(), np.uint8)
        first[[ord(phrase[0]), ord(phrase[0].upper())]] = place + 1
    return frozen(np.concatenate((first, table.ravel())))


PHRASES = _phrase_table()
NUM_PHRASES = len(_PHRASES)


@kernel
def _matches(line: Array, at: int, size: int, phrases: Array, place: int) -> bool:
    length = np.int64(phrases[place + 1])
    if at + length > size:
        return False
    for k in range(1, length):
        b = line[at + k]
        if (b + 32 if 65 <= b <= 90 else b) != phrases[place + 2 + k]:
            return False
    return True


@kernel
def phrases_in(line: Array, size: int, phrases: Array) -> int:
    """A bit for each meaning of a phrase, and of `{`, that `line[:size]` holds."""
    found = 0
    if next_of_two(line, 0, size, 123, 123) < size:
        found |= 1 << CURLY_BRACKET
    for i in range(size - 1):
        number = np.int64(phrases[line[i]])
        if number:
            place = 256 + 18 * (number - 1)
            first, second = phrases[place + 2], line[i + 1] | 32
            while place < phrases.shape[0] and phrases[place + 2] == first:
                if phrases[place + 3] == second and _matches(line, i, size, phrases, place):
                    found |= 1 << np.int64(phrases[place])
                place += 18
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
        if table[code_point] & DECIMAL == 0:
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
        for k in range(stop - i):
            line[size + k] = buf[i + k]
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
        if table[code_point] & SPACE:
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
            if table[code_point] & SPACE:
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
