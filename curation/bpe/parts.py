"""Words as parts that no merge reaches across, and a cache of the ids of parts.

A token that spans the border of two characters comes from some merge (a, b) that joined them there: a ends with the one
and b begins with the other. So where no merge of the tokenizer has such ends, a word falls apart into parts that are
merged each by itself, to the same ids. A run of Chinese is rarely seen twice, its parts are; and a document that is one
single word to its tokenizer (Mistral) falls apart into words of its language.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from curation.bpe.classes import NUM_CODE_POINTS
from curation.bpe.merges import SHORT, merge_long, merge_short
from curation.bpe.words import word_end
from curation.kernels import eight_bytes, kernel

BYTES_BEHIND = 32
"""Bytes that text goes on for behind its end."""

MOST_IDS = 3
"""Ids a byte at most: a space that has no token is the three bytes of U+2581."""

LONGEST_CACHED = 32  # bytes of a part
_MOST_CACHED = 7  # ids of a part
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_3 = np.uint64(0x165667B19E3779F9)
_HALF = np.uint64(32)
_WHOLE = np.uint64(0x80)  # beside a length: the ids of a whole word, which `ignore_merges` treats apart
_ONE = np.uint64(1)
# What the ends of a merge are: characters, or pieces of them (byte-level tokens may begin and end inside one).
_FULL, _LEFT_PIECE, _RIGHT_PIECE, _PIECES = (np.int64(kind) for kind in range(4))
_NO_SLOT = np.int64(-1)


class Names(NamedTuple):
    """Words that are tokens whatever the merges say (`ignore_merges`), in an open-addressing table; else all empty.

    Attributes:
        slots: number of the word + 1, 0 in empty slots, int32 (slots,).
        ids: of each word, uint32 (n,).
        ends: of each word in `text`, int64 (n + 1,), from 0 on.
        text: uint8.
        longest: bytes of the longest word.
    """

    slots: np.ndarray
    ids: np.ndarray
    ends: np.ndarray
    text: np.ndarray
    longest: int


class Model(NamedTuple):
    """A BPE model as kernels take it.

    Attributes:
        pairs: see `curation.bpe.merges.pair_table`.
        symbols: int32; byte-level: id of each byte (256,). Else id of each code point, -1: none, and after them the ids
            of the 256 byte tokens, -1: none (0x110000 + 256,).
        joins: bits of the ends of merges, uint8 (2**n,), hashed; a bit set by chance only costs time.
        pieces: whether tokens begin or end inside a character.
        unknown: id of the unknown token, -1: none needed.
        fuse: whether unknown characters next to each other are one token.
        names: see `Names`.
        kinds: table of the pattern's family.
        family: of patterns (`curation.bpe.words`).
        digits: numbers taken together.
    """

    pairs: np.ndarray
    symbols: np.ndarray
    joins: np.ndarray
    pieces: bool
    unknown: int
    fuse: bool
    names: Names
    kinds: np.ndarray
    family: int
    digits: int


def empty_cache(slots: int) -> np.ndarray:
    """A cache of parts, 64 bytes (a line of the processor's cache) each: uint64 (slots, 8).

    Four words of text, then length (bits 0-6), whether it was a whole word (bit 7), number of ids (8-15), and up to
    seven ids of 32 bits. The two slots 2n and 2n + 1 hold the last two parts that hashed there.
    """
    buffer = np.zeros(slots * 8 + 8, np.uint64)
    shift = -buffer.ctypes.data % 64 // 8
    return buffer[shift : shift + slots * 8].reshape(slots, 8)


@kernel
def _word_of(text: Any, place: Any, stop: Any) -> Any:
    """Eight bytes of text at a place; those from `stop` on are zero."""
    left = stop - place
    if left >= 8:
        return eight_bytes(text, place)
    if left <= 0:
        return np.uint64(0)
    return eight_bytes(text, place) & ((_ONE << np.uint64(8 * left)) - _ONE)


@kernel
def _joint(kind: Any, left: Any, right: Any, size: Any) -> Any:
    """Bit of two ends in a table of `size` bits, a power of two."""
    mixed = ((np.uint64(left) << np.uint64(21)) | np.uint64(right) | (np.uint64(kind) << np.uint64(42))) * _MIX
    return np.int64((mixed >> np.uint64(24)) & np.uint64(size - 1))


@kernel
def fill_joins(joins: Any, kinds: Any, left: Any, right: Any) -> Any:
    """Set the bits of ends of merges.

    Args:
        joins: uint8 (n,), a power of two, changed.
        kinds: 0 both ends are characters, 1 the left is a piece, 2 the right, 3 both; int64 (m,).
        left: code point, or last byte of a piece, int64 (m,).
        right: code point, or first byte of a piece, int64 (m,).
    """
    for number in range(len(kinds)):
        bit = _joint(kinds[number], left[number], right[number], 8 * len(joins))
        joins[bit >> 3] |= np.uint8(1 << (bit & 7))


@kernel
def _has(joins: Any, kind: Any, left: Any, right: Any) -> Any:
    bit = _joint(kind, left, right, 8 * len(joins))
    return (joins[bit >> 3] >> np.uint8(bit & 7)) & 1


@kernel
def _joined(text: Any, place: Any, left: Any, right: Any, joins: Any, pieces: Any) -> Any:
    """Whether a merge may reach across the border at a place between two characters."""
    if _has(joins, _FULL, left, right):
        return True
    if not pieces:
        return False
    last, first = np.int64(text[place - 1]), np.int64(text[place])
    return (
        _has(joins, _LEFT_PIECE, last, right)
        or _has(joins, _RIGHT_PIECE, left, first)
        or _has(joins, _PIECES, last, first)
    )


@kernel
def code_point(text: Any, place: Any) -> Any:
    """Code point at a place, and its bytes."""
    first = np.int64(text[place])
    if first < 0x80:
        return first, 1
    second = np.int64(text[place + 1]) & 63
    if first < 0xE0:
        return ((first & 31) << 6) | second, 2
    third = np.int64(text[place + 2]) & 63
    if first < 0xF0:
        return ((first & 15) << 12) | (second << 6) | third, 3
    return ((first & 7) << 18) | (second << 12) | (third << 6) | (np.int64(text[place + 3]) & 63), 4


@kernel
def _symbols(text: Any, place: Any, stop: Any, symbols: Any, unknown: Any, ids: Any) -> Any:
    """Ids that merging begins from, into `ids`; gives their number. An `unknown` of u < -1 is the id -2 - u, fused."""
    number = 0
    if len(symbols) == 256:
        for at in range(place, stop):
            ids[number] = symbols[text[at]]
            number += 1
        return number
    fused = False
    while place < stop:
        code, size = code_point(text, place)
        found = symbols[code]
        if found >= 0:
            ids[number] = found
            number += 1
        elif unknown == -1:
            spelt = 0xE29681 if code == 0x20 else 0  # a space stands for U+2581 here
            for at in range(3 if spelt else size):
                byte = (spelt >> (16 - 8 * at)) & 0xFF if spelt else np.int64(text[place + at])
                ids[number] = symbols[NUM_CODE_POINTS + byte]
                number += 1
        elif unknown >= 0 or not fused:
            ids[number] = unknown if unknown >= 0 else -2 - unknown
            number += 1
        fused = found < 0
        place += size
    return number


@kernel
def _name_slot(text: Any, start: Any, stop: Any, names: Any) -> Any:
    """Slot of a word: where it stands, or an empty one."""
    mixed = np.uint64(stop - start)
    for place in range(start, stop):
        mixed = (mixed ^ np.uint64(text[place])) * _MIX
        mixed ^= mixed >> _HALF
    mask = np.uint64(len(names.slots) - 1)
    slot = mixed & mask
    while names.slots[slot]:
        word = names.slots[slot] - 1
        first = names.ends[word]
        if names.ends[word + 1] - first == stop - start:
            same = True
            for place in range(stop - start):
                if names.text[first + place] != text[start + place]:
                    same = False
                    break
            if same:
                break
        slot = (slot + _ONE) & mask
    return np.int64(slot)


@kernel
def fill_names(names: Any) -> Any:
    """Enter all words into the empty slots."""
    for word in range(len(names.ids)):
        names.slots[_name_slot(names.text, names.ends[word], names.ends[word + 1], names)] = word + 1


@kernel
def _named(text: Any, start: Any, stop: Any, names: Any) -> Any:
    """Id of a whole word that is a token by its name, or -1."""
    if stop - start > names.longest:
        return np.int64(-1)
    word = names.slots[_name_slot(text, start, stop, names)]
    return np.int64(names.ids[word - 1]) if word else np.int64(-1)


@kernel
def _found(text: Any, start: Any, stop: Any, tag: Any, cache: Any, out: Any, filled: Any) -> Any:
    """Put the ids of a part of at most LONGEST_CACHED bytes into `out` where the cache has it.

    Returns:
        Where the ids end, and -1; else `filled`, and the slot that the part belongs into.
    """
    first = _word_of(text, start, stop)
    second = third = fourth = np.uint64(0)
    mixed = (first ^ (tag << np.uint64(57))) * _MIX
    mixed ^= mixed >> _HALF
    if stop - start > 8:
        second = _word_of(text, start + 8, stop)
        mixed = (mixed ^ second) * _MIX_2
        mixed ^= mixed >> _HALF
        if stop - start > 16:
            third = _word_of(text, start + 16, stop)
            fourth = _word_of(text, start + 24, stop)
            mixed = (mixed ^ third ^ (fourth * _MIX_3)) * _MIX
            mixed ^= mixed >> _HALF
    slot = np.int64((mixed * _MIX_2 >> np.uint64(24)) & np.uint64(len(cache) - 1))
    for way in range(2):
        line = slot ^ way
        about = cache[line, 4]
        if (
            about & np.uint64(0xFF) == tag
            and cache[line, 0] == first
            and cache[line, 1] == second
            and cache[line, 2] == third
            and cache[line, 3] == fourth
        ):
            number = np.int64((about >> np.uint64(8)) & np.uint64(0xFF))
            out[filled] = np.uint32(about >> _HALF)
            for at in range(1, number):
                both = cache[line, 4 + ((at + 1) >> 1)]
                out[filled + at] = np.uint32(both if at & 1 else both >> _HALF)
            return filled + number, -1
    return filled, slot


@kernel
def _keep(  # noqa: PLR0913
    text: Any, start: Any, stop: Any, tag: Any, cache: Any, slot: Any, out: Any, filled: Any, number: Any
) -> Any:
    """Put a part with its ids in the first place of its two slots; what was there moves to the second."""
    for at in range(8):
        cache[slot ^ 1, at] = cache[slot, at]
    for at in range(4):
        cache[slot, at] = _word_of(text, start + 8 * at, stop)
    cache[slot, 4] = tag | (np.uint64(number) << np.uint64(8)) | (np.uint64(out[filled]) << _HALF)
    for at in range(1, number, 2):
        both = np.uint64(out[filled + at])
        if at + 1 < number:
            both |= np.uint64(out[filled + at + 1]) << _HALF
        cache[slot, 4 + ((at + 1) >> 1)] = both


@kernel
def _merge_part(  # noqa: PLR0913
    text: Any, start: Any, stop: Any, slot: Any, pairs: Any, symbols: Any, unknown: Any, cache: Any, scratch: Any,
    out: Any, filled: Any,
) -> Any:  # fmt: skip
    """Merge a part, put it into the cache unless `slot` is -1, and give where its ids end in `out`."""
    if stop - start <= SHORT:
        ids = scratch[MOST_IDS * SHORT :].view(np.uint32)
        number = merge_short(ids, _symbols(text, start, stop, symbols, unknown, ids), pairs, scratch)
    else:
        ids = np.empty(MOST_IDS * (stop - start), np.uint32)
        number = merge_long(ids, _symbols(text, start, stop, symbols, unknown, ids), pairs)
    for at in range(number):
        out[filled + at] = ids[at]
    if slot >= 0 and number <= _MOST_CACHED:
        _keep(text, start, stop, np.uint64(stop - start), cache, slot, out, filled, number)
    return filled + number


@kernel
def _put_cut(  # noqa: PLR0913
    text: Any, start: Any, stop: Any, joins: Any, pieces: Any, pairs: Any, symbols: Any, unknown: Any, cache: Any,
    scratch: Any, out: Any, filled: Any,
) -> Any:  # fmt: skip
    """Put the ids of a word into `out`, cut where no merge reaches across."""
    part = start
    left, size = code_point(text, start)
    place = start + size
    while True:
        right = np.int64(0)
        if place < stop:
            right, size = code_point(text, place)
            # unknown characters that become one token stay together
            if _joined(text, place, left, right, joins, pieces) or (
                unknown < -1 and symbols[left] < 0 and symbols[right] < 0
            ):
                left = right
                place += size
                continue
        slot = _NO_SLOT
        if place - part <= LONGEST_CACHED:
            filled, slot = _found(text, part, place, np.uint64(place - part), cache, out, filled)
        if slot >= 0 or place - part > LONGEST_CACHED:
            filled = _merge_part(text, part, place, slot, pairs, symbols, unknown, cache, scratch, out, filled)
        if place >= stop:
            return filled
        part = place
        left = right
        place += size


@kernel
def encode_documents(text: Any, ends: Any, model: Any, cache: Any, out: Any, lengths: Any) -> Any:
    """Ids of documents that stand after each other.

    Args:
        text: valid UTF-8, uint8, with BYTES_BEHIND more bytes behind.
        ends: of each document, int64 (d,).
        model: see `Model`.
        cache: from `empty_cache`, changed; what is in it never changes an id.
        out: uint32, room for MOST_IDS ids a byte, changed.
        lengths: int64 (d,): tokens of each document, changed.

    Returns:
        Number of ids in `out`.
    """
    kinds, family, digits, names = model.kinds, model.family, model.digits, model.names
    joins, pieces, pairs, symbols = model.joins, model.pieces, model.pairs, model.symbols
    named = len(names.ids) > 0
    unknown = np.int64(-2 - model.unknown if model.fuse and model.unknown >= 0 else model.unknown)
    scratch = np.empty(2 * MOST_IDS * SHORT, np.uint64)
    filled, start, slot = np.int64(0), np.int64(0), _NO_SLOT
    for number in range(len(ends)):
        stop = ends[number]
        before = filled
        while start < stop:
            end = word_end(text, start, stop, kinds, family, digits)
            size = end - start
            tag = np.uint64(size) | (_WHOLE if named else np.uint64(0))
            # letters of three bytes and more, behind a space or not: scripts whose words are long or have no end
            long = size > LONGEST_CACHED or (not named and (text[start] >= 0xE0 or text[start + 1] >= 0xE0))
            if not long:
                filled, slot = _found(text, start, end, tag, cache, out, filled)
                if slot < 0:
                    start = end
                    continue
            first = filled
            name = _named(text, start, end, names) if named else np.int64(-1)
            if name >= 0:
                out[filled] = name
                filled += 1
            elif long or named:
                filled = _put_cut(text, start, end, joins, pieces, pairs, symbols, unknown, cache, scratch, out, filled)
            else:
                filled = _merge_part(text, start, end, slot, pairs, symbols, unknown, cache, scratch, out, filled)
            if named and not long and filled - first <= _MOST_CACHED:
                _keep(text, start, end, tag, cache, slot, out, first, filled - first)
            start = end
        lengths[number] = filled - before
    return filled
