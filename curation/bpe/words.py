"""Where a tokenizer's pattern cuts text into words, by hand-written machines over UTF-8.

Each family of patterns has a table of kinds: one byte for each code point, made of `curation.bpe.classes`, so that a
machine asks for one bit where the pattern asks for a set of characters. A machine gets the place a word
begins and gives the place it ends; the alternatives of the pattern stand in it in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.bpe.classes import HAN, LETTER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL, class_table
from curation.kernels import kernel

# Families of patterns.
WHOLE, OWN, GPT2, CL100K, DEEPSEEK = range(5)

# Kinds. One character has several only where a pattern needs it (U+3007 is Han and a number).
# (Typed, or numba would compile each function again for every constant.)
_WORD, _HAN, _NUMBER, _OTHER, _SPACE, _NEWLINE, _MARKED, _CUT = (np.uint8(1 << bit) for bit in range(8))
_NONE = np.uint8(0)
_ANY_SPACE = _SPACE | _NEWLINE
_TO_END = np.int64(1 << 30)  # digits taken together: as many as there are


def kind_table(family: int) -> np.ndarray:
    """Kinds of all code points for a family of patterns, uint8 (0x110000,)."""
    classes = class_table()
    table = np.zeros(len(classes), np.uint8)
    space, number, letter = ((classes & bit) != 0 for bit in (SPACE, NUMBER, LETTER))
    table[space] |= _SPACE
    for newline in b"\r\n":
        table[newline] = _NEWLINE
    table[number] |= _NUMBER
    if family == OWN:
        letters = (classes & (LETTER | MARK)) != 0
        han = (classes & HAN) != 0
        table[letters & ~han] |= _WORD
        table[han] |= _HAN
        table[~(space | letters | number)] |= _OTHER
    elif family == DEEPSEEK:
        table[letter | ((classes & MARK) != 0)] |= _WORD
        table[(classes & (PUNCTUATION | SYMBOL)) != 0] |= _OTHER
        # what may stand before letters: anything but line ends, letters (marks may), punctuation and symbols
        table[(classes & (LETTER | PUNCTUATION | SYMBOL)) == 0] |= _MARKED
        for newline in b"\r\n":
            table[newline] &= ~_MARKED
        table[0x4E00:0x9FA6] |= _HAN
        table[0x3040:0x3100] |= _HAN
        table[number | ((table & _HAN) != 0)] |= _CUT
    else:
        table[letter] |= _WORD
        table[~(space | letter | number)] |= _OTHER
    return table


@kernel
def kind_at(text: Any, place: Any, table: Any) -> Any:
    """Kind of the character at a place, and its bytes."""
    first = text[place]
    if first < 0x80:
        return table[first], 1
    second = np.int64(text[place + 1]) & 63
    if first < 0xE0:
        return table[((np.int64(first) & 31) << 6) | second], 2
    third = np.int64(text[place + 2]) & 63
    if first < 0xF0:
        return table[((np.int64(first) & 15) << 12) | (second << 6) | third], 3
    fourth = np.int64(text[place + 3]) & 63
    return table[((np.int64(first) & 7) << 18) | (second << 12) | (third << 6) | fourth], 4


@kernel
def _run(text: Any, place: Any, stop: Any, table: Any, kinds: Any, other_than: Any) -> Any:
    """End of a run of characters of some kinds, and not of some others."""
    while place < stop:
        kind, size = kind_at(text, place, table)
        if not kind & kinds or kind & other_than:
            break
        place += size
    return place


@kernel
def _digits(text: Any, place: Any, stop: Any, table: Any, most: Any) -> Any:
    """End of a run of at most `most` numbers."""
    while place < stop and most:
        kind, size = kind_at(text, place, table)
        if not kind & _NUMBER:
            break
        place += size
        most -= 1
    return place


@kernel
def _own(  # noqa: PLR0911
    text: Any, place: Any, stop: Any, table: Any, digits: Any
) -> Any:
    """The pattern of `mixing.tokenizer_training.word_pattern`; digits 0: as many as there are, with a space before."""
    kind, size = kind_at(text, place, table)
    after = place + size
    if kind & _WORD:
        return _run(text, after, stop, table, _WORD, _NONE)
    if text[place] == 0x20 and after < stop:
        next_kind, next_size = kind_at(text, after, table)
        if next_kind & _WORD:
            return _run(text, after + next_size, stop, table, _WORD, _NONE)
        if next_kind & _NUMBER and digits == 0:
            return _run(text, after + next_size, stop, table, _NUMBER, _NONE)
        if next_kind & _OTHER:
            return _run(text, after + next_size, stop, table, _OTHER, _NONE)
    if kind & _HAN:
        return _run(text, after, stop, table, _HAN, _NONE)
    if kind & _NUMBER:
        return _digits(text, after, stop, table, digits - 1 if digits else _TO_END)
    if kind & _OTHER:
        return _run(text, after, stop, table, _OTHER, _NONE)
    if kind & _NEWLINE:
        return _run(text, after, stop, table, _NEWLINE, _NONE)
    # spaces but line ends: all but the last of several
    last = place
    while after < stop:
        kind, size = kind_at(text, after, table)
        if not kind & _SPACE:
            break
        last = after
        after += size
    return after if last == place else last


@kernel
def _spaces(text: Any, place: Any, stop: Any, table: Any, cut: Any) -> Any:
    r"""`\s+(?!\S)|\s+`: all spaces before the end, else all but the last of several.

    Characters of the kinds `cut` are ends of the text to it: the pattern sees only what lies between them.
    """
    last = place
    after = place
    while after < stop:
        kind, size = kind_at(text, after, table)
        if not kind & _ANY_SPACE:
            return after if kind & cut or last == place else last
        last = after
        after += size
    return after


@kernel
def _contraction(text: Any, place: Any, stop: Any, lower: Any) -> Any:
    """End of 's, 't, 're, 've, 'm, 'll or 'd at an apostrophe, or 0; `lower` 0x20: in capitals too (U+017F is an s)."""
    if place + 1 >= stop:
        return 0
    first = text[place + 1] | lower
    if first in (0x73, 0x74, 0x6D, 0x64):  # s t m d
        return place + 2
    if lower and text[place + 1] == 0xC5 and text[place + 2] == 0xBF:
        return place + 3
    if place + 2 >= stop:
        return 0
    second = text[place + 2] | lower
    if (second == 0x65 and first in (0x72, 0x76)) or (first == 0x6C and second == 0x6C):
        return place + 3
    return 0


