"""The global layer that matching writes for each shard, and the counts of a whole matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup.candidates import Candidates
from curation.dedup.inputs import Inputs
from curation.dedup.keep import deciding

DUPLICATE, IN_INDEX = 1, 2  # bits of `drop`: of a document of this run, of one that an index has
FIRST = "first"  # kept_by where nothing but the canonical order decided


@dataclass(frozen=True)
class Result:
    """Clusters of the documents that have a candidate or a copy; arrays by place, ascending documents.

    `survivor` is the place of the document kept for each (itself if kept), `similarity` float32 to it (NaN if not
    measured), `size` its cluster's number of documents, `first` the place of the cluster's canonical first, `decided`
    the criterion that kept the survivor (`criteria`; one more means the canonical order).
    """

    documents: np.ndarray
    survivor: np.ndarray
    similarity: np.ndarray
    size: np.ndarray
    first: np.ndarray
    decided: np.ndarray
    criteria: list[str]
    pairs: tuple[int, int, int]

    @classmethod
    def make(
        cls,
        documents: np.ndarray,
        survivor: np.ndarray,
        similarity: np.ndarray,
        rank: np.ndarray,
        places: list[np.ndarray],
        criteria: list[str],
        pairs: tuple[int, int, int],
    ) -> Result:
        """Sizes, firsts and deciding criteria of clusters."""
        everyone = np.arange(len(documents))
        size = np.bincount(survivor, minlength=len(documents))[survivor] if len(documents) else everyone
        first = everyone.copy()
        first[survivor[::-1]] = everyone[::-1]  # the smallest assignment comes last
        losers = everyone[survivor != everyone]
        losers = losers[np.argsort(-rank[losers], kind="stable")]
        runner_up = everyone.copy()
        runner_up[survivor[losers]] = losers  # best loser last
        decided = deciding(places, everyone, runner_up)
        return cls(documents, survivor, similarity, size, first[survivor], decided[survivor], criteria, pairs)

    @property
    def dropped(self) -> np.ndarray:
        """Which documents are duplicates of another that stays; bool by place."""
        return np.asarray(self.survivor != np.arange(len(self.survivor)))

    def in_index(self, inputs: Inputs) -> np.ndarray:
        """Whose survivor stands in an index; bool by place."""
        fixed = np.array([one.fixed for one in inputs.inputs], bool)
        return fixed[inputs.input_of(self.documents[self.survivor])] if len(self.documents) else np.zeros(0, bool)


def write_layers(inputs: Inputs, result: Result, output_paths: Sequence[str | None], suffix: str) -> None:
    """Write one row-aligned Parquet file for each input that has an output path.

    `drop` is 1 for a duplicate of a document of this run and 2 for one of an index; with an index among the inputs,
    `duplicate_index` names the version that has the other document.
    """
    who = _Identities(inputs, result.documents[result.survivor])
    cluster_ids, cluster_of = _cluster_ids(inputs, result)
    bounds = np.searchsorted(result.documents, inputs.offsets)
    kept_by = pa.array([*result.criteria, FIRST], pa.string())
    with_index = any(one.fixed for one in inputs.inputs)
    indexed = result.in_index(inputs)
    for number, place in enumerate(inputs.places):
        path = output_paths[place]
        if path is None:
            continue
        here = slice(bounds[number], bounds[number + 1])
        num_rows = int(inputs.offsets[number + 1] - inputs.offsets[number])
        at = result.documents[here] - inputs.offsets[number]
        dropped, shared = result.dropped[here], result.size[here] > 1
        drop = np.zeros(num_rows, np.uint64)
        drop[at[dropped]] = np.where(indexed[here][dropped], IN_INDEX, DUPLICATE)
        scatter = _Scatter(num_rows, at)
        names, shards, rows, labels = who.of(here)
        columns = {"drop": pa.array(drop)}
        if with_index:
            columns["duplicate_index"] = scatter(labels, dropped & indexed[here])
        columns |= {
            "duplicate_source": scatter(names, dropped),
            "duplicate_shard": scatter(shards, dropped),
            "duplicate_row": scatter(rows, dropped),
            "similarity": scatter(pa.array(result.similarity[here]), dropped & ~np.isnan(result.similarity[here])),
            "cluster": scatter(cluster_ids.take(pa.array(cluster_of[here])), shared),
            "cluster_size": _sizes(num_rows, at, result.size[here]),
            "kept_by": scatter(kept_by.take(pa.array(result.decided[here])), shared),
        }
        table = pa.table({f"{name}{suffix}": values for name, values in columns.items()})
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)


class _Scatter:
    """Values of some rows spread over all rows of a shard, null elsewhere."""

    def __init__(self, num_rows: int, at: np.ndarray) -> None:
        self._num_rows, self._at = num_rows, at

    def __call__(self, values: pa.Array, shown: np.ndarray) -> pa.Array:
        chosen = np.flatnonzero(shown)
        index = np.zeros(self._num_rows, np.int64)
        absent = np.ones(self._num_rows, bool)
        index[self._at[chosen]] = chosen
        absent[self._at[chosen]] = False
        return values.take(pa.array(index, mask=absent))


def _sizes(num_rows: int, at: np.ndarray, size: np.ndarray) -> pa.Array:
    sizes = np.ones(num_rows, np.int64)
    sizes[at] = size
    return pa.array(sizes)


class _Identities:
    """Source, shard and row of documents; those of an index name where they came from."""

    def __init__(self, inputs: Inputs, documents: np.ndarray) -> None:
        self._number = inputs.input_of(documents)
        self._labels = pa.array([one.source for one in inputs.inputs], pa.string())
        self._paths = pa.array([one.shard for one in inputs.inputs], pa.string())
        places = documents - inputs.offsets[self._number] if len(documents) else documents
        numbers = _row_numbers(inputs, documents, places)
        self._names: pa.Array | None = None
        self._shards: pa.Array | None = None
        self._rows = pa.array(numbers, pa.int64())
        if any(one.fixed for one in inputs.inputs):
            names, paths = self._labels.take(pa.array(self._number)), self._paths.take(pa.array(self._number))
            found = _index_identities(inputs, self._number, places, numbers, names, paths)
            self._names, self._shards, self._rows = found

    def of(self, here: slice) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
        """Sources, shards and rows of some of the documents, and what their inputs are called.

        Without an index the names are put together here, for one shard: a path for each document would be most of
        the memory.
        """
        taken = pa.array(self._number[here])
        labels = self._labels.take(taken)
        names = labels if self._names is None else self._names[here]
        shards = self._paths.take(taken) if self._shards is None else self._shards[here]
        return names, shards, self._rows[here], labels


def _row_numbers(inputs: Inputs, documents: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each document's row in its shard: its place among the rows that were read, unless some were passed over."""
    if not len(documents) or not inputs.has("row"):
        return places
    distinct, inverse = np.unique(documents, return_inverse=True)
    return np.asarray(inputs.values("row", distinct).to_numpy())[inverse]


