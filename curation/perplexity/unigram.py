# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""SentencePiece's unigram encoding as a kernel over UTF-8 bytes: the same pieces, several times as fast.

A model qualifies when it is a plain unigram model (no bytes, no user-defined symbols) with SentencePiece's default
handling of whitespace; others are left to SentencePiece. Its normaliser (`nmt_nfkc`) is asked once for every
character that is met; a text with a character that composes with its neighbours is normalised by SentencePiece
itself.

Inside, a space stands for SentencePiece's "▁" (one byte instead of three).
Source: SentencePiece's `EncodeOptimized` (Kudo 2018, arXiv:1804.10959), with its order and its roundings to float32.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.kernels import kernel
from curation.perplexity.normalize import code_point

SPACE = "▁"
_UNKNOWN_PENALTY = np.float32(10.0)
LONGEST = 16_384  # bytes; in longer texts SentencePiece's roundings are its own (no difference seen below 24,000)
_LONGEST_WORD = 64  # bytes of words that are remembered
_NODE = np.dtype([("check", "<i4"), ("base", "<i4"), ("piece", "<i4"), ("score", "<f4")])
_NEW, _PLAIN, _HARD, _REPLACED = 0, 1, 2, 3  # classes of characters; from _REPLACED on, the number of a replacement


@dataclass(frozen=True)
class Segments:
    """Pieces of texts.

    ids: int32; offsets: int64 (texts + 1,); text: normalised bytes; starts: where each piece begins in them, int64;
    ends: where each text ends in them, int64 (texts,).
    """

    ids: np.ndarray
    offsets: np.ndarray
    text: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message: ints, or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, message[at : at + size]
        at += size


def qualifies(model: bytes) -> bool:
    """Whether a SentencePiece model file is one that the kernel encodes exactly."""
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    types = set()
    for number, value in _fields(model):
        if number == 1:
            piece = dict(_fields(value))
            types.add(piece.get(3, 1))
            if b" " in piece.get(1, b" ") or not piece[1]:
                return False
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    unigram, byte_fallback, suffix = trainer.get(3, 1) == 1, trainer.get(35, 0), trainer.get(24, 0)
    whitespace = normalizer.get(3, 1) and normalizer.get(4, 1) and normalizer.get(5, 1)
    known = normalizer.get(1) in (b"nmt_nfkc", b"identity")
    # 1 normal, 2 unknown, 3 control; 4 user-defined, 5 unused, 6 byte
    return bool(unigram and not byte_fallback and not suffix and whitespace and known and types <= {1, 2, 3})


@kernel
def _fit(nodes, used, children, first_free):
    """Least base from which all children fall on free places."""
    base = max(first_free - np.int64(children[0]), 1)
    while True:
        fits = True
        for byte in children:
            if used[base + byte]:
                fits = False
                break
        if fits:
            return base
        base += 1


@kernel
def _build(pool, places, pieces, scores, nodes, used):
    """Fill a double-array trie from sorted, distinct byte strings; returns the number of places used, or -1 if full.

    Worked breadth-first: a queue of (place, first string, last string, depth).
    """
    count = len(pieces)
    queue = np.empty((len(pool) + 2, 4), np.int64)
    queue[0] = np.array([0, 0, count, 0])
    head, tail = 0, 1
    used[0] = True
    highest = 1
    first_free = 1
    children = np.empty(256, np.int64)
    firsts = np.empty(257, np.int64)
    while head < tail:
        place, first, last, depth = queue[head]
        head += 1
        if places[first] + depth == places[first + 1]:
            nodes[place].piece = pieces[first]
            nodes[place].score = scores[first]
            first += 1
        number = 0
        for at in range(first, last):
            byte = pool[places[at] + depth]
            if number == 0 or children[number - 1] != byte:
                children[number] = byte
                firsts[number] = at
                number += 1
        firsts[number] = last
        if number == 0:
            continue
        while used[first_free]:
            first_free += 1
        base = _fit(nodes, used, children[:number], first_free)
        if base + 512 >= len(nodes):
            return -1
        nodes[place].base = base
        for i in range(number):
            child = base + children[i]
            used[child] = True
            nodes[child].check = place
            queue[tail, 0], queue[tail, 1], queue[tail, 2], queue[tail, 3] = child, firsts[i], firsts[i + 1], depth + 1
            tail += 1
            highest = max(highest, child + 1)
    return highest + 256


