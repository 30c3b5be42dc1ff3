"""The file of a domain index: which stretches of which token shards make a stream of tokens, and its documents.

Made to be memory-mapped: two tables of little-endian int64 and a JSON footer.

    runs       (r, 3)  position in the stream, shard number, offset in the shard's tokens
    documents  (d, 2)  position in the stream, row (packed: of each piece of a document; -1 for padding)
    footer     JSON: shards, counts, what it was made of; then its length (8 bytes) and `GRISTIDX`

A run is a stretch of neighbouring documents of one shard; it lasts up to the next one's position. In packed indexes
(`mixing.packing`) shard number -1 is padding, and -2 - s is shard s from within a document, whose tokens before are in
another sequence.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mixing.shards import ShardFiles, TokenRecord

_MAGIC = b"GRISTIDX"
# A `@kernel` of `mixing.reader` compiles these two in, so that this file counts for the cache of kernels.
PADDING = -1  # shard number of padding, and its row
WITHIN = -2  # WITHIN - s: a run of shard s that begins within a document


class DomainIndexError(ValueError):
    """A domain index cannot be made or read."""


@dataclass(frozen=True)
class IndexShard:
    """A token shard as an index names it; files relative to the index's folder."""

    source: str
    shard: str
    tokens: str
    documents: str
    num_tokens: int
    dtype: str

    def seen_from(self, folder: Path, other: Path) -> IndexShard:
        """The same shard as an index in another folder names it."""
        tokens, documents = (os.path.relpath(folder / file, other) for file in (self.tokens, self.documents))
        return replace(self, tokens=tokens, documents=documents)


@dataclass(frozen=True)
class Footer:
    """What a domain index holds.

    `num_tokens` counts real tokens once each; `num_pieces` is the length of the documents table. `context` and
    `num_sequences` are set for packed indexes only, whose sequences are made for one context; `padding` counts
    positions without a token.
    """

    shards: tuple[IndexShard, ...]
    num_runs: int
    num_pieces: int
    num_documents: int
    num_tokens: int
    num_characters: int
    size_bytes: int
    vocabulary: int
    tokenizer: str
    eos: int | None
    part: str
    selection: dict[str, Any] = field(default_factory=dict)
    context: int | None = None
    num_sequences: int | None = None
    padding: int = 0


def shard_of(numbers: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Shards of runs by their shard numbers; padding stays -1."""
    return np.where(np.asarray(numbers) < PADDING, WITHIN - np.asarray(numbers), numbers)


class IndexWriter:
    """Writes an index: runs to the file, documents to one beside it that is appended at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(path.name + ".documents")
        self.num_runs = self.num_pieces = self.position = 0
        self._next: tuple[int, int] | None = None  # shard and offset at which the last run would go on

    def __enter__(self) -> IndexWriter:
        self._runs: BinaryIO = self._path.open("wb")
        self._documents: BinaryIO = self._beside.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.close()
        self._documents.close()
        self._beside.unlink()

    def add(self, shards: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> None:
        """Append documents or pieces of them: shard number, offset in its tokens, length and row, int64 (n,).

        Padding has shard number and row -1, a piece that begins within a document shard number WITHIN - s. Neighbours
        of one shard become one run.
        """
        if not len(starts):
            return
        positions = self.position + np.cumsum(lengths) - lengths
        filled = lengths > 0  # an empty document lies in no run: neither begins one nor carries one on
        first, goes_on = starts[filled], self._goes_on(shards[filled], starts[filled], lengths[filled])
        self._write(self._runs, positions[filled][~goes_on], shards[filled][~goes_on], first[~goes_on])
        self._write(self._documents, positions, rows)
        self.num_runs += int((~goes_on).sum())
        self.num_pieces += len(starts)
        self.position += int(lengths.sum())

    def _goes_on(self, shards: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Which of some documents with tokens go on where the one before ends, bool (n,)."""
        goes_on = np.zeros(len(starts), dtype=bool)
        if len(starts):
            ends = starts + lengths
            goes_on[0] = self._next == (int(shards[0]), int(starts[0]))
            goes_on[1:] = (shards[1:] == shard_of(shards[:-1])) & (starts[1:] == ends[:-1])
            self._next = (int(shard_of(shards[-1])), int(ends[-1]))
        return goes_on & (shards >= 0)

    def close(self, footer: Footer) -> None:
        """Append the documents and the footer."""
        self._documents.seek(0)
        shutil.copyfileobj(self._documents, self._runs, 1 << 20)
        stored = json.dumps(asdict(footer), sort_keys=True, ensure_ascii=False).encode()
        self._runs.write(stored + len(stored).to_bytes(8, "little") + _MAGIC)

    @staticmethod
    def _write(file: BinaryIO, *columns: np.ndarray) -> None:
        file.write(np.stack(columns, axis=1).astype("<i8").tobytes())


def index_shards(shards: Sequence[ShardFiles], records: Sequence[TokenRecord], folder: Path) -> tuple[IndexShard, ...]:
    """Token shards as an index in `folder` names them."""
    return tuple(
        IndexShard(
            files.source,
            files.shard,
            os.path.relpath(files.tokens_path, folder),
            os.path.relpath(files.documents_path, folder),
            record.num_tokens,
            record.dtype,
        )
        for files, record in zip(shards, records)
    )


def read_footer(path: Path) -> Footer:
    """Footer of an index, checked against the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as index:
        index.seek(max(0, size - 16))
        tail = index.read(16)
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != _MAGIC or length > size - 16:
            raise DomainIndexError(f"{path}: not a domain index, or cut; remove it and run again")
        index.seek(size - 16 - length)
        stored = json.loads(index.read(length))
    stored["shards"] = tuple(IndexShard(**shard) for shard in stored["shards"])
    footer = Footer(**stored)
    if size - 16 - length != 24 * footer.num_runs + 16 * footer.num_pieces:
        raise DomainIndexError(f"{path}: its tables do not have the size its footer says; remove it and run again")
    return footer


def map_table(path: Path, offset: int, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A table of int64 of an index, memory-mapped, flat."""
    return np.memmap(path, "<i8", "r", offset, (length,)) if length else np.zeros(0, np.int64)
