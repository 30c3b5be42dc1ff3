"""Questions to an index, and taking documents out of it: by content id, by source, by text.

Memory: a row batch, and what is found.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup.index import Version, alive_masks
from curation.dedup.index_entries import REMOVED, as_ids, by_shard, entries_schema
from curation.dedup.inputs import band_names
from curation.dedup.minhash import Options, signatures
from curation.dedup.verify import sketch_similarity, sketches

_SHOWN = ["source", "shard", "row", "content_id", "num_characters"]
_ROWS = 1 << 14


def options_of(version: Version) -> Options:
    """Signature options of an index; those of raw text have no bands."""
    config = version.manifest["config"]
    if config["compares"] == "raw text":
        return Options(shingle=1, bands=0, rows=1)
    return Options(**{name: config[name] for name in Options.__dataclass_fields__})


def find_ids(chain: Sequence[Version], beginning: str, most: int = 20) -> list[dict[str, Any]]:
    """Documents of an index whose content id begins with some hexadecimal digits, at most `most`."""
    low = bytes.fromhex(beginning.ljust(32, "0"))
    high = bytes.fromhex(beginning.ljust(32, "f"))

    def chosen(batch: pa.RecordBatch) -> list[tuple[int, float | None]]:
        ids = as_ids(batch.column("content_id"))
        hit = np.flatnonzero((ids >= np.bytes_(low)) & (ids <= np.bytes_(high)))
        return [(int(place), None) for place in hit]

    return _found(chain, _SHOWN, chosen, most)


def find_text(chain: Sequence[Version], text: str, most: int = 20) -> list[dict[str, Any]]:
    """Documents of an index that are exact or near copies of a text, the most similar first, with their similarity.

    A near copy shares a band; its similarity is that of sketches. An index of raw text knows exact copies only.
    """
    import xxhash

    options = options_of(chain[-1])
    given = pa.array([text], pa.large_string())
    content_id = xxhash.xxh3_128_digest(text.encode())
    signed = signatures(given, options).to_pylist()[0]
    (sketch,) = sketches(given, options).to_pylist() if options.bands else (None,)
    names = band_names(options)

    def chosen(batch: pa.RecordBatch) -> list[tuple[int, float | None]]:
        same = as_ids(batch.column("content_id")) == np.bytes_(content_id)
        if batch.column("exact").null_count == 0:
            same |= as_ids(batch.column("exact")) == np.bytes_(signed["exact"])
        near = np.zeros(batch.num_rows, bool)
        for name in names if sketch else ():
            near |= batch.column(name).fill_null(0).to_numpy() == (signed[name] or 1)
        hits: list[tuple[int, float | None]] = [(int(place), 1.0) for place in np.flatnonzero(same)]
        for place in np.flatnonzero(near & ~same):
            other = batch.column("sketch")[int(place)].as_py()
            hits.append((int(place), sketch_similarity(sketch or [], other or [])))
        return hits

    columns = [*_SHOWN, "exact", *names, *(["sketch"] if options.bands else [])]
    found = _found(chain, columns, chosen, None)
    return sorted(found, key=lambda one: -one["similarity"])[:most]


def _found(chain: Sequence[Version], columns: list[str], chosen: Any, most: int | None) -> list[dict[str, Any]]:
    alive, found = alive_masks(chain), []
    for version in chain:
        first = 0
        with pq.ParquetFile(version.entries) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                for place, similarity in chosen(batch):
                    if version.number not in alive or alive[version.number][first + place]:
                        told = batch.slice(place, 1).select(_SHOWN).to_pylist()[0]
                        told |= {"index": version.label, "content_id": told["content_id"].hex()}
                        found.append({**told, "similarity": similarity})
                        if len(found) == most:
                            return found
                first += batch.num_rows
    return found


def write_removal(
    chain: Sequence[Version], ids: Collection[bytes], sources: Sequence[str], entries: Path, removed: Path
) -> tuple[int, set[bytes], set[str]]:
    """Write the files of a version that takes documents out.

    Args:
        chain: the versions before.
        ids: content ids, 16 bytes each.
        sources: patterns of source names.
        entries: file to write, of nothing that it adds.
        removed: file to write, of what it takes out.

    Returns:
        How many documents it takes out, the content ids that no document has, and the patterns that match none.
    """
    pq.write_table(entries_schema(options_of(chain[-1])).empty_table(), entries)
    alive, missing, idle, total = alive_masks(chain), set(ids), set(sources), 0
    wanted = np.array(sorted(ids), "S16")
    with pq.ParquetWriter(removed, REMOVED, compression="zstd", write_page_checksum=True) as writer:
        for version in chain:
            for (source, shard), here, first in by_shard(version.entries):
                there = np.ones(len(here), bool)
                if version.number in alive:
                    there = alive[version.number][first : first + len(here)]
                hit = np.isin(here, wanted) & there
                missing -= {one.ljust(16, b"\0") for one in here[hit].tolist()}
                matching = {pattern for pattern in sources if fnmatchcase(source, pattern)}
                if matching and there.any():
                    idle -= matching
                    hit = there
                places = np.flatnonzero(hit)
                columns = [
                    pa.array(np.full(len(places), version.number, np.int32)),
                    pa.array(places + first),
                    *(pa.array([name] * len(places), pa.string()) for name in (source, shard)),
                    pa.array([one.ljust(16, b"\0") for one in here[places].tolist()], pa.binary(16)),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=REMOVED))
                total += len(places)
    return total, missing, idle
