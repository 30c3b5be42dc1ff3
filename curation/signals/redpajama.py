r"""The quality signals of RedPajama-V2 (Weber et al. 2024, arXiv:2411.12372) that need no lists, classifiers or URLs.

Definitions: raw words are runs of `\\w` or of other characters that are no space; normalised words are what white space
parts after ASCII punctuation is removed, in lower case and NFD, and their characters are counted in NFD; values are
rounded to 8 digits; lines keep their line feed. Line signals are stored as the mean (or sum) over a document's lines.
On text of spaced scripts every value equals RedPajama-V2's code (commit 6d2cee9); letters of unspaced scripts are words
of their own here, which that code (en, de, fr, es, it) never met. Stop words are our lists.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.signals.gopher import count_symbols, word_keys
from curation.signals.signal import Columns, Family, Signal, Texts
from curation.text.dictionary import NO_JOINS
from curation.text.ngrams import (
    Tables,
    count_values,
    find_slot,
    narrow_places,
    never_zero,
    new_tables,
    repeated_pairs,
    repeated_tuples,
    table_bits,
    top_tuple,
)
from curation.text.properties import (
    ALNUM,
    ASCII_PUNCTUATION,
    CHARACTER,
    EXTEND,
    LOWER,
    NUMERIC,
    SPACE,
    UPPER,
    WORD_CLASS,
    folded_tables,
    property_table,
)
from curation.text.scan import longest_text
from curation.text.segment import HASH_BASE, Array, decode, utf8_buffers
from curation.text.spans import count_characters, ends_with_ellipsis, next_newline, trim_end, trim_start
from curation.text.stop_words import STOP_WORDS

IMPLEMENTATION = "RedPajama-V2 (6d2cee9 semantics, rounded to 8 digits)"


def _signal(name: str, description: str, *needs: str, dtype: str = "float64") -> Signal:
    return Signal(name, "redpajama", dtype, 1, IMPLEMENTATION, description, needs)


SIGNALS = (
    _signal("ccnet_length", "characters", dtype="int64"),
    _signal("ccnet_nlines", "line feeds + 1", "lines", dtype="int64"),
    _signal("ccnet_original_length", "characters of the text as the source brings it", dtype="int64"),
    _signal("ccnet_original_nlines", "line feeds + 1 of the text as the source brings it", "lines", dtype="int64"),
    _signal("rps_doc_word_count", "normalised words", "words", dtype="int64"),
    _signal("rps_doc_mean_word_length", "characters of a normalised word, mean", "words"),
    _signal("rps_doc_num_sentences", r"matches of \b[^.!?]+[.!?]*", dtype="int64"),
    _signal("rps_doc_symbol_to_word_ratio", "(`#` + `...` + `…`) / raw words", "words"),
    _signal("rps_doc_frac_lines_end_with_ellipsis", "lines that end with `...` or `…` / lines", "lines"),
    _signal("rps_doc_frac_no_alph_words", "raw words without a letter a-z or A-Z / raw words", "words"),
    _signal("rps_doc_frac_unique_words", "distinct normalised words / normalised words", "words"),
    _signal("rps_doc_unigram_entropy", "entropy of normalised words, nats", "words"),
    _signal("rps_doc_frac_all_caps_words", "raw words in capitals / raw words", "words"),
    _signal("rps_doc_stop_word_fraction", "stop words of our list / raw words; null without a list", "words"),
    _signal("rps_doc_lorem_ipsum", "`lorem ipsum` in the normalised text / its characters", "words"),
    _signal("rps_doc_curly_bracket", "`{` and `}` / characters"),
    *(
        _signal(
            f"rps_doc_frac_chars_top_{n}gram", f"characters of the most frequent {n}-gram x count / characters", "words"
        )
        for n in (2, 3, 4)
    ),
    *(
        _signal(f"rps_doc_frac_chars_dupe_{n}grams", f"characters in {n}-grams that occur twice / characters", "words")
        for n in range(5, 11)
    ),
    _signal(
        "rps_lines_ending_with_terminal_punctution_mark_mean", "lines that end with one of . ! ? ” / lines", "lines"
    ),
    _signal("rps_lines_javascript_counts_sum", "normalised words `javascript`", "lines", dtype="int64"),
    _signal("rps_lines_num_words_mean", "normalised words of a line, mean", "lines"),
    _signal("rps_lines_numerical_chars_fraction_mean", "numeric characters of a normalised line, mean share", "lines"),
    _signal("rps_lines_start_with_bulletpoint_mean", "lines that begin with a bullet / lines", "lines"),
    _signal("rps_lines_uppercase_letter_fraction_mean", "upper-case characters of a line, mean share", "lines"),
)
_MEASURED = tuple(signal for signal in SIGNALS if not signal.name.startswith("ccnet_original"))  # the kernel's columns
_BULLETS = frozenset("\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013")
_BULLET_CODES = tuple(sorted(ord(x) for x in _BULLETS))
_LOREM = tuple(ord(x) for x in "lorem ipsum")  # no prefix of it ends another: a failed match restarts at its `l`
_LOREM_SIZE = len(_LOREM)


class Unicode(NamedTuple):
    """Tables of `curation.text.properties`."""

    bits: Array
    folded_index: Array
    folded_pool: Array


class Words(NamedTuple):
    """Scratch: normalised words' hashes (uint64), and characters before each (int32, one longer)."""

    hashes: Array
    characters: Array


