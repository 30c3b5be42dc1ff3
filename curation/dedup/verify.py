"""Checking candidate pairs: exact Jaccard similarity or containment of their shingle sets.

The text of every document that has a candidate is read once, in shard order; its sorted distinct shingle hashes go to a
file that pairs are then looked up in. Disk: 8 bytes a shingle, about the size of the text. Memory: one batch of text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.dedup.fold import load_fold
from curation.dedup.minhash import Options
from curation.dedup.shingle import sorted_sets, text_buffers
from curation.kernels import kernel

FetchText = Callable[[int, np.ndarray], Iterable[pa.Array] | None]
"""(place of the input in the caller's list, its rows ascending) -> the rows' texts as arrays one after another; null
where that input has no text at hand."""


class ShingleSets:
    """Sorted shingle hashes of numbered documents on disk."""

    def __init__(self, path: Path, num_documents: int) -> None:
        self._path = path
        self._starts = np.zeros(num_documents, np.int64)
        self._sizes = np.full(num_documents, -1, np.int64)  # -1: no text at hand
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

    def similarity(self, better: np.ndarray, worse: np.ndarray, measure: str) -> np.ndarray:
        """Similarity of pairs of documents, float32; NaN where one has no text at hand."""
        hashes = np.memmap(self._path, np.uint64, "r") if self._filled else np.zeros(0, np.uint64)
        out = np.zeros(len(better), np.float32)
        _similarities(hashes, self._starts, self._sizes, better, worse, measure == "containment", out)
        return out


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


@kernel
def _similarities(
    hashes: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
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
        while a < end_a and b < end_b:
            left, right = hashes[a], hashes[b]
            common += left == right
            a += left <= right
            b += right <= left
        whole = min(size_a, size_b) if containment else size_a + size_b - common
        out[pair] = common / whole if whole > 0 else 0.0
