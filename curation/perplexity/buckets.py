"""Perplexity levels: CCNet's cutoffs, given values, or percentiles of a run or of a reference corpus.

Percentiles come from histograms of constant size that add up exactly, so that any number of tasks in any order gives
the same cutoffs. A bin spans 2^-12 of its value (0.024 %: finer than CCNet's rounding to 0.1 below a perplexity of
410), and a cutoff is always a bin's edge: the number of documents below it is known exactly.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.perplexity.levels import level_names
from curation.perplexity.score import LARGEST

CCNET_CUTOFFS = Path(__file__).parent / "ccnet_cutoffs.csv"
CCNET_HEAD, CCNET_MIDDLE = 30, 60
"""The percentiles that the released cutoffs use (the paper says thirds)."""

_FRACTION_BITS = 12
_LOWEST = np.array([1.0]).view(np.int64)[0] >> (52 - _FRACTION_BITS)
BINS = int((np.array([LARGEST]).view(np.int64)[0] >> (52 - _FRACTION_BITS)) - _LOWEST) + 1


@dataclass(frozen=True)
class Histogram:
    """How many documents (or what weight of them) fall into each bin of perplexity: int64 (BINS,)."""

    counts: np.ndarray

    @property
    def total(self) -> int:
        """Everything counted."""
        return int(self.counts.sum())

    def sparse(self) -> dict[str, list[int]]:
        """Bins that are not empty, for a file."""
        used = np.flatnonzero(self.counts)
        return {"bins": used.tolist(), "counts": self.counts[used].tolist()}

    @staticmethod
    def from_sparse(stored: Mapping[str, Sequence[int]]) -> Histogram:
        """The histogram that `sparse` described."""
        counts = np.zeros(BINS, np.int64)
        counts[np.array(stored["bins"], np.int64)] = np.array(stored["counts"], np.int64)
        return Histogram(counts)


def _bins(perplexity: np.ndarray) -> np.ndarray:
    bits = np.clip(perplexity, 1.0, LARGEST).view(np.int64)
    bins: np.ndarray = (bits >> (52 - _FRACTION_BITS)) - _LOWEST
    return bins


def _edge(index: int) -> float:
    """Lowest perplexity of a bin."""
    return float(np.array([(index + _LOWEST) << (52 - _FRACTION_BITS)], np.int64).view(np.float64)[0])


def histogram(perplexity: pa.Array, weights: np.ndarray | None = None) -> Histogram:
    """Count perplexities (float64, nulls left out), each once or by an integer weight such as its bytes."""
    valid = perplexity.is_valid().to_numpy(zero_copy_only=False)
    bins = _bins(perplexity.fill_null(1.0).to_numpy(zero_copy_only=False)[valid])
    counts = np.zeros(BINS, np.int64)
    np.add.at(counts, bins, 1 if weights is None else weights[valid].astype(np.int64))
    return Histogram(counts)


def histograms(perplexity: pa.Array, groups: pa.Array) -> dict[str, Histogram]:
    """One histogram per group (language or source, strings), by name in sorted order; null groups are left out."""
    names = sorted(name for name in groups.unique().to_pylist() if name is not None)
    rows = groups.to_numpy(zero_copy_only=False)
    return {name: histogram(perplexity.filter(pa.array(rows == name))) for name in names}


def merge(parts: Iterable[Histogram]) -> Histogram:
    """Add histograms up; the order does not matter."""
    counts = np.zeros(BINS, np.int64)
    for part in parts:
        counts += part.counts
    return Histogram(counts)


def cutoffs(counted: Histogram, shares: Sequence[float]) -> tuple[float, ...]:
    """The least bin edge below which at least each share of the documents lies.

    Args:
        counted: what was scored.
        shares: rising, between 0 and 1, such as 0.3 and 0.6.

    Raises:
        ValueError: an empty histogram, or shares that do not rise.
    """
    if counted.total == 0:
        raise ValueError("no perplexities were counted, so they have no percentiles; give `values`, or score some text")
    if any(not 0 < share < 1 for share in shares) or any(a >= b for a, b in pairwise(shares)):
        raise ValueError(f"shares {list(shares)}: they must rise and lie between 0 and 1")
    below = np.cumsum(counted.counts)
    return tuple(_edge(int(np.searchsorted(below, share * counted.total, side="left")) + 1) for share in shares)


def assign(perplexity: pa.Array, limits: Sequence[float] | None) -> pa.Array:
    """The level of each perplexity: head below the first cutoff, tail from the last one on.

    Args:
        perplexity: float64, nulls allowed.
        limits: rising cutoffs; None where the language has none.

    Returns:
        Strings, null where the perplexity or the cutoffs are missing (CCNet calls these `all`).
    """
    if limits is None:
        return pa.nulls(len(perplexity), pa.string())
    if not limits or any(a > b for a, b in pairwise(limits)):
        raise ValueError(f"cutoffs {list(limits)}: at least one, and they must not fall")
    valid = perplexity.is_valid().to_numpy(zero_copy_only=False)
    level = np.searchsorted(np.array(limits), perplexity.fill_null(0.0).to_numpy(zero_copy_only=False), side="right")
    names = pa.array(level_names(len(limits)))
    return names.take(pa.array(level, pa.int64(), mask=~valid))


@functools.cache
def _ccnet_table() -> dict[str, tuple[float, ...]]:
    with CCNET_CUTOFFS.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        next(rows)
        return {row[0]: tuple(map(float, row[1:])) for row in rows}


def ccnet_percentile(language: str, percentile: int) -> float | None:
    """CCNet's released perplexity percentile (0-99) of a language; None for languages without a model."""
    table = _ccnet_table().get(language)
    return None if table is None else table[percentile]


def ccnet_cutoffs(language: str) -> tuple[float, float] | None:
    """CCNet's cutoffs of a language (its 30th and 60th percentiles); None for languages without a model.

    Source: cutoff.csv of cc_net; 48 languages, 2019 crawl, Wikipedia models. They mean nothing under other models.
    """
    head, middle = ccnet_percentile(language, CCNET_HEAD), ccnet_percentile(language, CCNET_MIDDLE)
    return None if head is None or middle is None else (head, middle)


def write_cutoffs(
    path: Path, limits: Mapping[str, Sequence[float]], counted: Mapping[str, Histogram] | None = None
) -> None:
    """Write the cutoffs of each group (language or source) to a file, groups sorted, and what was counted."""
    stored = {
        "cutoffs": {group: list(limits[group]) for group in sorted(limits)},
        "histograms": {group: counts.sparse() for group, counts in sorted((counted or {}).items())},
    }
    path.write_text(json.dumps(stored, ensure_ascii=False) + "\n", "utf-8")


def read_cutoffs(path: Path, group: str) -> tuple[float, ...] | None:
    """Cutoffs of a group from a file; None where nothing of it was scored."""
    limits = json.loads(Path(path).read_text("utf-8"))["cutoffs"].get(group)
    return None if limits is None else tuple(map(float, limits))


def read_histograms(path: Path) -> dict[str, Histogram]:
    """What was counted of each group, from a file of `write_cutoffs`."""
    stored = json.loads(Path(path).read_text("utf-8"))["histograms"]
    return {group: Histogram.from_sparse(counts) for group, counts in stored.items()}