@kernel
def _normalize(  # noqa: C901, PLR0913
    text, offsets, classes, pool, places, out, ends, hard, unseen
):
    """Write each text as SentencePiece normalises it: spaces collapsed and stripped, one put in front.

    classes: class of each character. A text with a hard character is left empty and marked; characters without a
    class are collected in `unseen` (its length in unseen[0]), and the caller asks for them and comes again.
    """
    written = 0
    for row in range(len(offsets) - 1):
        begin = written
        after_space = True
        out[written] = 32
        written += 1
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            byte = text[at]
            if byte < 0x80:
                code, size = np.uint32(byte), 1
            else:
                code, size = code_point(text, at)
            kind = classes[code]
            if kind == _PLAIN:
                if byte == 32:
                    if not after_space:
                        out[written] = 32
                        written += 1
                    after_space = True
                else:
                    for i in range(at, at + size):
                        out[written] = text[i]
                        written += 1
                    after_space = False
            elif kind >= _REPLACED:
                for i in range(places[kind - _REPLACED], places[kind - _REPLACED + 1]):
                    if pool[i] != 32 or not after_space:
                        out[written] = pool[i]
                        written += 1
                    after_space = pool[i] == 32
            elif kind == _HARD:
                hard[row] = True
            else:
                hard[row] = True
                if unseen[0] + 1 < len(unseen):
                    unseen[0] += 1
                    unseen[unseen[0]] = code
                    classes[code] = _HARD
            at += size
        while written > begin and out[written - 1] == 32:
            written -= 1
        if hard[row]:
            written = begin
        ends[row] = written
    return written


@kernel
def _encode(  # noqa: PLR0913
    text, begin, end, nodes, unknown, unknown_score, best, froms, found, ids, starts, written
):
    """Append the pieces of text[begin:end]; consecutive unknown characters are one piece. Returns the number of pieces.

    best, froms, found: working space, score of the best way to each place, where its last piece begins, and which it
    is.
    """
    size = end - begin
    froms[: size + 1] = -1
    best[0] = 0.0
    at = 0
    while at < size:
        lead = text[begin + at]
        width = 1 if lead < 0xC0 else (2 if lead < 0xE0 else (3 if lead < 0xF0 else 4))
        till_here = best[at]
        single = False
        place = np.int64(0)
        to = at
        while to < size:
            child = np.int64(nodes[place].base) + text[begin + to]
            if nodes[child].check != place:
                break
            place = child
            to += 1
            piece = nodes[place].piece
            if piece >= 0:
                score = nodes[place].score + till_here
                if froms[to] < 0 or score > best[to]:
                    best[to] = score
                    froms[to] = at
                    found[to] = piece
                if to - at == width:
                    single = True
        if not single:
            to = at + width
            guess = unknown_score + till_here
            if froms[to] < 0 or guess > best[to]:
                best[to] = guess
                froms[to] = at
                found[to] = unknown
        at += width
    # walk back, then turn the pieces round
    first = written
    to = size
    while to > 0:
        piece = found[to]
        if piece == unknown and written > first and ids[written - 1] == unknown:
            starts[written - 1] = begin + froms[to]
        else:
            ids[written] = piece
            starts[written] = begin + froms[to]
            written += 1
        to = froms[to]
    low, high = first, written - 1
    while low < high:
        ids[low], ids[high] = ids[high], ids[low]
        starts[low], starts[high] = starts[high], starts[low]
        low += 1
        high -= 1
    return written


@kernel
def _encode_all(text, ends, nodes, unknown, unknown_score, ids, starts, offsets):
    """Encode texts that lie one after the other; returns the number of pieces."""
    longest = 0
    begin = 0
    for row in range(len(ends)):
        longest = max(longest, ends[row] - begin)
        begin = ends[row]
    best = np.empty(longest + 1, np.float32)
    froms, found = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    written = 0
    begin = 0
    for row in range(len(ends)):
        offsets[row] = written
        if ends[row] > begin:
            written = _encode(
                text, begin, ends[row], nodes, unknown, unknown_score, best, froms, found, ids, starts, written
            )
        begin = ends[row]
    offsets[len(ends)] = written
    return written


