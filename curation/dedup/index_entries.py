"""Documents of an index version: which of them stand in a run itself, what a run adds, what it takes out.

A document of an index is the same as one of a run where source, shard and text (`content_id`) are the same. Such a
document takes part in the run's matching as itself, so that an old source with a new shard is decided as if there were
no index; in the next version it stays as it is, or is taken out where the run has dropped it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dedup.index import Version, alive_masks
from curation.dedup.inputs import MatchInput, band_names
from curation.dedup.minhash import METADATA_KEY, Options, described

REMOVED = pa.schema(
    [
        pa.field("version", pa.int32(), nullable=False),
        pa.field("entry", pa.int64(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("content_id", pa.binary(16)),
    ]
)
"""Entries taken out: which version of the chain added them, their place in its file, and who they were."""
_IDENTITY = ["source", "shard", "content_id"]


def entries_schema(options: Options) -> pa.Schema:
    """Columns of the documents that a version adds, in canonical order.

    `exact` is null in an index of raw text; without bands there is no `sketch`. `cluster` is the content id of the
    document's cluster.
    """
    fields = [
        pa.field("source", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("content_id", pa.binary(16), nullable=False),
        pa.field("cluster", pa.binary(16), nullable=False),
        pa.field("num_characters", pa.int64()),
        pa.field("exact", pa.binary(16)),
        pa.field("num_shingles", pa.int32()),
        *(pa.field(name, pa.uint64()) for name in band_names(options)),
    ]
    if options.bands:
        fields.append(pa.field("sketch", pa.list_(pa.uint32())))
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(described(options)).encode()})


def standing_in(entries: Path, given: Sequence[MatchInput]) -> np.ndarray:
    """Which entries of a version stand in a run itself: same source, shard and text. bool (entries,).

    Args:
        entries: the version's file.
        given: the run's inputs, with `content_id` among their columns.

    Memory: the content ids of one shard, a byte an entry.
    """
    shards = {(one.source, one.shard): one for one in given}
    found, last, known = [np.zeros(0, bool)], None, np.zeros(0, "S16")
    for name, ids, _ in by_shard(entries):
        if name != last:  # a shard comes in many pieces: its ids are read and sorted once
            last, known = name, np.unique(content_ids(shards[name])) if name in shards else np.zeros(0, "S16")
        found.append(among(known, ids))
    return np.concatenate(found)


def among(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which ids are among known ones, that are sorted; bool (ids,)."""
    if not len(known):
        return np.zeros(len(ids), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


def by_shard(entries: Path) -> Iterator[tuple[tuple[str, str], np.ndarray, int]]:
    """Pieces of an entries file that lie in one shard: (source, shard), content ids (16 bytes each), first entry.

    A shard may come in several pieces, one after another. Memory: one row batch.
    """
    first = 0
    with pq.ParquetFile(entries) as file:
        for batch in file.iter_batches(1 << 16, columns=_IDENTITY):
            names = [pc.dictionary_encode(batch.column(name)) for name in ("source", "shard")]
            codes = np.stack([one.indices.to_numpy(zero_copy_only=False) for one in names])
            edges = np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(axis=0)) + 1
            bounds = np.concatenate([[0], edges, [batch.num_rows]]).astype(int)
            ids = as_ids(batch.column("content_id"))
            for low, high in pairwise(bounds.tolist()):
                if high > low:
                    source, shard = (one[low].as_py() for one in names)
                    yield (source, shard), ids[low:high], first + low
            first += batch.num_rows


def content_ids(one: MatchInput) -> np.ndarray:
    """Content ids of all rows of a shard, 16 bytes each."""
    path = next(path for path in one.columns if "content_id" in pq.read_schema(path).names)
    return as_ids(pq.read_table(path, columns=["content_id"]).column(0).combine_chunks())


def as_ids(column: pa.Array) -> np.ndarray:
    """16-byte ids as one numpy value each."""
    content = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return content[column.offset * 16 : (column.offset + len(column)) * 16].view("S16")


class OwnEntries:
    """Entries of a chain that stand in a run's shards, to be told what the run keeps of them.

    Memory: 28 bytes an entry of the shards that the run reads again.
    """

    def __init__(self, chain: Sequence[Version], shards: Collection[tuple[str, str]]) -> None:
        self._found: dict[tuple[str, str], list[tuple[int, np.ndarray, np.ndarray]]] = {}
        alive = alive_masks(chain)
        for version in chain:
            for name, ids, first in by_shard(version.entries):
                if name in shards:
                    chosen = np.arange(first, first + len(ids))
                    if version.number in alive:
                        chosen = chosen[alive[version.number][chosen]]
                    self._found.setdefault(name, []).append((version.number, chosen, ids[chosen - first].copy()))

    def ids(self, source: str, shard: str) -> np.ndarray:
        """Content ids of a shard's entries, each once, sorted."""
        found = [ids for _, _, ids in self._found.get((source, shard), [])]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, "S16")

    def removed(self, source: str, shard: str, read: np.ndarray, kept: np.ndarray) -> pa.RecordBatch:
        """Entries whose text stands in the shard (`read`) and is not kept there any more, as `REMOVED` rows."""
        versions, entries, ids = [], [], []
        for version, numbers, here in self._found.get((source, shard), []):
            gone = np.flatnonzero(np.isin(here, read) & ~np.isin(here, kept))
            versions.append(np.full(len(gone), version, np.int32))
            entries.append(numbers[gone])
            ids += [one.ljust(16, b"\0") for one in here[gone].tolist()]
        columns = [
            pa.array(np.concatenate(versions) if versions else [], pa.int32()),
            pa.array(np.concatenate(entries) if entries else [], pa.int64()),
            *(pa.array([name] * len(ids), pa.string()) for name in (source, shard)),
            pa.array(ids, pa.binary(16)),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=REMOVED)