@kernel
def _gpt2(text: Any, place: Any, stop: Any, table: Any, digits: Any) -> Any:
    """The pattern of GPT-2, as ByteLevel has it; with `digits` 1, each number was cut out before."""
    if text[place] == 0x27:
        end = _contraction(text, place, stop, np.int64(0))
        if end:
            return end
    kind, size = kind_at(text, place, table)
    after = place + size
    if digits == 1 and kind & _NUMBER:
        return after
    if text[place] == 0x20 and after < stop:
        next_kind, next_size = kind_at(text, after, table)
        if not next_kind & _ANY_SPACE and not (digits == 1 and next_kind & _NUMBER):
            kind = next_kind
            after += next_size
    if kind & _ANY_SPACE:
        return _spaces(text, place, stop, table, _NUMBER if digits == 1 else _NONE)
    return _run(text, after, stop, table, np.uint8(kind), _ANY_SPACE)


@kernel
def _past_newlines(text: Any, place: Any, stop: Any, table: Any) -> Any:
    r"""`\s*[\r\n]+`: end after the last line end of a run of spaces, or 0."""
    end = 0
    while place < stop:
        kind, size = kind_at(text, place, table)
        if not kind & _ANY_SPACE:
            break
        place += size
        if kind & _NEWLINE:
            end = place
    return end


@kernel
def _cl100k(text: Any, place: Any, stop: Any, table: Any, digits: Any) -> Any:
    """The pattern of cl100k, Llama 3 (three digits together) and Qwen 2 (one by one)."""
    if text[place] == 0x27:
        end = _contraction(text, place, stop, np.int64(0x20))
        if end:
            return end
    kind, size = kind_at(text, place, table)
    after = place + size
    if kind & _WORD:
        return _run(text, after, stop, table, _WORD, _NONE)
    next_kind = _NONE
    next_size = np.int64(0)
    if after < stop:
        next_kind, next_size = kind_at(text, after, table)
    if next_kind & _WORD and not kind & (_NEWLINE | _NUMBER):
        return _run(text, after + next_size, stop, table, _WORD, _NONE)
    if kind & _NUMBER:
        return _digits(text, after, stop, table, digits - 1)
    if kind & _OTHER or (text[place] == 0x20 and next_kind & _OTHER):
        return _run(text, _run(text, after, stop, table, _OTHER, _NONE), stop, table, _NEWLINE, _NONE)
    end = _past_newlines(text, place, stop, table)
    return end if end else _spaces(text, place, stop, table, _NONE)


