"""Checking candidate pairs: exact Jaccard similarity or containment of their shingle sets.

The text of every document that has a candidate is read once, in shard order; its sorted distinct shingle hashes go to a
file that pairs are then looked up in. Disk: 8 bytes a shingle, about the size of the text. Memory: one batch of text.

A document of an index has no text at hand but a **sketch**: its `SKETCH_SIZE` smallest distinct shingle hashes, 32
bits each. Of a document of up to so many shingles the similarity is exact (but for 32-bit collisions); of longer ones
it is the share of common hashes among the smallest of both, with a standard deviation of sqrt(s (1 - s) / SKETCH_SIZE),
0.025 at 0.8. Source: bottom-k sketches, Cohen and Kaplan 2007; the estimator of Broder 1997.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.dedup.fold import load_fold
from curation.dedup.minhash import Options
from curation.dedup.shingle import sorted_sets, text_buffers
from curation.kernels import kernel

FetchText = Callable[[int, np.ndarray], Iterable[pa.Array] | None]
"""(place of the input in the caller's list, its rows ascending) -> the rows' texts as arrays one after another; null
where that input has no text at hand."""

SKETCH_SIZE = 256  # hashes of a sketch: at most 1 KiB a document
_HALF = np.uint64(32)


class ShingleSets:
    """Sorted shingle hashes of numbered documents on disk."""

    def __init__(self, path: Path, num_documents: int) -> None:
        self._path = path
        self._starts = np.zeros(num_documents, np.int64)
        self._sizes = np.full(num_documents, -1, np.int64)  # -1: neither text nor sketch at hand
        self._sketched = np.zeros(num_documents, bool)
        self._filled = 0

    def add(self, documents: np.ndarray, texts: Iterable[pa.Array], options: Options) -> None:
        """Append the sets of `documents` from their texts, given in the same order.

        Raises:
            ValueError: if the texts are fewer or more than the documents.
        """
        done = 0
        with self._path.open("ab") as file:
            for text in texts:
                hashes, ends = shingle_sets(text, options)
                hashes.tofile(file)
                chosen = documents[done : done + len(text)]
                if len(chosen) < len(text):
                    raise ValueError(f"fetch_text gave more texts than the {len(documents)} rows asked for")
                starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
                self._starts[chosen] = self._filled + starts
                self._sizes[chosen] = ends - starts
                self._filled += len(hashes)
                done += len(text)
        if done != len(documents):
            raise ValueError(
                f"fetch_text gave {done} texts for {len(documents)} rows; it must give one for each, in order"
            )

    def add_sketches(self, documents: np.ndarray, sketches: pa.ListArray) -> None:
        """Append the sketches of `documents`, given in the same order; null is a document without one."""
        present = np.flatnonzero(sketches.is_valid().to_numpy(zero_copy_only=False))
        sizes = np.asarray(sketches.value_lengths().to_numpy(zero_copy_only=False))[present].astype(np.int64)
        hashes = sketches.flatten().to_numpy().astype(np.uint64) << _HALF
        with self._path.open("ab") as file:
            hashes.tofile(file)
        chosen = documents[present]
        self._starts[chosen] = self._filled + np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else 0
        self._sizes[chosen] = sizes
        self._sketched[chosen] = True
        self._filled += len(hashes)

    def similarity(self, better: np.ndarray, worse: np.ndarray, measure: str) -> np.ndarray:
        """Similarity of pairs of documents, float32; NaN where one has no text at hand."""
        hashes = np.memmap(self._path, np.uint64, "r") if self._filled else np.zeros(0, np.uint64)
        out = np.zeros(len(better), np.float32)
        containment = measure == "containment"
        _similarities(hashes, self._starts, self._sizes, self._sketched, better, worse, containment, out)
        return out


def sketches(text: pa.Array, options: Options) -> pa.ListArray:
    """Sketch of each text: its smallest distinct shingle hashes, rising; null without text or shingle.

    Returns:
        list<uint32>, the upper halves of the hashes, at most `SKETCH_SIZE`.
    """
    hashes, ends = shingle_sets(text, options)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    sizes = np.minimum(ends - starts, SKETCH_SIZE)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    places = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    taken = (hashes[places] >> _HALF).astype(np.uint32)
    absent = np.append(sizes == 0, False)
    return pa.ListArray.from_arrays(pa.array(offsets, mask=absent), pa.array(taken))


def shingle_sets(text: pa.Array, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct shingle hashes of each text, one after another (uint64), and where each text's end (int64)."""
    content, offsets, _ = text_buffers(text)
    room = int(offsets[-1] - offsets[0]) + 64
    ends = np.zeros(len(text), np.int64)
    fold, characters = tuple(load_fold(options.normalize)), options.unit == "characters"
    while True:
        out = np.empty(room, np.uint64)
        needed = sorted_sets(content, offsets, fold, characters, options.shingle, out, ends)
        if needed <= room:
            return out[: ends[-1] if len(ends) else 0], ends
        room = 20 * room  # compatibility letters expand up to 18-fold


def sketch_similarity(one: Sequence[int], other: Sequence[int]) -> float:
    """Jaccard similarity of two documents by their sketches, exact where both have fewer than `SKETCH_SIZE` hashes."""
    sets = [np.array(hashes, np.uint64) << _HALF for hashes in (one, other)]
    return float(_sketched_similarity(sets[0], sets[1], SKETCH_SIZE in (len(one), len(other))))


@kernel
def _similarities(
    hashes: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    sketched: np.ndarray,
    better: np.ndarray,
    worse: np.ndarray,
    containment: bool,
    out: np.ndarray,
) -> None:
    for pair in range(better.shape[0]):
        a, b = starts[better[pair]], starts[worse[pair]]
        size_a, size_b = sizes[better[pair]], sizes[worse[pair]]
        if size_a < 0 or size_b < 0:
            out[pair] = np.nan
            continue
        end_a, end_b, common = a + size_a, b + size_b, 0
        if sketched[better[pair]] or sketched[worse[pair]]:
            out[pair] = _sketched_similarity(
                hashes[a:end_a],
                hashes[b:end_b],
                (sketched[better[pair]] and size_a >= SKETCH_SIZE) or (sketched[worse[pair]] and size_b >= SKETCH_SIZE),
            )
            continue
        while a < end_a and b < end_b:
            left, right = hashes[a], hashes[b]
            common += left == right
            a += left <= right
            b += right <= left
        whole = min(size_a, size_b) if containment else size_a + size_b - common
        out[pair] = common / whole if whole > 0 else 0.0


@kernel
def _sketched_similarity(one: np.ndarray, other: np.ndarray, cut: Any) -> Any:
    """Jaccard similarity by upper halves; `cut`: one is a sketch of more shingles than it holds, so only the
    `SKETCH_SIZE` smallest hashes of both together can be judged.
    """
    a, b, common, whole = 0, 0, 0, 0
    while (a < one.shape[0] or b < other.shape[0]) and not (cut and whole == SKETCH_SIZE):
        whole += 1
        if b == other.shape[0]:
            a += 1
            continue
        if a == one.shape[0]:
            b += 1
            continue
        left, right = one[a] >> _HALF, other[b] >> _HALF
        common += left == right
        a += left <= right
        b += right <= left
    return common / whole if whole > 0 else 0.0
