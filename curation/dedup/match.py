"""Match signatures of all shards, check the candidates, keep one document of each cluster, write the layers.

The result does not depend on the order of the inputs, the memory (how often hashes are split) or the number of workers
that made the signatures. Memory: 10 to 18 bytes a document; for documents that have a candidate or a copy 140 bytes
and 8 for each entry of `keep`, and 24 for each band group they are in. Hashes are sorted, and band groups worked
through, in as many parts as it takes to stay within the memory; where the rest alone is more, matching refuses with
the arithmetic.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.dedup import cluster as clustering
from curation.dedup import keep as keeping
from curation.dedup.candidates import STATE_BYTES, Candidates, find_candidates
from curation.dedup.dates import read_dates
from curation.dedup.inputs import Inputs, MatchInput
from curation.dedup.layer import Result, count_result, write_layers
from curation.dedup.minhash import Options, SignatureError
from curation.dedup.spill import Runs, sort_runs
from curation.dedup.verify import FetchText, ShingleSets

_BYTES_PER_MEMBER = 24  # a member of a band group while its part is clustered
_BYTES_PER_INVOLVED = 140  # a document with a candidate or a copy: its places, ranks, cluster and what is said of it
_BYTES_PER_CRITERION = 8
_MOST_MEMBERS = 1 << 30  # of a part: its documents and groups are numbered by 32 bits


@dataclass(frozen=True)
class MatchOptions:
    """How candidates become clusters.

    Args:
        signatures: options the signatures were made with; zero bands match exact copies only.
        cluster: "star" (every dropped document is similar to the kept one) or "components" (chains join).
        verify: least similarity of a candidate pair that counts; null counts every pair that shares a band.
        measure: "jaccard" or "containment" (common shingles by the smaller set) for `verify`.
        max_cluster: clusters with more documents raise an alarm.
        max_lost: share of a source's documents; a source that loses more raises an alarm.
        exact_column: 16-byte column whose equality means copies; `content_id` for raw text.
        suffix: of the layer's columns, "@STEP".
    """

    signatures: Options
    cluster: str = "star"
    verify: float | None = None
    measure: str = "jaccard"
    max_cluster: int | None = None
    max_lost: float | None = None
    exact_column: str = "exact"
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.cluster not in ("star", "components"):
            raise SignatureError(f"cluster {self.cluster!r} is unknown; write star or components")
        if self.measure not in ("jaccard", "containment"):
            raise SignatureError(f"measure {self.measure!r} is unknown; write jaccard or containment")
        if self.verify is not None and not 0 < self.verify <= 1:
            raise SignatureError(f"verify is {self.verify}; a similarity lies above 0 and at most at 1")


def match(
    given: Sequence[MatchInput],
    options: MatchOptions,
    keep: Sequence[keeping.Criterion],
    output_paths: Sequence[str | None],
    memory: int,
    *,
    fetch_text: FetchText | None = None,
    scratch: str | None = None,
) -> dict[str, Any]:
    """Deduplicate documents over all inputs and write one row-aligned layer for each.

    Args:
        given: signature files in any order.
        options: what counts as a duplicate.
        keep: order of preference among duplicates.
        output_paths: Parquet file to write for each input, as in `given`; null for inputs that are `fixed`.
        memory: bytes to stay within.
        fetch_text: reads texts, for `verify` (needed there) and to tell how similar a dropped document is.
        scratch: folder for temporary files; about 12 bytes a band and document, and 8 bytes a shingle of those texts.

    Returns:
        Counts: documents, duplicates, clusters, pairs checked, by source, from source to source, alarms.

    Raises:
        SignatureError: for signatures that are missing, broken or made with other options, and for too little memory.
    """
    if options.verify is not None and options.signatures.bands and fetch_text is None:
        raise SignatureError("verify needs texts: give fetch_text, or set verify to null")
    if options.measure == "containment" and any(one.fixed for one in given):
        raise SignatureError("containment cannot be told from the sketches of an index; measure jaccard against it")
    inputs = Inputs(given, options.signatures, options.exact_column)
    for criterion in keep:
        if criterion.column is not None:
            inputs.common_type(criterion.column)  # values that cannot be compared are refused before the work
    with tempfile.TemporaryDirectory(prefix="match-", suffix=".tmp", dir=scratch) as folder:
        candidates = find_candidates(inputs, options.signatures, Path(folder), memory)
        left = _memory_left(inputs.num_documents, candidates, len(keep), memory)
        involved = _Involved(inputs, candidates, keep)
        sets = None
        if options.verify is not None and fetch_text is not None and candidates.groups.num_members:
            sets = _read_sets(inputs, candidates, involved, options, fetch_text, Path(folder))
        result = _cluster_all(candidates, involved, sets, options, left)
        if sets is None and fetch_text is not None and options.signatures.bands:
            result = _with_similarity(inputs, result, options, fetch_text, Path(folder))
    write_layers(inputs, result, output_paths, options.suffix)
    counts = count_result(inputs, candidates, result, options.max_cluster, options.max_lost)
    return {**counts, "dates_unread": involved.dates_unread}


def _memory_left(num_documents: int, candidates: Candidates, num_criteria: int, memory: int) -> int:
    """Bytes for band groups beside what each document takes.

    Raises:
        SignatureError: when the documents that have a candidate or a copy take more than the memory.
    """
    marked = np.zeros(num_documents, bool)
    candidates.groups.mark(marked)
    marked[candidates.copies.members] = True
    involved, each = int(np.count_nonzero(marked)), _BYTES_PER_INVOLVED + _BYTES_PER_CRITERION * num_criteria
    needed = num_documents * STATE_BYTES + involved * each
    if needed > memory:
        raise SignatureError(
            f"{involved:,} of {num_documents:,} documents have a candidate or a copy: "
            f"{num_documents:,} x {STATE_BYTES} + {involved:,} x {each} bytes = {needed / 2**30:.3g} GiB, and matching "
            f"may take {memory / 2**30:.3g} GiB; raise execution.memory by {(needed - memory) / 2**30:.3g} GiB or drop "
            "exact copies by a step of their own first"
        )
    return max(memory - needed, memory // 8)


class _Involved:
    """Documents that have a candidate or a copy, numbered by `place` in canonical order, and their preference.

    `representative[place]` is the place of the first exact copy (itself mostly), which stands in the band groups;
    `rank` is the preference of each, `group_rank` that of its best copy, `best` where that copy is. `dates_unread`
    counts dates that are none.
    """

    def __init__(self, inputs: Inputs, candidates: Candidates, keep: Sequence[keeping.Criterion]) -> None:
        marked = np.zeros(inputs.num_documents, bool)
        candidates.groups.mark(marked)
        self.grouped = np.flatnonzero(marked)  # documents in band groups
        marked[candidates.copies.members] = True
        self.documents = np.flatnonzero(marked)
        self.place_of = np.cumsum(marked, dtype=candidates.parent.dtype)  # by document, counted from 1
        self.place_of -= 1
        inputs_of = inputs.input_of(self.documents)
        self.fixed = (
            np.array([one.fixed for one in inputs.inputs], bool)[inputs_of] if len(inputs_of) else np.zeros(0, bool)
        )
        sources = [one.source for one in inputs.inputs]
        self.criteria = ["index", *(criterion.name for criterion in keep)]
        self.dates_unread = 0
        self.places = [1 - self.fixed.astype(np.int64)]
        for criterion in keep:
            if criterion.pattern is not None:
                self.places.append(keeping.source_places(criterion, sources)[inputs_of])
            else:
                values = inputs.values(str(criterion.column), self.documents)
                if criterion.order == keeping.NEWEST:
                    values, unread = read_dates(values)
                    self.dates_unread += unread
                self.places.append(keeping.column_places(criterion, values))
        self.rank = keeping.ranks(self.places, len(self.documents))
        self._join_copies(candidates.copies)

    def _join_copies(self, copies: Runs) -> None:
        self.representative = np.arange(len(self.documents))
        members = self.place_of[copies.members]
        sizes = np.diff(copies.starts)
        self.representative[members] = np.repeat(members[copies.starts[:-1]], sizes)
        self.best = np.arange(len(self.documents))
        order = np.argsort(-self.rank, kind="stable")  # best last, so that its assignment stays
        self.best[self.representative[order]] = order
        self.best = self.best[self.representative]
        self.group_rank = self.rank[self.best]
        self.group_fixed = self.fixed[self.best]  # fixed documents rank first


def _read_sets(
    inputs: Inputs,
    candidates: Candidates,
    involved: _Involved,
    options: MatchOptions,
    fetch_text: FetchText,
    folder: Path,
) -> ShingleSets:
    """Shingle sets of all documents in band groups, read in shard order."""
    sets = ShingleSets(folder / "shingles", len(involved.documents))
    places = involved.place_of[involved.grouped]
    bounds = np.searchsorted(involved.grouped, inputs.offsets)
    for number in range(len(inputs.inputs)):
        first, last = bounds[number], bounds[number + 1]
        if first == last:
            continue
        rows = involved.grouped[first:last] - inputs.offsets[number]
        _add_sets(sets, inputs, number, places[first:last], rows, options, fetch_text)
    return sets


def _add_sets(
    sets: ShingleSets,
    inputs: Inputs,
    number: int,
    places: np.ndarray,
    rows: np.ndarray,
    options: MatchOptions,
    fetch_text: FetchText,
) -> None:
    """Add what is known of some rows of an input: an index's sketches, else sets of their texts."""
    if inputs.inputs[number].fixed:
        for chosen, found in inputs.sketches(number, rows):
            sets.add_sketches(places[chosen], found)
        return
    texts = fetch_text(inputs.places[number], rows)
    if texts is not None:
        sets.add(places, texts, options.signatures)