@kernel
def _deepseek(text: Any, place: Any, stop: Any, table: Any, digits: Any) -> Any:
    """The three patterns of DeepSeek V3 one after the other: numbers, Chinese and kana, then words."""
    kind, size = kind_at(text, place, table)
    if kind & _NUMBER:
        return _digits(text, place, stop, table, digits)
    if kind & _HAN:
        return _run(text, place, stop, table, _HAN, _NUMBER)
    end = _deepseek_word(text, place, stop, table)
    if end:
        return end
    # characters that no alternative takes stand together up to the next match
    end = place + size
    while end < stop:
        kind, size = kind_at(text, end, table)
        if kind & _CUT or _deepseek_word(text, end, stop, table):
            break
        end += size
    return end


@kernel
def _deepseek_word(text: Any, place: Any, stop: Any, table: Any) -> Any:
    """End of a match of DeepSeek's third pattern, or 0; numbers, Chinese and kana are ends of the text to it."""
    first = text[place]
    kind, size = kind_at(text, place, table)
    after = place + size
    next_kind = _NONE
    next_size = np.int64(0)
    if after < stop:
        next_kind, next_size = kind_at(text, after, table)
        if next_kind & _CUT:
            next_kind = _NONE
    if next_kind & _WORD and _ascii_punctuation(first) and _ascii_letter(text[after]):
        end = after
        while end < stop and _ascii_letter(text[end]):
            end += 1
        return end
    if kind & _MARKED and next_kind & _WORD:
        return _run(text, after + next_size, stop, table, _WORD, _CUT)
    if kind & _WORD:
        return _run(text, after, stop, table, _WORD, _CUT)
    if kind & _OTHER or (first == 0x20 and next_kind & _OTHER):
        return _run(text, _run(text, after, stop, table, _OTHER, _CUT), stop, table, _NEWLINE, _NONE)
    if not kind & _ANY_SPACE:
        return 0
    end = _past_newlines(text, place, stop, table)
    return end if end else _spaces(text, place, stop, table, _CUT)


@kernel
def _ascii_letter(byte: Any) -> Any:
    return 0x61 <= (byte | 0x20) <= 0x7A


@kernel
def _ascii_punctuation(byte: Any) -> Any:
    return 0x21 <= byte <= 0x7E and not (0x30 <= byte <= 0x39) and not (0x61 <= (byte | 0x20) <= 0x7A)


@kernel
def word_end(text: Any, place: Any, stop: Any, table: Any, family: Any, digits: Any) -> Any:
    """End of the word that begins at a place.

    Args:
        text: UTF-8, uint8, valid and with some bytes behind `stop`.
        place: where the word begins, in bytes.
        stop: end of the document.
        table: from `kind_table`.
        family: WHOLE (a document is one word), OWN, GPT2, CL100K or DEEPSEEK.
        digits: how many numbers are taken together; 0 means all.
    """
    if family == OWN:
        return _own(text, place, stop, table, digits)
    if family == GPT2:
        return _gpt2(text, place, stop, table, digits)
    if family == CL100K:
        return _cl100k(text, place, stop, table, digits)
    if family == DEEPSEEK:
        return _deepseek(text, place, stop, table, digits)
    return stop


@kernel
def cut_words(text: Any, ends: Any, table: Any, family: Any, digits: Any, sizes: Any) -> Any:
    """Bytes of each word of documents that stand after each other, into `sizes` (int64); gives their number."""
    start, found = np.int64(0), np.int64(0)
    for stop in ends:
        while start < stop:
            end = word_end(text, start, stop, table, family, digits)
            sizes[found] = end - start
            found += 1
            start = end
    return found
