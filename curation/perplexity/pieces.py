# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Text to token ids: SentencePiece pieces, a tokenizer of ours (`tokenizer.json`), or words between whitespace.

All give the same flat shape: ids of all texts one after the other, and where each text's ids begin.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from curation.kernels import kernel
from curation.perplexity.unigram import LONGEST, UnigramEncoder, joined, qualifies

SAMPLE_BYTES = 16 << 20
"""Most text that pieces are learnt from; beyond it, lines are sampled by content."""

_LONGEST_LINE = 1 << 20  # bytes; SentencePiece passes over longer ones without a word
_PART = _LONGEST_LINE // 8  # characters of the parts that a longer line is cut into: at most half as many bytes
_BYTES_PER_PIECE = 128  # a piece should be seen some dozens of times: 65,536 pieces from 8 MiB on
_FEWEST = 256


class PiecesError(ValueError):
    """Pieces that cannot be trained or read."""


@dataclass(frozen=True)
class Encoded:
    """ids: int32 (or uint64 hashes for words) of all texts; offsets: int64 (texts + 1,)."""

    ids: np.ndarray
    offsets: np.ndarray


class SentencePieces:
    """A SentencePiece model: piece ids, and piece strings where a foreign model wants them."""

    def __init__(self, path: Path):
        import sentencepiece

        self.path = path
        try:
            self.processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise PiecesError(f"{path}: not a SentencePiece model ({error})") from error
        self.unknown: int | None = self.processor.unk_id()
        self._kernel = UnigramEncoder(self.processor) if qualifies(path.read_bytes()) else None

    def strings(self) -> list[str]:
        """Piece strings by id."""
        return [self.processor.id_to_piece(i) for i in range(self.processor.get_piece_size())]

    def encode(self, texts: pa.Array) -> Encoded:
        """Ids of all texts (no nulls)."""
        if self._kernel is not None:
            return Encoded(*self._kernel.encode(texts))
        arrays = self.processor.encode(texts.to_pylist(), return_type="numpy", num_threads=1)
        return _flat(arrays, np.int32)

    def sentences(self, texts: pa.Array) -> tuple[list[str], np.ndarray]:
        """Piece strings of each text with spaces between them as SentencePiece gives them, and their number (int64)."""
        short = np.zeros(len(texts), np.bool_)
        if self._kernel is not None:
            short = np.diff(buffers(texts)[1]) <= LONGEST
        if short.all() and self._kernel is not None:
            segments = self._kernel.segments(texts)
            return joined(segments).to_pylist(), np.diff(segments.offsets)
        pieces = self.processor.encode(texts.filter(pa.array(~short)).to_pylist(), return_type=str, num_threads=1)
        strings, counts = [" ".join(line) for line in pieces], np.empty(len(texts), np.int64)
        counts[~short] = [len(line) for line in pieces]
        if short.any():
            shorter, counts[short] = self.sentences(texts.filter(pa.array(short)))
            parts = (iter(strings), iter(shorter))
            strings = [next(parts[is_short]) for is_short in short.tolist()]
        return strings, counts


class TokenizerPieces:
    """A Hugging Face `tokenizer.json`, such as the recipe's own BPE."""

    def __init__(self, path: Path):
        from curation.bpe.encoder import library_of, open_or_reason

        self.path = path
        try:
            self.tokenizer = library_of(path.read_bytes())
            self._own, _ = open_or_reason(self.tokenizer)
        except Exception as error:
            raise PiecesError(f"{path}: not a tokenizer.json ({error})") from error
        self.unknown: int | None = None

    def strings(self) -> list[str]:
        """Token strings by id; ids that are not used are empty."""
        names = [""] * self.tokenizer.get_vocab_size()
        for name, token in self.tokenizer.get_vocab().items():
            names.extend([""] * (token + 1 - len(names)))
            names[token] = name
        return names

    def encode(self, texts: pa.Array) -> Encoded:
        """Ids of all texts (no nulls), whole and without special tokens."""
        from curation.bpe.encoder import encode_texts

        ids, lengths, _ = encode_texts(self._own, self.tokenizer, texts)
        return Encoded(ids.astype(np.int32), np.concatenate(([0], np.cumsum(lengths))))


class WordPieces:
    """Words between ASCII whitespace, as lmplz and KenLM split them; ids are 64-bit hashes."""

    path = None
    unknown: int | None = None

    def encode(self, texts: pa.Array) -> Encoded:
        """Hashes of the words of all texts (no nulls)."""
        ids, offsets, _ = word_hashes(texts)
        return Encoded(ids, offsets)


Pieces = SentencePieces | TokenizerPieces | WordPieces


def load_pieces(path: str | Path) -> Pieces:
    """Open pieces by name: `words`, a `tokenizer.json`, or a SentencePiece model."""
    if str(path) == "words":
        return WordPieces()
    path = Path(path)
    if not path.exists():
        raise PiecesError(f"{path}: no such file; pieces are 'words', a tokenizer.json, or a SentencePiece .model")
    return TokenizerPieces(path) if path.suffix == ".json" else SentencePieces(path)


def _flat(arrays: list[np.ndarray], dtype: type) -> Encoded:
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    ids = np.concatenate(arrays) if arrays else np.empty(0, dtype)
    return Encoded(ids.astype(dtype, copy=False), offsets)


