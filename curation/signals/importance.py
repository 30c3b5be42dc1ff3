"""Importance of documents for a target text: DSIR's log odds of hashed word 1- and 2-grams.

    python -m curation.signals.importance --target books.parquet --source web.parquet --out books.npz

Both sides are counted over (up to) 500,000 documents into 10,000 buckets; a document's importance is the sum over its
n-grams of log(p_target + 1e-8) - log(p_source + 1e-8). RedPajama-V2 hashes with Python's own `hash`, so its count files
do not fit ours: words are its raw words (`curation.signals.raw_words`), hashed by gristmill.
Source: Xie et al. 2023, arXiv:2302.03169; parameters of Weber et al. 2024, arXiv:2411.12372.
"""

# mypy: disable-error-code="return-value"
# (numba infers the types inside kernels)
from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.kernels import kernel
from curation.signals.raw_words import raw_words
from curation.signals.signal import GivenFileError

BUCKETS = 10_000
DOCUMENTS = 500_000
_SMALLEST = 1e-8
_BIGRAM = 0xD6E8FEB86659FD93  # odd: the first word's part of a pair


@kernel
def _count(hashes: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> None:
    """Count 1- and 2-grams of all rows by bucket."""
    for row in range(offsets.shape[0] - 1):
        for i in range(offsets[row], offsets[row + 1]):
            counts[_bucket(hashes[i], counts.shape[0])] += 1
            if i + 1 < offsets[row + 1]:
                counts[_bucket(hashes[i] * np.uint64(_BIGRAM) + hashes[i + 1], counts.shape[0])] += 1


@kernel
def _bucket(value: np.uint64, buckets: int) -> int:
    """Bucket of a hash by its high bits; a polynomial's low bits follow its last character."""
    value = (value ^ (value >> np.uint64(32))) * np.uint64(_BIGRAM)
    return np.int64((value >> np.uint64(33)) % np.uint64(buckets))


@kernel
def _sum(hashes: np.ndarray, offsets: np.ndarray, odds: np.ndarray, found: np.ndarray) -> None:
    for row in range(found.shape[0]):
        total = 0.0
        for i in range(offsets[row], offsets[row + 1]):
            total += odds[_bucket(hashes[i], odds.shape[0])]
            if i + 1 < offsets[row + 1]:
                total += odds[_bucket(hashes[i] * np.uint64(_BIGRAM) + hashes[i + 1], odds.shape[0])]
        found[row] = total


@dataclass(frozen=True)
class Weights:
    """Log odds of each bucket, float64 (buckets,)."""

    odds: np.ndarray

    def measure(self, text: pa.Array) -> pa.Array:
        """Importance of each text, to 8 digits; null where it is null or empty."""
        words = raw_words(text)
        found = np.zeros(len(text))
        _sum(words.hashes, words.offsets, self.odds, found)
        empty = pc.fill_null(pc.equal(pc.binary_length(text), 0), True)
        return pa.array(np.round(found, 8), pa.float64(), mask=empty.to_numpy(zero_copy_only=False))


def counted(texts: Iterable[pa.Array], buckets: int = BUCKETS) -> np.ndarray:
    """Counts of 1- and 2-grams by bucket, int64 (buckets,). Memory: one array of texts."""
    counts = np.zeros(buckets, np.int64)
    for text in texts:
        words = raw_words(text)
        _count(words.hashes, words.offsets, counts)
    return counts


def write_weights(path: str | Path, target: np.ndarray, source: np.ndarray) -> None:
    """Keep the counts of both sides."""
    with Path(path).open("wb") as file:
        np.savez(file, target=target, source=source)


def read_weights(path: str | Path) -> Weights:
    """Read what `write_weights` wrote.

    Raises:
        GivenFileError: if it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            target, source = stored["target"].astype(np.float64), stored["source"].astype(np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise GivenFileError(
            f"{path}: no counts of importance ({error}); make them: python -m curation.signals.importance --help"
        ) from None
    if target.shape != source.shape or target.ndim != 1 or not target.sum() or not source.sum():
        raise GivenFileError(f"{path}: counts of target {target.shape} and source {source.shape} do not fit, or are 0")
    shares = [counts / counts.sum() for counts in (target, source)]
    return Weights(np.log(shares[0] + _SMALLEST) - np.log(shares[1] + _SMALLEST))


def _texts(paths: Iterable[str], column: str) -> Iterable[pa.Array]:
    left = DOCUMENTS
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=[column], use_threads=False):
                yield batch.column(0).slice(0, left).cast(pa.large_string())
                left -= batch.num_rows
                if left <= 0:
                    return


def main() -> None:
    """Count two sets of Parquet files and write their weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", required=True, help="Parquet files of text as one wants it")
    parser.add_argument("--source", nargs="+", required=True, help="Parquet files of text as one has it")
    parser.add_argument("--column", default="text", help="the column of the text")
    parser.add_argument("--out", required=True, help="the file to write")
    options = parser.parse_args()
    write_weights(
        options.out, counted(_texts(options.target, options.column)), counted(_texts(options.source, options.column))
    )


if __name__ == "__main__":
    main()
