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

import numpy as np

from curation.kernels import kernel
from curation.signals.gopher import count_symbols, word_keys
from curation.signals.normalised import Normal, Unicode, Words, normalise, unicode_tables
from curation.signals.signal import Columns, Family, Signal, Texts
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
    ALPHA,
    CHARACTER,
    LOWER,
    SPACE,
    UPPER,
    WORD_CLASS,
)
from curation.text.scan import longest_text
from curation.text.segment import HASH_BASE, Array, decode
from curation.text.spans import count_byte, count_characters, ends_with_ellipsis, next_newline, trim_end, trim_start
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
_FEW = 32


@kernel
def _measure_lines(buf: Array, start: int, end: int, table: Array, normal: Normal, out: Array) -> None:
    """Signals of lines."""
    lines, terminal, ellipses, bullets, i = 0, 0, 0, 0, start
    while i < end:
        stop = min(next_newline(buf, i, end) + 1, end)
        a = trim_start(buf, i, stop, table)
        b = trim_end(buf, a, stop, table)
        if a < b:
            bullets += buf[a] == 0xE2 and decode(buf, a)[0] in _BULLET_CODES
            ellipses += ends_with_ellipsis(buf, a, b)
            last = buf[b - 1]
            quote = b - a >= 3 and last == 0x9D and buf[b - 2] == 0x80 and buf[b - 3] == 0xE2
            terminal += last == 46 or last == 33 or last == 63 or quote
        lines += 1
        i = stop
    if lines:
        out[6], out[23], out[25] = ellipses / lines, terminal / lines, normal.num_words / lines
        out[26], out[27], out[28] = normal.numeric / lines, bullets / lines, normal.upper / lines


@kernel
def _measure_raw(  # noqa: C901
    buf: Array, start: int, end: int, bits_of: Array, joined: Array, stop_keys: Array, out: Array
) -> None:
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
        while kind == 1 and i < end:  # quickly over ASCII letters, digits and `_` inside a word: no sentence ends there
            byte = np.uint64(buf[np.uint64(i)])
            found = bits_of[byte]
            if byte >= np.uint64(0x80) or found & ALNUM == 0:
                break
            all_bits |= found
            has_latin |= found & ALPHA != 0
            value = value * np.uint64(HASH_BASE) + (byte + np.uint64(1))
            i += 1
    out[4] = sentences
    out[13] = braces / count_characters(buf, start, end) if end > start else 0.0
    if raw:
        hashes, ellipses = count_symbols(buf, start, end)
        out[5], out[7], out[10] = (hashes + ellipses) / raw, 1.0 - latin / raw, capitals / raw
    if stop_keys.any():
        out[11] = stops / raw if raw else 0.0


@kernel
def _measure_words(
    words: Words, normal: Normal, javascript: np.uint64, tables: Tables, terms: Array, out: Array
) -> None:
    """Signals of normalised words and their n-grams; `terms` is scratch of _FEW numbers."""
    count = normal.num_words
    total = words.characters[count]
    out[2], out[14:23] = count, 0.0
    out[12] = normal.matches / (total + normal.num_spaced - 1) if normal.matches else 0.0
    out[24] = (words.hashes[:count] == javascript).sum()
    if count == 0:
        return
    out[3] = total / count
    distinct = count_values(words.hashes, count, tables)
    out[8] = distinct / count
    few, entropy = min(count, _FEW), 0.0  # most words are rare: their terms are computed once
    for times in range(1, few):
        share = times / count
        terms[times] = share * math.log(share)
    for k in range(distinct):
        times = tables.counts[np.uint64(tables.places[k])]
        share = times / count
        entropy -= terms[times] if times < few else share * math.log(share)
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
    terms = np.empty(_FEW)
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            start, end = offsets[row], offsets[row + 1]
            out[row, 0], out[row, 1] = count_characters(buf, start, end), count_byte(buf, start, end, 10) + 1
            normal = normalise(buf, start, end, unicode, joined, words)
            _measure_lines(buf, start, end, unicode.bits, normal, out[row])
            _measure_raw(buf, start, end, unicode.bits, joined, stop_keys, out[row])
            _measure_words(words, normal, javascript, tables, terms, out[row])


def _folded_hash(word: str) -> np.uint64:
    value = 0
    for char in word:
        value = (value * HASH_BASE + ord(char) + 1) % 2**64
    return np.uint64(value)


def measure_redpajama(texts: Texts, language: str, wanted: frozenset[str], known: Columns) -> Columns:
    """All signals of this family; means over no words or lines are undefined."""
    out = np.full((len(texts.present), len(_MEASURED)), np.nan)
    unicode = unicode_tables()
    stop_keys = word_keys(STOP_WORDS.get(language, ()))
    _measure_redpajama(
        texts.content, texts.offsets, texts.present, unicode, texts.joined, stop_keys, _folded_hash("javascript"), out
    )
    rounded = np.round(out, 8)
    columns = {signal.name: rounded[:, k] for k, signal in enumerate(_MEASURED)}
    originals = {f"ccnet_original_{part}": columns[f"ccnet_{part}"] for part in ("length", "nlines")}
    return columns | originals


REDPAJAMA = Family("redpajama", SIGNALS, measure_redpajama)