class _Line(NamedTuple):
    """What one line adds: normalised words, spaced words, lorem-ipsum state and matches, numeric characters."""

    num_words: int
    num_spaced: int
    state: int
    matches: int
    numeric: int
    characters: int


@kernel
def _normalised_line(
    buf: Array, start: int, end: int, unicode: Unicode, joined: Array, words: Words, line: _Line
) -> _Line:
    """Append a line's normalised words; counts go on from `line`, `numeric` and `characters` from 0."""
    count, spaced, state, matches, _, _ = line
    numeric, characters, open_word, open_spaced, alone = 0, 0, False, False, False
    total, value = np.int64(words.characters[count]), np.uint64(0)
    i = start
    while i < end:
        goes_on = joined.shape[0] != 0 and joined[i] != 0
        code_point, i = decode(buf, i)
        bits = unicode.bits[np.uint64(code_point)]
        if bits & ASCII_PUNCTUATION:
            continue
        space, single = bits & SPACE != 0, bits & WORD_CLASS == CHARACTER
        if open_word and not goes_on and (space or single or (alone and bits & WORD_CLASS != EXTEND)):
            words.hashes[np.uint64(count)] = value
            count += 1
            words.characters[np.uint64(count)] = total
            open_word = False
        if space:
            open_spaced = False
            continue
        if not open_spaced:
            open_spaced = True
            if spaced:
                state = state + 1 if _LOREM[state] == 32 else 0
                characters += characters > 0
            spaced += 1
        if not open_word:
            open_word, alone, value = True, single, np.uint64(0)
        place = unicode.folded_index[np.uint64(code_point)]
        length = unicode.folded_pool[np.uint64(place)] if place else 1
        for k in range(length):
            folded = unicode.folded_pool[np.uint64(place + 1 + k)] if place else code_point
            value = value * np.uint64(HASH_BASE) + np.uint64(folded + 1)
            numeric += unicode.bits[np.uint64(folded)] & NUMERIC != 0
            state = state + 1 if _LOREM[state] == folded else np.int64(folded == 108)
            if state == _LOREM_SIZE:
                matches, state = matches + 1, 0
        characters += length
        total += length
    if open_word:
        words.hashes[np.uint64(count)] = value
        count += 1
        words.characters[np.uint64(count)] = total
    return _Line(count, spaced, state, matches, numeric, characters)


