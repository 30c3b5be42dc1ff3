# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""From documents to a model folder in one call: normalise, learn pieces, estimate."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.kernels import kernel
from curation.perplexity import arpa, kneser_ney, model
from curation.perplexity.estimate import EstimationError
from curation.perplexity.ngrams import BEGIN, END
from curation.perplexity.normalize import document_lines
from curation.perplexity.pieces import (
    Pieces,
    SentencePieces,
    TokenizerPieces,
    WordPieces,
    buffers,
    load_pieces,
    train_pieces,
    word_hashes,
)

SPECIAL = ("<unk>", "<s>", "</s>")
_LINES_AT_ONCE = 1 << 14


@kernel
def _frame_pieces(ids, offsets, numbers, seen, unknown, out):
    """Write sentences as BEGIN … END in model tokens, numbered as they first appear; unknown pieces are left out.

    numbers: token of each piece (0 while unseen); seen: piece of each token so far, with its length in seen[0].
    """
    written = 0
    for line in range(len(offsets) - 1):
        out[written] = BEGIN
        written += 1
        for at in range(offsets[line], offsets[line + 1]):
            piece = ids[at]
            if piece == unknown:
                continue
            if numbers[piece] == 0:
                numbers[piece] = seen[0]
                seen[seen[0]] = piece
                seen[0] += 1
            out[written] = numbers[piece]
            written += 1
        out[written] = END
        written += 1
    return written


class PieceStream:
    """Turns lines into sentences of model tokens, and remembers which piece became which token."""

    def __init__(self, pieces: SentencePieces | TokenizerPieces):
        self.pieces, self.names = pieces, pieces.strings()
        self._numbers = np.zeros(len(self.names), np.uint32)
        self._seen = np.zeros(len(self.names) + 3, np.int64)
        self._seen[0] = 3
        self.vocabulary: list[str] = list(SPECIAL)

    @property
    def finder(self) -> np.ndarray:
        """Token of each piece, uint32; 0 for pieces that were not seen."""
        return self._numbers

    def sentences(self, lines: pa.Array) -> np.ndarray:
        """Sentences of the lines, uint32."""
        encoded = self.pieces.encode(lines)
        out = np.empty(len(encoded.ids) + 2 * len(lines), np.uint32)
        unknown = -1 if self.pieces.unknown is None else self.pieces.unknown
        written = _frame_pieces(encoded.ids, encoded.offsets, self._numbers, self._seen, unknown, out)
        self.vocabulary += [self.names[i] for i in self._seen[len(self.vocabulary) : self._seen[0]]]
        return out[:written]


@kernel
def _insert(keys, values, key, value):
    """Place of `key` in an open-addressing table (0 is empty), put in with `value` where it is new."""
    mask = np.uint64(len(keys) - 1)
    at = key & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + np.uint64(1)) & mask
    if keys[at] == 0:
        keys[at] = key
        values[at] = value
    return at


@kernel
def _frame_words(hashes, offsets, keys, values, next_token, first_seen, out):
    """Write sentences as BEGIN … END in model tokens, numbered as they first appear; special words are left out."""
    written = 0
    new = 0
    for line in range(len(offsets) - 1):
        out[written] = BEGIN
        written += 1
        for at in range(offsets[line], offsets[line + 1]):
            token = values[_insert(keys, values, hashes[at], next_token + new)]
            if token == next_token + new:
                first_seen[new] = at
                new += 1
            if token > END:
                out[written] = token
                written += 1
        out[written] = END
        written += 1
    return written, new


@kernel
def _rehash(keys, values, new_keys, new_values):
    for at in range(len(keys)):
        if keys[at] != 0:
            _insert(new_keys, new_values, keys[at], values[at])


class WordStream:
    """Turns lines into sentences of model tokens, one per distinct word; a 64-bit hash is the word, as in KenLM."""

    def __init__(self) -> None:
        self._keys, self._values = np.zeros(1 << 16, np.uint64), np.zeros(1 << 16, np.int64)
        self.vocabulary: list[str] = []
        hashes = word_hashes(pa.array([" ".join(SPECIAL)], pa.large_string()))[0]
        for token, key in enumerate(hashes.tolist()):
            _insert(self._keys, self._values, np.uint64(key), token)
            self.vocabulary.append(SPECIAL[token])

    @property
    def finder(self) -> np.ndarray:
        """Known words for scoring, sorted by hash: hash uint64, token uint32."""
        used = np.flatnonzero(self._keys)
        used = used[np.argsort(self._keys[used], kind="stable")]
        finder = np.empty(len(used), np.dtype([("hash", "<u8"), ("token", "<u4")]))
        finder["hash"], finder["token"] = self._keys[used], self._values[used]
        return finder

    def sentences(self, lines: pa.Array) -> np.ndarray:
        """Sentences of the lines, uint32."""
        hashes, offsets, spans = word_hashes(lines)
        size = len(self._keys)
        while size < 2 * (len(self.vocabulary) + len(hashes)):
            size *= 2
        if size > len(self._keys):
            keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
            _rehash(self._keys, self._values, keys, values)
            self._keys, self._values = keys, values
        out = np.empty(len(hashes) + 2 * len(lines), np.uint32)
        first_seen = np.empty(len(hashes), np.int64)
        written, new = _frame_words(hashes, offsets, self._keys, self._values, len(self.vocabulary), first_seen, out)
        text = buffers(lines)[0]
        for at in first_seen[:new].tolist():
            self.vocabulary.append(bytes(text[spans[0, at] : spans[1, at]]).decode("utf-8", "replace"))
        return out[:written]


def token_stream(pieces: Pieces) -> PieceStream | WordStream:
    """The stream that numbers what `pieces` give."""
    return WordStream() if isinstance(pieces, WordPieces) else PieceStream(pieces)


