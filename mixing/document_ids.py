"""Which document is that, and where is this one? An index of content ids, written beside each token shard.

The file is memory-mapped: rows of the shard's documents in order, the order of their content ids, and the ids.

    rows   (d,)     int64, rising
    order  (d,)     int64, documents in order of their ids
    ids    (d, 16)  bytes

Both ways are a binary search, so one step of training or one document is found among billions without reading them.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixing.shards import ShardFiles, read_documents

_ENTRY_BYTES = 32
SUFFIX = ".ids"


@dataclass(frozen=True)
class DocumentIds:
    """The content ids of a token shard's documents; its tables are memory-mapped."""

    rows: memoryview
    order: memoryview
    ids: memoryview

    @classmethod
    def open(cls, path: Path) -> DocumentIds:
        """Open the index of a shard.

        Raises:
            OSError: if there is none.
        """
        with path.open("rb") as stored:
            number = os.fstat(stored.fileno()).st_size // _ENTRY_BYTES
            if not number:
                return cls.nothing()
            # plain views: opening a shard's three tables as numpy arrays takes longer than the search
            view = memoryview(mmap.mmap(stored.fileno(), 0, prot=mmap.PROT_READ))
        return cls(view[: 8 * number].cast("q"), view[8 * number : 16 * number].cast("q"), view[16 * number :])

    @classmethod
    def nothing(cls) -> DocumentIds:
        """The index of no documents."""
        return cls(memoryview(b"").cast("q"), memoryview(b"").cast("q"), memoryview(b""))

    def id_of(self, row: int) -> str | None:
        """Content id of a row in hexadecimal digits; None where the row has no tokens."""
        place = bisect_left(self.rows, row)
        return self._id(place) if place < len(self.rows) and self.rows[place] == row else None

    def rows_of(self, prefix: str) -> list[int]:
        """Rows whose content id begins with hexadecimal digits, in order."""
        place = bisect_left(self.order, prefix, key=self._id)
        rows = []
        while place < len(self.order) and self._id(document := self.order[place]).startswith(prefix):
            rows.append(self.rows[document])
            place += 1
        return sorted(rows)

    def _id(self, document: int) -> str:
        return self.ids[16 * document : 16 * document + 16].hex()


def ids_path(files: ShardFiles) -> Path:
    """Where the index of a token shard lies."""
    return files.tokens_path.with_suffix(SUFFIX)


def write_document_ids(documents_path: str | Path, path: Path) -> None:
    """Write the index of a token shard's documents, 32 bytes each. Memory grows with the documents of the shard."""
    files = ShardFiles("", "", Path(), Path(documents_path))
    rows, ids = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for batch in read_documents(files, ["row", "content_id"]):
        rows.append(batch["row"].to_numpy())
        ids.append(np.frombuffer(b"".join(batch["content_id"].to_pylist()), np.uint8))
    high, low = np.concatenate(ids).view(">u8").reshape(-1, 2).T
    with path.open("wb") as stored:
        for table in (np.concatenate(rows), np.lexsort((low, high))):
            stored.write(table.astype("<i8").tobytes())
        stored.write(np.concatenate(ids).tobytes())


def find_documents(shards: Iterable[ShardFiles], prefix: str) -> Iterator[tuple[ShardFiles, int]]:
    """Token shards and rows whose content id begins with hexadecimal digits, in order; shards without index are missed.

    Costs a file opened and a binary search for each shard.
    """
    for files in shards:
        try:
            index = DocumentIds.open(ids_path(files))
        except OSError:
            continue
        for row in index.rows_of(prefix):
            yield files, row
