"""Publishing as a stage: the documents that a dedup step kept, and what is no longer kept of the version before.

The stage writes files among the artifacts, so it resumes like any other; who runs it gives them their name and number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import config
from curation.compiled import GlobalStage
from curation.dedup.index import open_chain, parse_label
from curation.dedup.index_entries import REMOVED, OwnEntries, among, as_ids, content_ids, entries_schema
from curation.dedup.inputs import MatchInput, band_names
from curation.dedup.match import MatchOptions
from curation.dedup.minhash import Options
from curation.dedup.verify import sketches
from curation.layers import layer_columns, read_layer, zip_batches
from curation.passes import ShardInputs, text_batches
from curation.stage import Counts, Output
from curation.stages.dedup import kept_mask, match_input
from curation.stages.inputs import GlobalInputs

if TYPE_CHECKING:
    from curation.program import Compiler

ENTRIES, REMOVALS, ABOUT = ".entries.parquet", ".removed.parquet", ".about.json"


@dataclass(frozen=True)
class IndexOptions:
    """What is written of each document, and the version that it continues."""

    step: str
    signatures: Options
    exact_column: str
    licences: tuple[tuple[str, str], ...]  # source -> its declared one, for documents that bring none
    parent: str | None = None


def add_index(
    compiler: Compiler, step: config.Dedup, names: list[str], options: MatchOptions, needs: tuple[str, ...]
) -> None:
    """Add the stage that writes a version of an index, after the step's matching."""
    assert step.index is not None
    assert step.index.publish is not None
    parent = parent_of(step.index)
    licences = tuple((name, compiler.sources[name].licence) for name in names)
    made = IndexOptions(step.name, options.signatures, options.exact_column, licences, parent)
    needs = (*needs, *((f"index.{parent}",) if parent else ()))
    compiler.stages.append(
        GlobalStage(f"published.{step.name}", "index", step.name, tuple(names), make_index, made, "/", needs)
    )


def parent_of(index: config.Index) -> str | None:
    """The version that a published one continues: that of its own name among those matched against."""
    return next((label for label in index.against if parse_label(label)[0] == index.publish), None)


def make_index(inputs: GlobalInputs, options: IndexOptions, output: Output) -> Counts:
    """Write the entries that a version adds and those that it takes out.

    Memory: a row batch, the content ids of a shard, and 28 bytes an entry of the version before that lies in a shard
    of this run.
    """
    chain = []
    if options.parent is not None:
        chain = open_chain([inputs.artifact(f"index.{options.parent}").parent.parent], options.parent)
    own = OwnEntries(chain, {(shard.source, shard.shard) for shard in inputs.shards})
    about: dict[str, dict[str, Any]] = {}
    num_removed, declared = 0, dict(options.licences)
    schema = entries_schema(options.signatures)
    with (
        pq.ParquetWriter(output.path(ENTRIES), schema, compression="zstd", write_page_checksum=True) as entries,
        pq.ParquetWriter(output.path(REMOVALS), REMOVED, compression="zstd", write_page_checksum=True) as removed,
    ):
        for shard, task in zip(inputs.shards, inputs.tasks):
            one = match_input(inputs, shard, task, options.exact_column == "content_id", kept_mask(shard))
            for batch, licences in _kept_batches(shard, one, options, own.ids(shard.source, shard.shard)):
                entries.write_batch(batch)
                _count(about.setdefault(shard.source, _nothing()), batch, licences, declared[shard.source])
            gone = _removed(one, shard, own)
            removed.write_batch(gone)
            num_removed += gone.num_rows
    before = 0 if not chain else int(chain[-1].manifest["documents"])
    num_added = sum(told["documents"] for told in about.values())
    facts = {
        "documents": before + num_added - num_removed,
        "added": num_added,
        "removed": num_removed,
        "sources": {name: {**told, "licences": dict(sorted(told["licences"].items()))} for name, told in about.items()},
    }
    output.path(ABOUT).write_text(json.dumps(facts, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    return {"rows": num_added, "removed": num_removed}


def read_facts(folder: Path, task: str) -> dict[str, Any]:
    """What `make_index` says of the version it wrote."""
    facts: dict[str, Any] = json.loads((folder / f"{task}{ABOUT}").read_text(encoding="utf-8"))
    return facts


def _nothing() -> dict[str, Any]:
    return {"documents": 0, "characters": 0, "licences": Counter()}


def _count(told: dict[str, Any], batch: pa.RecordBatch, licences: pa.Array, declared: str) -> None:
    told["documents"] += batch.num_rows
    told["characters"] += int(sum(filter(None, batch.column("num_characters").to_pylist())))
    told["licences"].update(name or declared for name in licences.to_pylist())


def _kept_batches(
    shard: ShardInputs, one: MatchInput, options: IndexOptions, own: np.ndarray
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """A shard's kept documents as entries, beside their licences, without those that the index has already (`own`)."""
    signed = [] if options.exact_column == "content_id" else ["exact", "num_shingles", *band_names(options.signatures)]
    cluster = next(name for name in layer_columns(shard.layers[-1]) if name.startswith("cluster@"))
    streams = [
        read_layer(one.signatures, signed or ["content_id"]),
        read_layer(shard.layers[0], ["row", "content_id", "num_characters", "licence"]),
        read_layer(shard.layers[-1], [cluster]),
        text_batches(shard),
    ]
    place = 0
    for signatures, rows, layer, texts in zip_batches(streams):
        alive = np.asarray(one.alive)[place : place + rows.num_rows]
        place += rows.num_rows
        taken = alive & np.asarray(signatures.column(0).is_valid().to_numpy(zero_copy_only=False))
        taken &= ~among(own, as_ids(rows.column("content_id")))
        chosen = pa.array(np.flatnonzero(taken))
        kept = rows.take(chosen)
        columns = {name: kept.column(name) for name in ("row", "content_id", "num_characters")}
        columns |= {name: signatures.column(name).take(chosen) for name in signed}
        columns["source"] = pa.array([shard.source] * len(chosen), pa.string())
        columns["shard"] = pa.array([shard.shard] * len(chosen), pa.string())
        columns["cluster"] = _or_else(layer.column(0).take(chosen), kept.column("content_id"))
        if options.signatures.bands:
            columns["sketch"] = sketches(texts.column("text").take(chosen), options.signatures)
        schema = entries_schema(options.signatures)
        arrays = [columns.get(field.name, pa.nulls(len(chosen), field.type)) for field in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema), kept.column("licence")


def _or_else(values: pa.Array, other: pa.Array) -> pa.Array:
    """The values, and the other's where they are null."""
    return pa.array([a if a is not None else b for a, b in zip(values.to_pylist(), other.to_pylist())], pa.binary(16))


def _removed(one: MatchInput, shard: ShardInputs, own: OwnEntries) -> pa.RecordBatch:
    """Entries of the version before whose document this run reads and no longer keeps."""
    ids = content_ids(one)
    return own.removed(shard.source, shard.shard, ids, ids[np.asarray(one.alive)])
