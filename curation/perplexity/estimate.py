# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Interpolated modified Kneser-Ney estimation, equal to KenLM's `lmplz`, over a trie of arrays.

Every n-gram w1…wn has a parent (w1…wn-1, its context) and a link (w2…wn, its suffix). Then
    adjusted count = number of links that come in (raw count for the highest order and after `<s>`),
    P(w | context) = (adjusted - discount) / sum of the siblings + gamma(context) · P(link),
so contexts are sums over neighbouring children, and lower orders are looked up through the links.

Source: Chen and Goodman 1999; Heafield, Pouzyrevsky, Clark and Koehn 2013 (adjusted counts, pruning, `<unk>`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curation.kernels import kernel
from curation.perplexity.ngrams import BEGIN, END, UNKNOWN, Trie

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the closed form fails (lmplz's `--discount_fallback`)."""


class EstimationError(ValueError):
    """A text or an option from which no model can be estimated."""


@dataclass(frozen=True)
class Discount:
    """What is taken off adjusted counts of 1, 2 and 3 or more in one order; `fallback` where the closed form failed."""

    one: float
    two: float
    more: float
    fallback: bool


@kernel
def _link_children(first, last, starts, words, links):
    """Link the children of the n-grams first…last-1: a child's link is the same word below its parent's link."""
    for parent in range(first, last):
        target = np.int64(links[parent])
        low, end = np.int64(starts[target]), np.int64(starts[target + 1])
        for child in range(np.int64(starts[parent]), np.int64(starts[parent + 1])):
            word = words[child]
            high = end
            while low + 1 < high:
                middle = (low + high) // 2
                if words[middle] <= word:
                    low = middle
                else:
                    high = middle
            links[child] = low


@kernel
def _count_links(first, last, links, adjusted):
    for gram in range(first, last):
        adjusted[links[gram]] += 1


@kernel
def _counts_of_counts(counts):
    found = np.zeros(5, np.int64)
    for count in counts:
        if count < 5:
            found[count] += 1
    return found


@kernel
def _last_link(first, last, links, target):
    for gram in range(last - 1, first - 1, -1):
        if links[gram] == target:
            return gram
    return -1


@kernel
def _estimate_children(  # noqa: PLR0913
    first, last, starts, counts, raw, threshold, discounts, links, linear, backoff
):
    """Probabilities of the children of the n-grams first…last-1, and the share their contexts leave to lower orders.

    A pruned child's whole count goes to the context's gamma (as in lmplz), its own probability is never read.
    """
    for parent in range(first, last):
        begin, end = np.int64(starts[parent]), np.int64(starts[parent + 1])
        if begin == end:
            backoff[parent] = 1.0
            continue
        total = 0.0
        left = 0.0
        for child in range(begin, end):
            total += counts[child]
            left += counts[child] if raw[child] <= threshold else discounts[min(counts[child], 3)]
        gamma = left / total
        backoff[parent] = gamma
        for child in range(begin, end):
            kept = counts[child] - discounts[min(counts[child], 3)]
            linear[child] = kept / total + gamma * linear[links[child]]


def link(trie: Trie, links: np.ndarray) -> None:
    """Fill `links` (uint32, one per n-gram; unused for unigrams) level by level."""
    links[trie.level(1)] = 0
    if trie.order >= 2:
        links[trie.level(2)] = trie.words[trie.level(2)]
    for n in range(2, trie.order):
        level = trie.level(n)
        _link_children(level.start, level.stop, trie.starts, trie.words, links)


def adjust(trie: Trie, links: np.ndarray, adjusted: np.ndarray) -> None:
    """Fill `adjusted` (uint32, one per n-gram): distinct left neighbours, or raw counts where there can be none."""
    top = trie.level(trie.order)
    adjusted[: top.start] = 0
    adjusted[top] = trie.raw[top]
    if trie.order > 1:
        _count_links(int(trie.bases[1]), int(trie.bases[-1]), links, adjusted)
        first, last = BEGIN, BEGIN + 1
        for _ in range(2, trie.order):
            first, last = int(trie.starts[first]), int(trie.starts[last])
            adjusted[first:last] = trie.raw[first:last]
    adjusted[UNKNOWN] = adjusted[BEGIN] = 0


def closed_form(n: Sequence[int]) -> Discount | None:
    """Discounts from how many n-grams have an adjusted count of 0…4; None where the closed form fails.

    Source: Chen and Goodman 1999, equation 26.
    """
    if 0 in n[1:4]:
        return None
    y = n[1] / (n[1] + 2.0 * n[2])
    amounts = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
    if any(not 0.0 <= amount <= j for j, amount in enumerate(amounts, 1)):
        return None
    return Discount(amounts[0], amounts[1], amounts[2], fallback=False)


def discounts(trie: Trie, links: np.ndarray, adjusted: np.ndarray, fallback: bool) -> list[Discount]:
    """Discounts of every order.

    lmplz counts the very last n-gram of each lower order (in the order of its sort: latest new word last) with its raw
    count; the difference of one count is visible in small texts, so we do the same.
    """
    found = [_counts_of_counts(adjusted[trie.level(n)]) for n in range(1, trie.order + 1)]
    gram = int(trie.bases[1]) - 1
    for n in range(1, trie.order):
        for count, step in ((int(adjusted[gram]), -1), (int(trie.raw[gram]), 1)):
            if count < 5:
                found[n - 1][count] += step
        level = trie.level(n + 1)
        gram = int(_last_link(level.start, level.stop, links, gram))
        if gram < 0:
            break
    result = []
    for n, counts in enumerate(found, 1):
        discount = closed_form([int(count) for count in counts])
        if discount is None and not fallback:
            raise EstimationError(
                f"{n}-grams: {counts[1:].tolist()} of them have adjusted counts 1 to 4: no discounts follow; "
                f"train on more (or less repetitive) text, or allow the fallback discounts {FALLBACK}"
            )
        result.append(discount or Discount(*FALLBACK, fallback=True))
    return result


def estimate(
    trie: Trie,
    links: np.ndarray,
    adjusted: np.ndarray,
    taken: Sequence[Discount],
    prune: Sequence[int],
    linear: np.ndarray,
    backoff: np.ndarray,
) -> None:
    """Fill `linear` (float32 probabilities, one per n-gram) and `backoff` (float32, one below the highest order).

    `adjusted` are the counts (`adjust`), `taken` the discounts of each order, `prune` the raw counts up to which
    n-grams of each order are dropped, never falling (lmplz's `--prune`).
    """
    unigrams = trie.level(1)
    amounts = np.array([(0.0, d.one, d.two, d.more) for d in taken])
    counts = adjusted[unigrams].astype(np.int64)
    pruned = trie.raw[unigrams] <= prune[0]
    pruned[: END + 1] = False
    total = int(counts.sum())
    off = amounts[0][np.minimum(counts, 3)]
    gamma = (off[~pruned].sum() + counts[pruned].sum()) / total
    num_words = len(counts) - 1 - int(pruned.sum())  # with <unk>, without <s>
    linear[unigrams] = (counts - off) / total + gamma / num_words
    linear[BEGIN] = 1.0
    for n in range(1, trie.order):
        level = trie.level(n)
        _estimate_children(
            level.start, level.stop, trie.starts, adjusted, trie.raw, prune[n], amounts[n], links, linear, backoff
        )


def check_pruning(prune: Sequence[int], order: int) -> tuple[int, ...]:
    """Fill pruning thresholds up to `order` with the last one; they may not fall (that would leave holes)."""
    thresholds = tuple(prune) or (0,)
    if len(thresholds) > order:
        raise EstimationError(f"prune {list(thresholds)} has {len(thresholds)} thresholds, the model has order {order}")
    if any(a > b for a, b in pairwise(thresholds)) or thresholds[0] < 0:
        raise EstimationError(f"prune {list(thresholds)}: thresholds are counts that never fall from order to order")
    return thresholds + (thresholds[-1],) * (order - len(thresholds))