@kernel
def _measure_lines(
    buf: Array,
    start: int,
    end: int,
    unicode: Unicode,
    joined: Array,
    words: Words,
    javascript: np.uint64,
    out: Array,
) -> _Line:
    """Signals of lines, and all normalised words."""
    words.characters[0] = 0
    line = _Line(0, 0, 0, 0, 0, 0)
    lines, terminal, ellipses, bullets, scripts, numeric, upper, i = 0, 0, 0, 0, 0, 0.0, 0.0, start
    while i < end:
        stop = min(next_newline(buf, i, end) + 1, end)
        before = line.num_words
        line = _normalised_line(buf, i, stop, unicode, joined, words, line)
        numeric += line.numeric / line.characters if line.characters else 0.0
        for k in range(before, line.num_words):
            scripts += words.hashes[k] == javascript
        characters, capitals, k = 0, 0, i
        while k < stop:
            code_point, k = decode(buf, k)
            characters += 1
            capitals += unicode.bits[np.uint64(code_point)] & UPPER != 0
        upper += capitals / characters
        a = trim_start(buf, i, stop, unicode.bits)
        b = trim_end(buf, a, stop, unicode.bits)
        if a < b:
            bullets += decode(buf, a)[0] in _BULLET_CODES
            ellipses += ends_with_ellipsis(buf, a, b)
            last = buf[b - 1]
            quote = b - a >= 3 and last == 0x9D and buf[b - 2] == 0x80 and buf[b - 3] == 0xE2
            terminal += last == 46 or last == 33 or last == 63 or quote
        lines += 1
        i = stop
    out[24] = scripts
    if lines:
        out[6], out[23], out[25] = ellipses / lines, terminal / lines, line.num_words / lines
        out[26], out[27], out[28] = numeric / lines, bullets / lines, upper / lines
    return line


@kernel
def _words_of_rows(
    buf: Array, offsets: Array, present: Array, unicode: Unicode, words: Words, hashes: Array, bounds: Array
) -> None:
    """All rows' normalised words, one after the other."""
    total = 0
    for row in range(present.shape[0]):
        if present[row]:
            words.characters[0] = 0
            line, i, end = _Line(0, 0, 0, 0, 0, 0), offsets[row], offsets[row + 1]
            while i < end:
                stop = min(next_newline(buf, i, end) + 1, end)
                line = _normalised_line(buf, i, stop, unicode, NO_JOINS, words, line)
                i = stop
            hashes[total : total + line.num_words] = words.hashes[: line.num_words]
            total += line.num_words
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
    _words_of_rows(content, offsets, present, Unicode(property_table(), *folded_tables()), words, hashes, bounds)
    return WordHashes(hashes[: bounds[-1]], bounds)


