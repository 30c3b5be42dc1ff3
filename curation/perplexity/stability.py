"""How buckets move: with the size of the sample they were cut on, with document length, with the model's order.

Plain arrays in, shares of documents out; who draws the sample and scores it is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.perplexity.buckets import cutoffs, histogram


def levels(perplexity: np.ndarray, limits: Sequence[float]) -> np.ndarray:
    """Level of each perplexity, 0 for the head; a cutoff belongs to the level above it, as in `buckets.assign`."""
    found: np.ndarray = np.searchsorted(np.asarray(limits), perplexity, side="right")
    return found


@dataclass(frozen=True)
class Moved:
    """Documents the buckets were cut on, where, and the share of all documents that another cut puts elsewhere."""

    documents: int
    limits: tuple[float, ...]
    share: float


def by_sample_size(perplexity: np.ndarray, limits: Sequence[float], parts: Sequence[int] = (4, 16, 64)) -> list[Moved]:
    """Cut anew on the first 1/4, 1/16, … of the documents, at the shares that `limits` have among all of them.

    Args:
        perplexity: of documents in random order (such as by content id), float64.
        limits: the cutoffs in use.
        parts: how small the samples are; those of less than 10 documents are left out.
    """
    ordered = np.sort(perplexity)
    shares = [float(np.searchsorted(ordered, limit, side="left")) / max(1, len(ordered)) for limit in limits]
    if not all(0 < share < 1 for share in shares) or sorted(set(shares)) != shares:
        return []  # a bucket is empty, so there is nothing to cut at its share
    now, found = levels(perplexity, limits), []
    for part in parts:
        sample = perplexity[: len(perplexity) // part]
        if len(sample) >= 10:
            again = cutoffs(histogram(pa.array(sample)), shares)
            found.append(Moved(len(sample), again, float(np.mean(levels(perplexity, again) != now))))
    return found


def by_length(
    perplexity: np.ndarray, characters: np.ndarray, limits: Sequence[float], parts: int = 4
) -> list[tuple[int, int, int, tuple[float, ...]]]:
    """Shares of the levels among the shortest quarter of the documents, the next, …

    Returns:
        For each quarter: fewest and most characters, documents, share of each level.
    """
    order = np.argsort(characters, kind="stable")
    found = []
    for chosen in np.array_split(order, parts):
        if len(chosen):
            level = np.bincount(levels(perplexity[chosen], limits), minlength=len(limits) + 1)
            shares = tuple((level / len(chosen)).tolist())
            found.append((int(characters[chosen].min()), int(characters[chosen].max()), len(chosen), shares))
    return found


def same_ranks(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two scorings of the same documents; 1 where either does not vary."""
    ranks = [np.argsort(np.argsort(values, kind="stable")).astype(np.float64) for values in (one, other)]
    if len(one) < 2 or any(np.ptp(values) == 0 for values in (one, other)):
        return 1.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def by_order(whole: np.ndarray, shorter: np.ndarray, limits: Sequence[float]) -> tuple[float, float]:
    """Share of documents in another bucket when a shorter model ranks them, and the rank correlation.

    The shorter model's cutoffs are the perplexities at the same ranks, since perplexities of two models do not compare.
    """
    now = levels(whole, limits)
    ranks = np.argsort(np.argsort(shorter, kind="stable"))
    edges = np.cumsum(np.bincount(now, minlength=len(limits) + 1))[:-1]
    return float(np.mean(np.searchsorted(edges, ranks, side="right") != now)), same_ranks(whole, shorter)