@kernel
def _encode_words(text, ends, nodes, unknown, unknown_score, ids, starts, offsets):
    """Encode texts word by word (pieces never cross a space); a word met before in these texts is looked up.

    table: place, length, first piece and number of pieces of the word that last had a hash.
    """
    table = np.full((1 << 16, 4), -1, np.int64)
    best = np.empty(1 << 10, np.float32)
    froms, found = np.empty(1 << 10, np.int32), np.empty(1 << 10, np.int32)
    written = 0
    at = 0
    for row in range(len(ends)):
        offsets[row] = written
        while at < ends[row]:
            begin = at
            value = np.uint64(14695981039346656037)
            while True:
                value = (value ^ np.uint64(text[at])) * np.uint64(1099511628211)
                at += 1
                if at == ends[row] or text[at] == 32:
                    break
            entry = np.int64((value >> np.uint64(40)) & np.uint64(0xFFFF))
            same = table[entry, 1] == at - begin
            place = table[entry, 0]
            i = 0
            while same and i < at - begin:
                same = text[place + i] == text[begin + i]
                i += 1
            if same:
                first = table[entry, 2]
                for i in range(first, first + table[entry, 3]):
                    ids[written] = ids[i]
                    written += 1
                continue
            if at - begin >= len(best):
                best = np.empty(2 * (at - begin), np.float32)
                froms, found = np.empty(len(best), np.int32), np.empty(len(best), np.int32)
            after = _encode(text, begin, at, nodes, unknown, unknown_score, best, froms, found, ids, starts, written)
            if at - begin <= _LONGEST_WORD:
                table[entry, 0], table[entry, 1] = begin, at - begin
                table[entry, 2], table[entry, 3] = written, after - written
            written = after
    offsets[len(ends)] = written
    return written


@kernel
def _join(text, starts, offsets, ends, out, out_offsets):
    """Write each text's pieces with spaces between them, and "▁" for the spaces inside them."""
    written = 0
    begin = 0
    for row in range(len(ends)):
        out_offsets[row] = written
        piece = offsets[row]
        for at in range(begin, ends[row]):
            if piece < offsets[row + 1] and starts[piece] == at:
                if at > begin:
                    out[written] = 32
                    written += 1
                piece += 1
            if text[at] == 32:
                out[written], out[written + 1], out[written + 2] = 0xE2, 0x96, 0x81
                written += 3
            else:
                out[written] = text[at]
                written += 1
        begin = ends[row]
    out_offsets[len(ends)] = written
    return written


@functools.cache
def _composing() -> frozenset[str]:
    """Characters that may compose with the one before them: marks, and what follows the first in a decomposition."""
    second = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(0x30000):
        decomposed = unicodedata.decomposition(chr(code))
        if decomposed and not decomposed.startswith("<"):
            second.update(unicodedata.normalize("NFD", chr(code))[1:])
    return frozenset(second)


def _is_composing(character: str) -> bool:
    first = unicodedata.normalize("NFKD", character)[:1]
    return any(unicodedata.combining(c) or c in _composing() for c in (character, first) if c)