@kernel
def _measure_raw(buf: Array, start: int, end: int, bits_of: Array, joined: Array, stop_keys: Array, out: Array) -> None:
    """Signals of raw words, and sentences."""
    stop_bits = table_bits(stop_keys.shape[0] // 4)
    raw, latin, capitals, stops, sentences, braces = 0, 0, 0, 0, 0, 0
    kind, value, all_bits, has_latin = (
        0,
        np.uint64(0),
        np.uint32(0),
        False,
    )  # kind of the open word: 0 none, 1 \w, 2 other
    state, word_before = 0, False  # of the sentence pattern: 0 seeks, 1 in the body, 2 in the terminators
    i = start
    while True:
        found, code_point, after, next_kind, single, goes_on = np.uint32(0), 0, i, 0, False, False
        if i < end:
            goes_on = joined.shape[0] != 0 and joined[i] != 0
            code_point, after = decode(buf, i)
            found = bits_of[np.uint64(code_point)]
            is_word = found & ALNUM != 0
            single = is_word and found & WORD_CLASS == CHARACTER
            next_kind = 1 if is_word else (0 if found & SPACE else 2)
            terminator = code_point == 46 or code_point == 33 or code_point == 63
            if state == 2 and not terminator:
                state = 0
            if state == 0:
                if not terminator and is_word != word_before:
                    state = 1
                    sentences += 1
            elif state == 1 and terminator:
                state = 2
            word_before = is_word
            braces += code_point == 123 or code_point == 125
        if kind and not goes_on and (next_kind != kind or single or i >= end):
            raw += 1
            latin += has_latin
            capitals += all_bits & UPPER != 0 and all_bits & LOWER == 0
            stops += stop_keys[find_slot(stop_keys, stop_bits, never_zero(value))] != np.uint64(0)
            kind = 0
        if i >= end:
            break
        if next_kind:
            if kind == 0:
                value, all_bits, has_latin = np.uint64(0), np.uint32(0), False
            kind = 3 if single else next_kind  # a single letter closes before whatever follows
            all_bits |= found
            has_latin |= 97 <= (code_point | 32) <= 122 and code_point < 128
            for k in range(i, after):
                value = value * np.uint64(HASH_BASE) + (np.uint64(buf[np.uint64(k)]) + np.uint64(1))
        i = after
    out[4] = sentences
    out[13] = braces / count_characters(buf, start, end) if end > start else 0.0
    if raw:
        hashes, ellipses = count_symbols(buf, start, end)
        out[5], out[7], out[10] = (hashes + ellipses) / raw, 1.0 - latin / raw, capitals / raw
    if stop_keys.any():
        out[11] = stops / raw if raw else 0.0


@kernel
def _measure_words(words: Words, line: _Line, tables: Tables, out: Array) -> None:
    """Signals of normalised words and their n-grams."""
    count = line.num_words
    total = words.characters[count]
    out[2], out[14:23] = count, 0.0
    out[12] = line.matches / (total + line.num_spaced - 1) if line.matches else 0.0
    if count == 0:
        return
    out[3] = total / count
    out[8] = count_values(words.hashes, count, tables) / count
    entropy = 0.0
    for i in range(count):
        slot = tables.values[i]
        if tables.firsts[slot] == i:
            share = tables.counts[slot] / count
            entropy -= share * math.log(share)
    out[9] = entropy
    found = repeated_pairs(words.hashes, count, tables) if count > 1 else 0
    for n in range(2, 11):
        if n > 2:
            found = narrow_places(tables, found)
        if n < 5:
            first, times = top_tuple(words.hashes, n, tables, found)
            if times > 1:
                out[n + 12] = (words.characters[first + n] - words.characters[first]) * times / total
        else:
            out[n + 12] = repeated_tuples(words.hashes, n, tables, found, words.characters) / total


@kernel
def _measure_redpajama(
    buf: Array,
    offsets: Array,
    present: Array,
    unicode: Unicode,
    joined: Array,
    stop_keys: Array,
    javascript: np.uint64,
    out: Array,
) -> None:
    longest = longest_text(offsets, present)
    words, tables = Words(np.empty(longest + 2, np.uint64), np.empty(longest + 2, np.int32)), new_tables(longest + 1)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            out[row, 0], out[row, 1] = count_characters(buf, start, end), 1
            for i in range(start, end):
                out[row, 1] += buf[i] == 10
            line = _measure_lines(buf, start, end, unicode, joined, words, javascript, out[row])
            _measure_raw(buf, start, end, unicode.bits, joined, stop_keys, out[row])
            _measure_words(words, line, tables, out[row])


def _folded_hash(word: str) -> np.uint64:
    value = 0
    for char in word:
        value = (value * HASH_BASE + ord(char) + 1) % 2**64
    return np.uint64(value)


def measure_redpajama(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All signals of this family; means over no words or lines are undefined."""
    out = np.full((len(texts.present), len(_MEASURED)), np.nan)
    unicode = Unicode(property_table(), *folded_tables())
    stop_keys = word_keys(STOP_WORDS.get(language, ()))
    _measure_redpajama(
        texts.content, texts.offsets, texts.present, unicode, texts.joined, stop_keys, _folded_hash("javascript"), out
    )
    rounded = np.round(out, 8)
    columns = {signal.name: rounded[:, k] for k, signal in enumerate(_MEASURED)}
    originals = {f"ccnet_original_{part}": columns[f"ccnet_{part}"] for part in ("length", "nlines")}
    return columns | originals


REDPAJAMA = Family("redpajama", SIGNALS, measure_redpajama)
