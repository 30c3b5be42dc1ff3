"""How much collections share: documents of each that have an exact or a near copy in another, and examples of pairs.

A collection is a source or an index. Documents are exact copies where their hashes are equal, and near copies where
they share a band and their texts (or an index's sketches) are at least so similar. Nothing is dropped and no copy is
preferred, so a document counts for every collection that has a copy of it.

Memory: 25 bytes a document beside what matching keeps, and 24 bytes a candidate pair of a piece of the band groups.
Disk: what matching and verification take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.dedup.candidates import Candidates, find_candidates
from curation.dedup.inputs import Inputs, MatchInput
from curation.dedup.minhash import Options, SignatureError
from curation.dedup.shingle import mix
from curation.dedup.spill import Runs
from curation.dedup.verify import FetchText, ShingleSets
from curation.kernels import kernel

MOST_COLLECTIONS = 64  # bits of a mark
SMALL_GROUP = 16  # band groups up to this size are compared pair by pair
_OF_EACH = 8  # in larger ones a document is compared with so many of each collection
_PIECE = 1 << 20  # members of band groups whose pairs are held at once


@dataclass(frozen=True)
class CompareOptions:
    """What counts as a copy, and how many pairs are shown.

    Args:
        signatures: options the signatures were made with; zero bands compare exact copies only.
        exact_column: `content_id` compares raw text.
        similarity: least Jaccard similarity of near copies, by shingles.
        examples: pairs to return for each two collections, exact and near; chosen by a hash, the same each time.
    """

    signatures: Options
    exact_column: str = "exact"
    similarity: float = 0.8
    examples: int = 3


@dataclass(frozen=True)
class Pair:
    """Two documents that are copies: (place of the input in the caller's list, row) of each, and their similarity."""

    one: tuple[int, int]
    other: tuple[int, int]
    similarity: float


@dataclass(frozen=True)
class Overlap:
    """Counts by (row collection, column collection): int64 (n, n); the diagonal is copies inside a collection.

    `exact` documents have an exact copy there, `near` only near ones; `characters` are those of both, where known.
    `pairs` are examples by (row, column) with row <= column.
    """

    documents: np.ndarray
    characters: np.ndarray
    exact: np.ndarray
    near: np.ndarray
    shared_characters: np.ndarray
    pairs: dict[tuple[int, int], list[Pair]]


def find_overlap(
    given: Sequence[MatchInput],
    collection_of: Sequence[int],
    options: CompareOptions,
    folder: Path,
    memory: int,
    fetch_text: FetchText,
) -> Overlap:
    """Compare all documents of some collections.

    Args:
        given: signature files.
        collection_of: number of each one's collection.
        options: what counts as a copy.
        folder: empty scratch folder.
        memory: bytes to stay within.
        fetch_text: texts of rows, to measure similarities.

    Raises:
        SignatureError: for more than 64 collections, broken files, other options, or too little memory.
    """
    count = max(collection_of, default=-1) + 1
    if count > MOST_COLLECTIONS:
        raise SignatureError(f"{count} collections: at most {MOST_COLLECTIONS} can be compared at once; name fewer")
    inputs = Inputs(given, options.signatures, options.exact_column)
    candidates = find_candidates(inputs, options.signatures, folder, memory)
    marks = _Marks.make(inputs, np.array(collection_of, np.uint8), candidates)
    chosen = _Examples(count, options.examples)
    _chosen_exact(candidates.copies, marks, chosen)
    if candidates.groups.num_members:
        sets = _SetsOf(inputs, candidates, options.signatures, folder, fetch_text)
        _mark_near(candidates, marks, sets, np.float32(options.similarity), chosen)
    _spread_to_copies(candidates.copies.starts, candidates.copies.members, marks.near)
    return _counted(inputs, candidates, marks, count, chosen)


@dataclass(frozen=True)
class _Marks:
    """Arrays by document: collection; bits of collections with an exact, with a near copy; of its copies and itself."""

    collection: np.ndarray
    exact: np.ndarray
    near: np.ndarray
    whole: np.ndarray

    @classmethod
    def make(cls, inputs: Inputs, collection_of: np.ndarray, candidates: Candidates) -> _Marks:
        """Marks of exact copies."""
        by_input = collection_of[inputs.places] if len(inputs.places) else collection_of
        collection = np.repeat(by_input, np.diff(inputs.offsets))
        whole = np.uint64(1) << collection.astype(np.uint64)
        exact = np.zeros(len(collection), np.uint64)
        _mark_exact(candidates.copies.starts, candidates.copies.members, collection, exact, whole)
        return cls(collection, exact, np.zeros(len(collection), np.uint64), whole)


@kernel
def _mark_exact(
    starts: np.ndarray, members: np.ndarray, collection: np.ndarray, exact: np.ndarray, whole: np.ndarray
) -> None:
    for run in range(starts.shape[0] - 1):
        seen, twice = np.uint64(0), np.uint64(0)
        for place in range(starts[run], starts[run + 1]):
            bit = np.uint64(1) << np.uint64(collection[members[place]])
            twice |= seen & bit
            seen |= bit
        for place in range(starts[run], starts[run + 1]):
            bit = np.uint64(1) << np.uint64(collection[members[place]])
            exact[members[place]] = (seen & ~bit) | (twice & bit)
            whole[members[place]] = seen


@kernel
def _spread_to_copies(starts: np.ndarray, members: np.ndarray, near: np.ndarray) -> None:
    """Give every exact copy the marks of the one that stood for it in the band groups."""
    for run in range(starts.shape[0] - 1):
        for place in range(starts[run] + 1, starts[run + 1]):
            near[members[place]] = near[members[starts[run]]]


@kernel
def _list_pairs(
    starts: np.ndarray,
    members: np.ndarray,
    collection: np.ndarray,
    near: np.ndarray,
    whole: np.ndarray,
    out: np.ndarray,
) -> Any:
    """Pairs of each group that could still tell something, as (smaller << 32 | larger); returns how many there are.

    Those beyond the length of `out` are counted only.
    """
    found = 0
    bounds = np.zeros(4 * MOST_COLLECTIONS, np.int64)
    for run in range(starts.shape[0] - 1):
        first, last = starts[run], starts[run + 1]
        small = last - first <= SMALL_GROUP
        segments = 1 if small else _segments(members, collection, first, last, bounds)
        for place in range(first, last):
            for segment in range(segments):
                low = place + 1 if small else bounds[segment]
                high = last if small else bounds[segment + 1]
                for step in range(high - low if small else min(_OF_EACH, high - low)):
                    other = low + (step if small else (place - first + step) % (high - low))
                    a, b = members[min(place, other)], members[max(place, other)]
                    told = (whole[b] & ~near[a]) == 0 and (whole[a] & ~near[b]) == 0
                    if other != place and not told:
                        if found < out.shape[0]:
                            out[found] = (np.uint64(a) << np.uint64(32)) | np.uint64(b)
                        found += 1
    return found


@kernel
def _segments(members: np.ndarray, collection: np.ndarray, first: Any, last: Any, bounds: np.ndarray) -> Any:
    """Where the collections of a group's members begin, and its end, into `bounds`; returns how many there are."""
    segments = 0
    for place in range(first, last):
        begins = place == first or collection[members[place]] != collection[members[place - 1]]
        if begins and segments < bounds.shape[0] - 1:
            bounds[segments] = place
            segments += 1
    bounds[segments] = last
    return segments


@kernel
def _mark_pairs(one: np.ndarray, other: np.ndarray, whole: np.ndarray, near: np.ndarray) -> None:
    for pair in range(one.shape[0]):
        near[one[pair]] |= whole[other[pair]]
        near[other[pair]] |= whole[one[pair]]


def _mark_near(candidates: Candidates, marks: _Marks, sets: _SetsOf, threshold: np.float32, chosen: _Examples) -> None:
    for runs in candidates.groups.pieces(_PIECE):
        keys = _pairs_of(runs, marks)
        if not len(keys):
            continue
        one, other = (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        measured = sets.similarity(one, other)
        alike = measured >= threshold
        one, other, measured = one[alike], other[alike], measured[alike]
        _mark_pairs(one, other, marks.whole, marks.near)
        chosen.add(marks.collection, one, other, measured, exact=False)


def _pairs_of(runs: Runs, marks: _Marks) -> np.ndarray:
    out = np.zeros(4 * len(runs.members), np.uint64)
    while True:
        found = _list_pairs(runs.starts, runs.members, marks.collection, marks.near, marks.whole, out)
        if found <= len(out):
            return np.unique(out[:found])
        out = np.zeros(found, np.uint64)


class _SetsOf:
    """Shingle sets of all documents that have a candidate, from texts and sketches, read in shard order."""

    def __init__(
        self, inputs: Inputs, candidates: Candidates, options: Options, folder: Path, fetch_text: FetchText
    ) -> None:
        grouped = np.zeros(inputs.num_documents, bool)
        candidates.groups.mark(grouped)
        self._documents = np.flatnonzero(grouped)
        self._sets = ShingleSets(folder / "shingles", len(self._documents))
        bounds = np.searchsorted(self._documents, inputs.offsets)
        for number, one in enumerate(inputs.inputs):
            places = np.arange(bounds[number], bounds[number + 1])
            rows = self._documents[places] - inputs.offsets[number]
            if one.fixed:
                for part, found in inputs.sketches(number, rows):
                    self._sets.add_sketches(places[part], found)
            elif len(rows):
                texts = fetch_text(inputs.places[number], rows)
                if texts is not None:
                    self._sets.add(places, texts, options)

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Similarity of pairs of documents; NaN where one has neither text nor sketch."""
        places = [np.searchsorted(self._documents, documents) for documents in (one, other)]
        return self._sets.similarity(places[0], places[1], "jaccard")


# ---------------------------------------------------------------- examples


class _Examples:
    """A few pairs for each two collections: those with the smallest hash, the same whatever the order of work."""

    def __init__(self, count: int, most: int) -> None:
        self._count, self._most = count, most
        self.found: dict[tuple[int, int, bool], list[tuple[int, int, int, float]]] = {}

    def add(
        self, collection: np.ndarray, one: np.ndarray, other: np.ndarray, similarity: np.ndarray, *, exact: bool
    ) -> None:
        """Offer pairs of documents."""
        if not len(one) or not self._most:
            return
        code = collection[one].astype(np.int64) * self._count + collection[other]
        hashed = _hashes((one.astype(np.uint64) << np.uint64(32)) ^ other.astype(np.uint64))
        order = np.lexsort((hashed, code))
        place_in_code = np.arange(len(order)) - np.searchsorted(code[order], code[order])
        for pair in order[place_in_code < self._most].tolist():
            row, column = divmod(int(code[pair]), self._count)
            best = self.found.setdefault((min(row, column), max(row, column), exact), [])
            both = (int(one[pair]), int(other[pair])) if row <= column else (int(other[pair]), int(one[pair]))
            entry = (int(hashed[pair]), *both, float(similarity[pair]))
            if entry not in best:
                best.append(entry)
                best.sort()
                del best[self._most :]


@kernel
def _hash_all(keys: np.ndarray, out: np.ndarray) -> None:
    for place in range(keys.shape[0]):
        out[place] = mix(keys[place])


def _hashes(keys: np.ndarray) -> np.ndarray:
    out = np.zeros(len(keys), np.uint64)
    _hash_all(keys, out)
    return out


def _chosen_exact(copies: Runs, marks: _Marks, chosen: _Examples) -> None:
    """Offer each copy beside the first of its group and beside the one before."""
    if len(copies.members) == 0:
        return
    firsts = np.repeat(copies.members[copies.starts[:-1]], np.diff(copies.starts))
    is_first = np.zeros(len(copies.members), bool)
    is_first[copies.starts[:-1]] = True
    later = np.flatnonzero(~is_first)
    for others in (firsts[later], copies.members[later - 1]):
        ones = np.ones(len(later), np.float32)
        chosen.add(marks.collection, others.astype(np.int64), copies.members[later].astype(np.int64), ones, exact=True)


# ---------------------------------------------------------------- counts


@kernel
def _count_bits(collection: np.ndarray, marked: np.ndarray, weight: np.ndarray, count: int, out: np.ndarray) -> None:
    for document in range(collection.shape[0]):
        bits = marked[document]
        column = 0
        while bits != 0:
            if bits & np.uint64(1):
                out[collection[document], column] += weight[document]
            bits >>= np.uint64(1)
            column += 1


def _counted(inputs: Inputs, candidates: Candidates, marks: _Marks, count: int, chosen: _Examples) -> Overlap:
    near = marks.near & ~marks.exact
    tables = [np.zeros((count, count), np.int64) for _ in range(3)]
    ones = np.ones(len(near), np.int64)
    _count_bits(marks.collection, marks.exact, ones, count, tables[0])
    _count_bits(marks.collection, near, ones, count, tables[1])
    documents, characters = np.zeros(count, np.int64), np.zeros(count, np.int64)
    with_characters = inputs.has("num_characters")
    for number in range(len(inputs.inputs)):
        here = np.arange(inputs.offsets[number], inputs.offsets[number + 1])
        if not len(here):
            continue
        collection = marks.collection[here]
        documents[collection[0]] += candidates.num_alive_by_input[number]
        if with_characters:
            values = inputs.values("num_characters", here).fill_null(0).to_numpy().astype(np.int64)
            alive = inputs.alive(number)
            characters[collection[0]] += int((values if alive is None else values[alive]).sum())
            _count_bits(collection, (marks.exact | near)[here], values, count, tables[2])
    pairs: dict[tuple[int, int], list[Pair]] = {}
    for (row, column, _), entries in sorted(
        chosen.found.items(), key=lambda one: (one[0][0], one[0][1], not one[0][2])
    ):
        pairs.setdefault((row, column), []).extend(_pair(inputs, *entry[1:]) for entry in entries)
    return Overlap(documents, characters, tables[0], tables[1], tables[2], pairs)


def _pair(inputs: Inputs, one: int, other: int, similarity: float) -> Pair:
    numbers = inputs.input_of(np.array([one, other]))
    places = [
        (inputs.places[int(number)], int(document - inputs.offsets[number]))
        for number, document in zip(numbers, (one, other))
    ]
    return Pair(places[0], places[1], similarity)
