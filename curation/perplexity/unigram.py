# mypy: disable-error-code="no-untyped-call"
"""SentencePiece's unigram encoding as a kernel over UTF-8 bytes: the same pieces, several times as fast.

A model qualifies when it is a plain unigram model (no bytes, no user-defined symbols) with SentencePiece's default
handling of whitespace; others are left to SentencePiece. Its normaliser (`nmt_nfkc`) is asked once for every
character that is met; a text with a character that composes with its neighbours is normalised by SentencePiece
itself.

Inside, a space stands for SentencePiece's "▁" (one byte instead of three).
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.perplexity.viterbi import (
    HARD,
    NODE,
    PLAIN,
    REPLACED,
    build_trie,
    encode_texts,
    encode_words,
    join,
    normalize,
)

SPACE = "▁"
_WORDS = 1 << 17  # words remembered, 64 bytes each
_UNKNOWN_PENALTY = np.float32(10.0)
LONGEST = 16_384  # bytes; in longer texts SentencePiece's roundings are its own (no difference seen below 24,000)


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
        self.forget()

    def forget(self) -> None:
        """Forget the words met so far; their splits are looked up rather than searched again."""
        self._memory = np.zeros((_WORDS, 16), np.uint32)

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Piece ids (int32) of all texts (large strings without nulls), and where each text's begin (int64).

        Each word is split on its own: SentencePiece's answer but for ties, which it decides by what rounding its
        running sum has gathered by then.
        """
        values, offsets = _buffers(texts)
        text, ends = self._normalized(texts, values, offsets)
        ids, starts = np.empty(len(text), np.int32), np.empty(len(text), np.int64)
        piece_offsets = np.empty(len(texts) + 1, np.int64)
        count = encode_words(
            text, ends, self._nodes, self.unknown, self._unknown_score, self._memory, ids, starts, piece_offsets
        )
        return ids[:count], piece_offsets

    def segments(self, texts: pa.Array) -> Segments:
        """Pieces of all texts (large strings without nulls), exactly SentencePiece's up to `LONGEST` bytes a text."""
        values, offsets = _buffers(texts)
        text, ends = self._normalized(texts, values, offsets)
        ids, starts = np.empty(len(text), np.int32), np.empty(len(text), np.int64)
        piece_offsets = np.empty(len(texts) + 1, np.int64)
        count = encode_texts(text, ends, self._nodes, self.unknown, self._unknown_score, ids, starts, piece_offsets)
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
            written = normalize(values, offsets, self._classes, pool, places, out, ends, hard, unseen)
            if unseen[0] == 0:
                break
            self._learn([int(code) for code in unseen[1 : unseen[0] + 1]])
        if hard.any():
            return self._with_hard_texts(texts, out, ends, hard)
        out[written : written + 8] = 32  # what `encode_words` reads beyond the last text
        return out[:written], ends

    def _learn(self, codes: list[int]) -> None:
        """Ask SentencePiece what it makes of characters, each alone between two letters."""
        made = self._processor.normalize([f"x{chr(code)}x" for code in codes])
        for code, text in zip(codes, made, strict=True):
            character, inner = chr(code), text[len(SPACE) + 1 : -1].replace(SPACE, " ")
            replacement = inner.encode()
            if _is_composing(character) or character == SPACE or len(replacement) > 3 * len(character.encode()):
                self._classes[code] = HARD
            elif inner == character:
                self._classes[code] = PLAIN
            else:
                self._classes[code] = REPLACED + len(self._places) - 1
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
        parts += [out[done : ends[-1]], np.full(8, 32, np.uint8)]
        return np.concatenate(parts)[:-8], np.cumsum(sizes)


def joined(segments: Segments) -> pa.Array:
    """The pieces of each text with spaces between them, as `" ".join(encode_as_pieces(text))` gives them."""
    out = np.empty(3 * len(segments.text) + len(segments.ids) + 1, np.uint8)
    offsets = np.empty(len(segments.offsets), np.int64)
    join(segments.text, segments.starts, segments.offsets, segments.ends, out, offsets)
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
        nodes = np.zeros(size, NODE)
        nodes["check"], nodes["piece"] = -1, -1
        used = build_trie(pool, places, pieces, scores, nodes, np.zeros(size, np.bool_)) if len(pieces) else 512
        if used > 0:
            return nodes[:used].copy()
        size *= 2


def _buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return (np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.empty(0, np.uint8)), offsets