def _index_identities(
    inputs: Inputs, number: np.ndarray, rows: np.ndarray, numbers: np.ndarray, names: pa.Array, shards: pa.Array
) -> tuple[pa.Array, pa.Array, pa.Array]:
    sources, paths, places = (np.array(names.to_pylist(), object), np.array(shards.to_pylist(), object), numbers.copy())
    for input_number in np.unique(number):
        one = inputs.inputs[input_number]
        if not one.fixed:
            continue
        chosen = np.flatnonzero(number == input_number)
        stored = pq.read_table(one.signatures, columns=["source", "shard", "row"]).take(pa.array(rows[chosen]))
        sources[chosen] = stored.column("source").to_pylist()
        paths[chosen] = stored.column("shard").to_pylist()
        places[chosen] = stored.column("row").to_numpy()
    return pa.array(sources, pa.string()), pa.array(paths, pa.string()), pa.array(places, pa.int64())


def _cluster_ids(inputs: Inputs, result: Result) -> tuple[pa.Array, np.ndarray]:
    """16 bytes that name each cluster, and which is each document's: the content id of its first, or its exact hash."""
    firsts, inverse = np.unique(result.first, return_inverse=True)
    column = "content_id" if inputs.has("content_id") else inputs.exact
    values = inputs.values(column, result.documents[firsts], of_index="cluster")
    return values.combine_chunks() if len(firsts) else pa.array([], pa.binary(16)), inverse


