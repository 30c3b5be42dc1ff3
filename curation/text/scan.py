"""One pass over a document's segments that leaves arrays behind, for whatever counts words or n-grams."""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from curation.kernels import kernel
from curation.text.dictionary import Dictionary, joined_letters
from curation.text.properties import CHARACTER, CONNECTOR, EXTEND, LETTER, SEPARATOR, SYMBOL, WORD_CLASS, property_table
from curation.text.segment import HASH_BASE, WORD, Array, decode, frozen, joins

NUM_POWERS = 1024


class Segments(NamedTuple):
    """Arrays of one document's segments: scratch, filled up to the number that `scan_segments` returns.

    hashes: uint64, polynomial of a segment's bytes.
    prefixes: uint64, one longer: polynomial of all bytes before a segment, those in no segment left out; so
        `joined_hash` is the hash of any segments joined by nothing.
    ends: int32, one longer: bytes before a segment, counted likewise.
    characters: int32, one longer: code points before a segment, counted likewise.
    bits: uint32, the or-ed properties of a segment.
    joined: uint8: the bytes of all segments, 64 zero bytes behind them.
    powers: uint64 (NUM_POWERS,): HASH_BASE ** k.
    """

    hashes: Array
    prefixes: Array
    ends: Array
    characters: Array
    bits: Array
    joined: Array
    powers: Array


@kernel
def new_segments(num_bytes: int) -> Segments:
    """Scratch for texts of at most `num_bytes`; the system maps only as much of it as is used."""
    powers = np.ones(NUM_POWERS, np.uint64)
    for k in range(1, NUM_POWERS):
        powers[k] = powers[k - 1] * np.uint64(HASH_BASE)
    size = num_bytes + 1
    return Segments(
        np.empty(size, np.uint64),
        np.empty(size, np.uint64),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.uint32),
        np.empty(num_bytes + 64, np.uint8),
        powers,
    )


@kernel
def power_of_base(segments: Segments, exponent: int) -> np.uint64:
    """HASH_BASE ** exponent modulo 2**64: shifts the hash of a text by that many bytes."""
    if exponent < NUM_POWERS:
        return segments.powers[exponent]
    result, factor = np.uint64(1), np.uint64(HASH_BASE)
    while exponent:
        if exponent & 1:
            result *= factor
        factor *= factor
        exponent >>= 1
    return result


@kernel
def joined_hash(segments: Segments, first: int, stop: int) -> np.uint64:
    """Hash of segments `first` to `stop - 1` joined by nothing."""
    begin, end = np.uint64(first), np.uint64(stop)  # unsigned: numba makes no code for negative places then
    size = segments.ends[end] - segments.ends[begin]
    power = segments.powers[np.uint64(size)] if size < NUM_POWERS else power_of_base(segments, size)
    return segments.prefixes[end] - segments.prefixes[begin] * power


@kernel
def scan_segments(  # noqa: C901
    buf: Array, start: int, end: int, table: Array, joined: Array, segments: Segments
) -> int:
    """Fill the arrays for the text `buf[start:end]`; returns the number of segments.

    `joined` tells by byte which Han letters go on a word (`curation.text.dictionary`), or is empty: none do.

    One step a character: it stays in the open segment, or it closes that one and opens the next (a separator: none).
    Bytes are hashed and copied as they come: a loop over each segment behind it would cost a misjudged branch apiece.
    """
    count, filled, characters = 0, 0, 0
    prefix, value, bits = np.uint64(0), np.uint64(0), np.uint32(0)
    inside, previous, repeats = False, 0, -1  # in a word: the class before; in a symbol: the character that may repeat
    segments.prefixes[0], segments.ends[0], segments.characters[0] = prefix, 0, 0
    i, after, code_point, kind = start, start, 0, 0
    found = np.uint32(0)
    while True:
        stays = False
        if i < end:
            code_point, after = decode(buf, i)
            found = table[np.uint64(code_point)]
            kind = found & WORD_CLASS
            if inside:
                if kind == EXTEND or code_point == repeats:
                    stays = True
                elif kind == CHARACTER:
                    stays = joined.shape[0] != 0 and joined[i] != 0
                elif previous != 0 and kind != SEPARATOR and kind != SYMBOL:
                    stays = kind <= CONNECTOR or joins(buf, after, end, table, kind, previous)
                    previous = kind
        if not stays:
            if inside:
                place = np.uint64(count)
                segments.hashes[place], segments.bits[place] = value, bits
                size = filled - segments.ends[place]
                power = segments.powers[np.uint64(size)] if size < NUM_POWERS else power_of_base(segments, size)
                prefix = prefix * power + value
                count += 1
                place = np.uint64(count)
                segments.prefixes[place], segments.ends[place], segments.characters[place] = prefix, filled, characters
            if i >= end:
                break
            inside = kind != SEPARATOR
            if not inside:
                i = after
                continue
            value, bits, previous, repeats = np.uint64(0), np.uint32(0), 0, -1
            if kind <= CONNECTOR:
                previous, bits = kind, np.uint32(WORD)
            elif kind == CHARACTER:
                bits = np.uint32(WORD)
            else:
                repeats = code_point
        bits |= found
        characters += 1
        while i < after:
            byte = np.uint64(buf[np.uint64(i)])
            value = value * np.uint64(HASH_BASE) + (byte + np.uint64(1))
            segments.joined[np.uint64(filled)] = byte
            filled, i = filled + 1, i + 1
        if previous != 0:  # quickly over ASCII letters, digits and `_` inside a word
            while i < end:
                byte = np.uint64(buf[np.uint64(i)])
                if byte >= np.uint64(0x80):
                    break
                found = table[byte]
                kind = found & WORD_CLASS
                if kind < LETTER or kind > CONNECTOR:
                    break
                bits |= found
                previous = kind
                value = value * np.uint64(HASH_BASE) + (byte + np.uint64(1))
                segments.joined[np.uint64(filled + (i - after))] = byte
                i += 1
            filled, characters = filled + (i - after), characters + (i - after)
    segments.joined[filled : filled + 64] = 0
    return count


@kernel
def _scan_one(buf: Array, table: Array, joined: Array) -> tuple[int, Segments]:
    segments = new_segments(buf.shape[0])
    return scan_segments(buf, 0, buf.shape[0], table, joined, segments), segments


def segments_of(text: str, dictionary: Dictionary | None = None) -> list[tuple[str, bool]]:
    """Segments of one text with whether each is a word; for tests, examples and other libraries' tokenizer slots."""
    buf = frozen(np.frombuffer(text.encode(), np.uint8))
    marks = joined_letters(buf, frozen(np.array([0, len(buf)])), frozen(np.ones(1, bool)), dictionary)
    count, found = _scan_one(buf, property_table(), marks)
    joined, ends = found.joined.tobytes(), found.ends[: count + 1].tolist()
    return [
        (joined[a:b].decode(), bool(bits & WORD)) for a, b, bits in zip(ends, ends[1:], found.bits[:count].tolist())
    ]


def words(text: str) -> list[str]:
    """Words of one text, without the symbols between them."""
    return [segment for segment, is_word in segments_of(text) if is_word]


@kernel
def longest_text(offsets: Array, present: Array) -> int:
    """Bytes of the longest text that is not null."""
    longest = 0
    for row in range(offsets.shape[0] - 1):
        if present[row]:
            longest = max(longest, offsets[row + 1] - offsets[row])
    return longest