@dataclass(frozen=True)
class Training:
    """What to train.

    order, prune, fallback: as in `kneser_ney.Options`; scoring: `ccnet` (documents are sentences) or `lines`, the
    same as the scorer's; pieces: a number (a SentencePiece unigram of at most so many is trained), a path, or
    `words`; estimator: own | lmplz; arpa: also write `model.arpa`; memory: bytes; language, source, licence: written
    on the card.
    """

    order: int = 5
    prune: tuple[int, ...] = ()
    fallback: bool = True
    scoring: str = "lines"
    pieces: int | str = 65_536
    estimator: str = "own"
    arpa: bool = False
    memory: int = 2 << 30
    language: str = ""
    source: str = ""
    licence: str = ""


def train_model(text: Iterable[pa.Array], options: Training, folder: Path) -> dict[str, Any]:
    """Train a language model on documents, in one pass over them.

    Memory: one array of documents, the sample that pieces are learnt from, and `memory` for the estimate; normalised
    lines are kept in a file of `folder` between the two steps.

    Args:
        text: arrays of documents (large strings, nulls are passed over), in a fixed order.
        options: what to train.
        folder: where to write the model, its pieces and `model.json`.

    Returns:
        The card: sizes, discounts, counts and hash of the training text, pieces, licence.

    Raises:
        EstimationError, PiecesError: no text, or options that do not fit.
    """
    if options.estimator not in ("own", "lmplz"):
        raise EstimationError(f"estimator {options.estimator!r}: own or lmplz")
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / "lines.arrow"
    try:
        seen = _spool_lines(text, options.scoring, spool)
        if not seen["lines"]:
            raise EstimationError(
                f"{seen['documents']} documents to train on, none with text; check the source and its filters"
            )
        pieces, made = _pieces(options, folder, spool)
        about = {
            "training_text": seen,
            "pieces": made,
            "scoring": options.scoring,
            "estimator": options.estimator,
            "language": options.language,
            "source": options.source,
            "licence": options.licence,
        }
        if options.estimator == "lmplz":
            return _train_lmplz(pieces, options, folder, spool, about)
        stream = token_stream(pieces)
        estimation = kneser_ney.Options(options.order, options.prune, options.fallback, options.memory)
        sentences = (stream.sentences(lines) for lines in _read_lines(spool))
        card = kneser_ney.train(sentences, stream, estimation, folder, about)
        if options.arpa:
            arpa.export_arpa(folder, folder / "model.arpa")
        return card
    finally:
        spool.unlink(missing_ok=True)


def _spool_lines(text: Iterable[pa.Array], scoring: str, path: Path) -> dict[str, Any]:
    """Write the normalised lines of all documents to a file; returns counts and a hash of the lines."""
    documents = lines = size = 0
    digest = xxhash.xxh3_128()
    schema = pa.schema([("line", pa.large_string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for array in text:
            made = document_lines(array, scoring).lines
            made = made.filter(pc.greater(pc.binary_length(made), 0))
            documents += len(array) - array.null_count
            lines += len(made)
            values, offsets = buffers(made)
            size += int(offsets[-1] - offsets[0])
            digest.update(values[offsets[0] : offsets[-1]].data)
            writer.write_batch(pa.record_batch([made], schema=schema))
    return {"documents": documents, "lines": lines, "bytes": size, "xxh3_128": digest.hexdigest()}


def _read_lines(path: Path) -> Iterator[pa.Array]:
    with pa.OSFile(str(path), "rb") as source:
        for batch in pa.ipc.open_stream(source):
            for start in range(0, batch.num_rows, _LINES_AT_ONCE):
                yield batch.column(0).slice(start, _LINES_AT_ONCE)


def _pieces(options: Training, folder: Path, spool: Path) -> tuple[Pieces, dict[str, Any]]:
    """The pieces that the options name, trained or copied into the model's folder, and what the card says of them."""
    if options.pieces == "words":
        (folder / "words").touch()
        return load_pieces("words"), {"kind": "words"}
    if isinstance(options.pieces, int):
        path = folder / "pieces.model"
        made = {"kind": "unigram", **train_pieces(_read_lines(spool), options.pieces, path)}
    else:
        source = Path(options.pieces)
        load_pieces(source)
        path = folder / ("pieces.json" if source.suffix == ".json" else "pieces.model")
        shutil.copyfile(source, path)
        made = {"kind": "given", "name": source.name}
    return load_pieces(path), {**made, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _train_lmplz(pieces: Pieces, options: Training, folder: Path, spool: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Have lmplz estimate `model.arpa` over piece strings; our own arrays are not written."""
    path = folder / "model.arpa"
    sentences = (line for lines in _read_lines(spool) for line in _token_lines(pieces, lines))
    arpa.run_lmplz(
        sentences, path, order=options.order, prune=options.prune, fallback=options.fallback, memory=options.memory
    )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    card = {"format": model.FORMAT, "order": options.order, "prune": list(options.prune), **about, "sha256": digest}
    (folder / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return card


def _token_lines(pieces: Pieces, lines: pa.Array) -> Iterator[bytes]:
    """Lines as token strings between spaces; unknown pieces are left out, as in our own estimate."""
    if isinstance(pieces, WordPieces):
        yield from (line.encode() for line in lines.to_pylist())
        return
    names, encoded = [name.encode() for name in pieces.strings()], pieces.encode(lines)
    if pieces.unknown is not None:
        names[pieces.unknown] = b""
    ids, ends = encoded.ids.tolist(), encoded.offsets.tolist()
    yield from (b" ".join([names[i] for i in ids[a:b]]) for a, b in pairwise(ends))