def count_result(
    inputs: Inputs, candidates: Candidates, result: Result, max_cluster: int | None, max_lost: float | None
) -> dict[str, Any]:
    """Counts of a matching as plain values, with alarms in words. Documents of an index are counted under `indexes`."""
    dropped = np.flatnonzero(result.dropped)
    number = inputs.input_of(result.documents)
    num_inputs = len(inputs.inputs)
    lost_by_input = np.bincount(number[dropped], minlength=num_inputs)
    in_index = np.bincount(number[dropped[result.in_index(inputs)[dropped]]], minlength=num_inputs)
    sources: dict[str, dict[str, int]] = {}
    indexes: dict[str, int] = {}
    with_index = any(one.fixed for one in inputs.inputs)
    for place, one in enumerate(inputs.inputs):
        alive = int(candidates.num_alive_by_input[place])
        if one.fixed:
            indexes[one.source] = indexes.get(one.source, 0) + alive
            continue
        counts = sources.setdefault(one.source, {"documents": 0, "duplicates": 0})
        counts["documents"] += alive
        counts["duplicates"] += int(lost_by_input[place])
        if with_index:
            counts["in_index"] = counts.get("in_index", 0) + int(in_index[place])
    survivors = np.flatnonzero(~result.dropped & (result.size > 1))
    largest = int(result.size.max()) if len(result.size) else 0
    checked, rejected, unlisted = result.pairs
    return {
        "documents": sum(counts["documents"] for counts in sources.values()),
        "duplicates": len(dropped),
        "in_index": int(in_index.sum()),
        "exact_duplicates": len(candidates.copies.members) - (len(candidates.copies.starts) - 1),
        "clusters": len(survivors),
        "largest_cluster": max(largest, 1) if inputs.num_documents else 0,
        "pairs_checked": checked,
        "pairs_rejected": rejected,
        "documents_unlisted": unlisted,
        "sources": sources,
        "indexes": indexes,
        "overlap": _overlap(inputs, number, result, dropped),
        "alarms": _alarms(inputs, result, sources, survivors, max_cluster, max_lost),
    }


def _overlap(inputs: Inputs, number: np.ndarray, result: Result, dropped: np.ndarray) -> dict[str, dict[str, int]]:
    """Duplicates of each source by the source of the document that stays."""
    names = sorted({one.source for one in inputs.inputs})
    place = np.array([names.index(one.source) for one in inputs.inputs], np.int64)
    if not len(dropped):
        return {}
    lost, stays = place[number[dropped]], place[number[result.survivor[dropped]]]
    table = np.bincount(lost * len(names) + stays, minlength=len(names) ** 2).reshape(len(names), len(names))
    rows = {name: {names[j]: int(table[i, j]) for j in np.flatnonzero(table[i])} for i, name in enumerate(names)}
    return {name: row for name, row in rows.items() if row}


def _alarms(
    inputs: Inputs,
    result: Result,
    sources: dict[str, dict[str, int]],
    survivors: np.ndarray,
    max_cluster: int | None,
    max_lost: float | None,
) -> list[str]:
    alarms = []
    for name, counts in sorted(sources.items()):
        share = counts["duplicates"] / max(counts["documents"], 1)
        if max_lost is not None and share > max_lost:
            alarms.append(
                f"source {name!r} loses {counts['duplicates']:,} of {counts['documents']:,} documents ({share:.1%}), "
                f"more than {max_lost:.1%}"
            )
    too_large = survivors[result.size[survivors] > max_cluster] if max_cluster is not None else survivors[:0]
    if len(too_large):
        order = np.argsort(-result.size[too_large], kind="stable")
        place = too_large[order[0]]
        document = result.documents[place]
        number = int(inputs.input_of(np.array([document]))[0])
        one = inputs.inputs[number]
        row = int(_row_numbers(inputs, np.array([document]), np.array([document - inputs.offsets[number]]))[0])
        alarms.append(
            f"{len(too_large):,} clusters have more than {max_cluster:,} documents; the largest has "
            f"{int(result.size[place]):,}, kept: source {one.source!r}, shard {one.shard!r}, row {row}"
        )
    return alarms