def _with_similarity(
    inputs: Inputs, result: Result, options: MatchOptions, fetch_text: FetchText, folder: Path
) -> Result:
    """Where nothing was checked: measure how similar each dropped document is to the one that stays."""
    wanted = np.flatnonzero(result.dropped & np.isnan(result.similarity))
    if not len(wanted):
        return result
    sets = ShingleSets(folder / "of_dropped", len(result.documents))
    places = np.unique(np.concatenate([wanted, result.survivor[wanted]]))
    bounds = np.searchsorted(result.documents[places], inputs.offsets)
    for number in range(len(inputs.inputs)):
        here = places[bounds[number] : bounds[number + 1]]
        if len(here):
            rows = result.documents[here] - inputs.offsets[number]
            _add_sets(sets, inputs, number, here, rows, options, fetch_text)
    similarity = result.similarity.copy()
    similarity[wanted] = sets.similarity(result.survivor[wanted], wanted, options.measure)
    return replace(result, similarity=similarity)


def _cluster_all(
    candidates: Candidates, involved: _Involved, sets: ShingleSets | None, options: MatchOptions, memory: int
) -> Result:
    """Cluster the band groups, part by part of their connected components where they are many, and add exact copies."""
    num_involved = len(involved.documents)
    centre, similarity = np.arange(num_involved), np.full(num_involved, np.nan, np.float32)
    checked = rejected = unlisted = 0
    num_parts = 1 + candidates.groups.num_members * _BYTES_PER_MEMBER // max(memory, 1)
    num_parts = max(num_parts, 1 + candidates.groups.num_members // _MOST_MEMBERS)
    part_of = _parts_of_components(candidates, num_parts) if num_parts > 1 else None
    for part in range(num_parts):
        runs = candidates.groups.read() if part_of is None else candidates.groups.read_part(part_of, part)
        if len(runs.members) == 0:
            continue
        places, local_centre, local_similarity, pairs, left_out = _cluster_part(runs, involved, sets, options)
        centre[places], similarity[places] = places[local_centre], local_similarity
        checked += len(pairs.keys)
        rejected += int(np.count_nonzero(pairs.similarity < (options.verify or 0)))
        unlisted += left_out
    return _with_copies(involved, centre, similarity, (checked, rejected, unlisted))


def _parts_of_components(candidates: Candidates, num_parts: int) -> np.ndarray:
    nodes = np.arange(len(candidates.parent), dtype=candidates.parent.dtype)
    roots = np.empty_like(nodes)
    clustering.find_roots(candidates.parent, nodes, roots)
    return (roots % num_parts).astype(np.uint16)


def _cluster_part(
    runs: Runs, involved: _Involved, sets: ShingleSets | None, options: MatchOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, clustering.Pairs, int]:
    """Cluster some groups; returns (places by rank, centre, similarity, measured pairs, unlisted documents)."""
    members = involved.place_of[runs.members]
    present = np.zeros(len(involved.documents), bool)
    present[members] = True
    places = np.flatnonzero(present)
    places = places[np.argsort(involved.group_rank[places], kind="stable")]
    local = np.zeros(len(involved.documents), np.int32)
    local[places] = np.arange(len(places), dtype=np.int32)
    ranked = Runs(runs.starts, local[members])
    sort_runs(ranked.starts, ranked.members)
    threshold = options.verify if sets is not None else None
    known = clustering.no_pairs()
    inverse = clustering.invert_runs(ranked.starts, ranked.members, len(places)) if options.cluster == "star" else None
    while True:
        if inverse is not None:
            found = clustering.star(ranked, inverse, involved.group_fixed[places], known, threshold)
        else:
            found = clustering.components(ranked, len(places), known, threshold)
        if not len(found.asked) or sets is None:
            break
        known = clustering.add_pairs(known, found.asked, _measure(sets, places, found.asked, options.measure))
    similarity = found.similarity
    if inverse is None and sets is not None:
        similarity = _similarity_to_centre(sets, places, found.centre, options.measure)
    return places, found.centre, similarity, known, found.unlisted


def _measure(sets: ShingleSets, places: np.ndarray, keys: np.ndarray, measure: str) -> np.ndarray:
    better, worse = (
        places[(keys >> np.uint64(32)).astype(np.int64)],
        places[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)],
    )
    return sets.similarity(better, worse, measure)


def _similarity_to_centre(sets: ShingleSets, places: np.ndarray, centre: np.ndarray, measure: str) -> np.ndarray:
    similarity = np.full(len(places), np.nan, np.float32)
    moved = np.flatnonzero(centre != np.arange(len(places)))
    similarity[moved] = sets.similarity(places[centre[moved]], places[moved], measure)
    return similarity


def _with_copies(
    involved: _Involved, centre: np.ndarray, similarity: np.ndarray, pairs: tuple[int, int, int]
) -> Result:
    """Survivor and similarity of every involved document: copies follow the one that stood for them."""
    representative = involved.representative
    centre_of = centre[representative]
    survivor = involved.best[centre_of]
    similar = np.where(centre_of == representative, np.float32(1), similarity[representative]).astype(np.float32)
    everyone = np.arange(len(centre))
    survivor = np.where(involved.fixed, everyone, survivor)
    return Result.make(involved.documents, survivor, similar, involved.rank, involved.places, involved.criteria, pairs)