@kernel
def _hash_words(text, offsets, hashes, starts, ends, word_offsets):
    """FNV-1a with a final mix over each word; whitespace is what KenLM's reader takes for it."""
    count = 0
    for row in range(len(offsets) - 1):
        word_offsets[row] = count
        inside = False
        value = np.uint64(0)
        for at in range(offsets[row], offsets[row + 1]):
            byte = text[at]
            if byte == 32 or (9 <= byte <= 13) or byte == 0:
                if inside:
                    ends[count - 1] = at
                    hashes[count - 1] = value
                inside = False
                continue
            if not inside:
                starts[count] = at
                count += 1
                value = np.uint64(14695981039346656037)
                inside = True
            value = (value ^ np.uint64(byte)) * np.uint64(1099511628211)
        if inside:
            ends[count - 1] = offsets[row + 1]
            hashes[count - 1] = value
    word_offsets[len(offsets) - 1] = count
    for i in range(count):
        value = hashes[i]
        value ^= value >> np.uint64(33)
        value *= np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(33)
        hashes[i] = value
    return count


def buffers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 bytes (uint8) and offsets (int64, rows + 1) of a large-string array, without copying."""
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.empty(0, np.uint8)
    return text, offsets


def word_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of all words, offsets of the texts in them, and the words' (start, end) in the text buffer."""
    text, offsets = buffers(texts)
    most = (int(offsets[-1] - offsets[0]) + len(texts) + 1) // 2 + 1
    hashes, spans = np.empty(most, np.uint64), np.empty((2, most), np.int64)
    word_offsets = np.empty(len(texts) + 1, np.int64)
    count = _hash_words(text, offsets, hashes, spans[0], spans[1], word_offsets)
    return hashes[:count], word_offsets, spans[:, :count]


@dataclass
class _Sample:
    """Lines whose key lies below a threshold, which halves while they pass `limit_bytes`; `once`: no copies."""

    limit_bytes: int
    once: bool
    lines: list[tuple[int, str, int]] = field(default_factory=list)  # key, line, bytes
    keys: set[int] = field(default_factory=set)  # of `lines`, where copies are left out
    held: int = 0
    threshold: int = 1 << 64

    def add(self, key: int, line: str, size: int) -> None:
        if key >= self.threshold or (self.once and key in self.keys):
            return
        self.lines.append((key, line, size))
        if self.once:
            self.keys.add(key)
        self.held += size
        while self.held > self.limit_bytes and len(self.lines) > 1:
            self.threshold //= 2
            below = [one for one in self.lines if one[0] < self.threshold]
            # a halving may take all of few lines: one stays, so that there is something to learn from
            self.lines = [min(self.lines)] if self.once and not below else below
            self.keys = {key for key, _, _ in self.lines} if self.once else set()
            self.held = sum(size for _, _, size in self.lines)


def sample_lines(lines: Iterable[pa.Array], limit_bytes: int) -> tuple[list[str], int]:
    """Lines within `limit_bytes` chosen by their content (64-bit hash), in order, and the bytes that were offered.

    The share halves whenever the limit is passed, so one pass and twice the memory of the sample suffice, and the same
    text gives the same sample however it is cut into arrays. A line stands in the sample as often as in the text; where
    copies of one line alone pass the limit, each content stands there once. Lines above a MiB are parts of lines.
    """
    sample, contents = _Sample(limit_bytes, once=False), _Sample(limit_bytes, once=True)
    offered = 0
    for array in lines:
        for whole in array.to_pylist():
            for line in _parts(whole or ""):
                encoded = line.encode()
                offered += len(encoded)
                key = xxhash.xxh3_64_intdigest(encoded)
                sample.add(key, line, len(encoded))
                contents.add(key, line, len(encoded))
    return [line for _, line, _ in (sample.lines or contents.lines)], offered


def _parts(line: str) -> Iterator[str]:
    """A line, cut behind spaces (else between characters) where it is too long for SentencePiece; nothing of none."""
    start = 0
    if 4 * len(line) > _LONGEST_LINE and len(line.encode()) > _LONGEST_LINE:
        while len(line) - start > _PART:
            stop = line.rfind(" ", start, start + _PART) + 1 or start + _PART
            yield line[start:stop]
            start = stop
    if line[start:]:
        yield line[start:]


def train_pieces(
    lines: Iterable[pa.Array], vocabulary: int, path: Path, seed_bytes: int = SAMPLE_BYTES
) -> dict[str, Any]:
    """Train a SentencePiece unigram model, the same bytes for the same lines.

    Args:
        lines: large-string arrays of normalised lines.
        vocabulary: most pieces; small text gets fewer (one per 128 bytes), since rare pieces teach a model nothing.
        path: the `.model` file to write.
        seed_bytes: most text to learn from, held in memory.

    Returns:
        What was done: pieces asked for and made, bytes offered and used.

    Raises:
        PiecesError: no text.
    """
    import sentencepiece

    sample, offered = sample_lines(lines, seed_bytes)
    if not sample:
        raise PiecesError("no text to learn pieces from: all lines are empty")
    used = sum(len(line.encode()) for line in sample)
    characters = len(set().union(*map(set, sample)))
    wanted = min(vocabulary, max(_FEWEST, used // _BYTES_PER_PIECE) + characters)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample),
            model_writer=model,
            model_type="unigram",
            vocab_size=wanted,
            hard_vocab_limit=False,
            seed_sentencepiece_size=min(
                1_000_000, 12 * wanted
            ),  # CCNet's million for 65,536; fewer rounds for small text
            character_coverage=0.9995,  # CCNet's
            num_threads=1,
            shuffle_input_sentence=False,
            max_sentence_length=_LONGEST_LINE,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise PiecesError(f"SentencePiece cannot learn {wanted} pieces from {used} bytes: {error}") from error
    path.write_bytes(model.getvalue())
    made = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    return {"asked": vocabulary, "wanted": wanted, "made": made, "bytes_offered": offered, "bytes_used": used}