class UnigramEncoder:
    """Encodes texts with a qualifying SentencePiece model; not for several threads, as it learns characters."""

    def __init__(self, processor: Any):
        self._processor = processor
        self._nodes = _trie(processor)
        self.unknown = int(processor.unk_id())
        scores = [processor.get_score(i) for i in _normal(processor)]
        self._unknown_score = np.float32(np.float32(min(scores, default=0.0)) - _UNKNOWN_PENALTY)
        self._classes = np.zeros(0x110000, np.uint16)
        self._pool = bytearray()
        self._places = [0]

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Piece ids (int32) of all texts (large strings without nulls), and where each text's begin (int64).

        Each word is split on its own: SentencePiece's answer but for ties, which it decides by what rounding its
        running sum has gathered by then.
        """
        values, offsets = _buffers(texts)
        text, ends = self._normalized(texts, values, offsets)
        ids, starts = np.empty(len(text), np.int32), np.empty(len(text), np.int64)
        piece_offsets = np.empty(len(texts) + 1, np.int64)
        count = _encode_words(text, ends, self._nodes, self.unknown, self._unknown_score, ids, starts, piece_offsets)
        return ids[:count], piece_offsets

    def segments(self, texts: pa.Array) -> Segments:
        """Pieces of all texts (large strings without nulls), exactly SentencePiece's up to `LONGEST` bytes a text."""
        values, offsets = _buffers(texts)
        text, ends = self._normalized(texts, values, offsets)
        ids, starts = np.empty(len(text), np.int32), np.empty(len(text), np.int64)
        piece_offsets = np.empty(len(texts) + 1, np.int64)
        count = _encode_all(text, ends, self._nodes, self.unknown, self._unknown_score, ids, starts, piece_offsets)
        return Segments(ids[:count], piece_offsets, text, starts[:count], ends)

    def _normalized(self, texts: pa.Array, values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # 3: characters with a longer replacement (U+FDFA becomes 33 bytes) are left to SentencePiece
        out = np.empty(3 * int(offsets[-1] - offsets[0]) + len(texts) + 16, np.uint8)
        ends, unseen = np.empty(len(texts), np.int64), np.zeros(4096, np.int64)
        while True:
            hard = np.zeros(len(texts), np.bool_)
            unseen[0] = 0
            pool = np.frombuffer(bytes(self._pool), np.uint8)
            places = np.array(self._places, np.int64)
            written = _normalize(values, offsets, self._classes, pool, places, out, ends, hard, unseen)
            if unseen[0] == 0:
                break
            self._learn([int(code) for code in unseen[1 : unseen[0] + 1]])
        if hard.any():
            return self._with_hard_texts(texts, out, ends, hard)
        return out[:written], ends

    def _learn(self, codes: list[int]) -> None:
        """Ask SentencePiece what it makes of characters, each alone between two letters."""
        made = self._processor.normalize([f"x{chr(code)}x" for code in codes])
        for code, text in zip(codes, made, strict=True):
            character, inner = chr(code), text[len(SPACE) + 1 : -1].replace(SPACE, " ")
            replacement = inner.encode()
            if _is_composing(character) or character == SPACE or len(replacement) > 3 * len(character.encode()):
                self._classes[code] = _HARD
            elif inner == character:
                self._classes[code] = _PLAIN
            else:
                self._classes[code] = _REPLACED + len(self._places) - 1
                self._pool += replacement
                self._places.append(len(self._pool))

    def _with_hard_texts(
        self, texts: pa.Array, out: np.ndarray, ends: np.ndarray, hard: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put the texts that SentencePiece normalised between the others."""
        rows = np.flatnonzero(hard)
        made = self._processor.normalize(texts.take(pa.array(rows)).to_pylist())
        parts, sizes, done = [], np.diff(ends, prepend=0), 0
        for row, text in zip(rows.tolist(), made, strict=True):
            encoded = np.frombuffer(text.replace(SPACE, " ").encode(), np.uint8)
            parts += [out[done : ends[row]], encoded]
            sizes[row], done = len(encoded), int(ends[row])
        parts.append(out[done : ends[-1]])
        return np.concatenate(parts), np.cumsum(sizes)


def joined(segments: Segments) -> pa.Array:
    """The pieces of each text with spaces between them, as `" ".join(encode_as_pieces(text))` gives them."""
    out = np.empty(3 * len(segments.text) + len(segments.ids) + 1, np.uint8)
    offsets = np.empty(len(segments.offsets), np.int64)
    _join(segments.text, segments.starts, segments.offsets, segments.ends, out, offsets)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(out))


def _normal(processor: Any) -> list[int]:
    return [i for i in range(processor.get_piece_size()) if not processor.is_control(i) and not processor.is_unknown(i)]


def _trie(processor: Any) -> np.ndarray:
    named = sorted((processor.id_to_piece(i).replace(SPACE, " ").encode(), i) for i in _normal(processor))
    pool = np.frombuffer(b"".join(name for name, _ in named), np.uint8)
    places = np.concatenate(([0], np.cumsum([len(name) for name, _ in named]))).astype(np.int64)
    pieces = np.array([i for _, i in named], np.int32)
    scores = np.array([processor.get_score(int(i)) for i in pieces], np.float32)
    size = 4 * len(pool) + 4096
    while True:
        nodes = np.zeros(size, _NODE)
        nodes["check"], nodes["piece"] = -1, -1
        used = _build(pool, places, pieces, scores, nodes, np.zeros(size, np.bool_)) if len(pieces) else 512
        if used > 0:
            return nodes[:used].copy()
        size *= 2


def _buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return (np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.empty(0, np.uint8)), offsets
