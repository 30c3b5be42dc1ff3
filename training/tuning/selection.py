"""Choosing instruction examples by their entropy under the model that is tuned, after MindLLM.

MindLLM scores each sample by its cross-entropy H(x) under the pretrained model, clusters the samples by H (K-means),
tunes a model on each cluster, and finds accuracy best where a cluster's H lies 1 to 1.5 above the model's own entropy.
Not published: the number of clusters, which tokens count, the base of the logarithm. Here these are options; nats.

Source: Yang et al. 2023, arXiv:2310.15777, section on instruction tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training.batches import HeldOut
from training.checkpoint import load_model, open_checkpoint
from training.evaluate import held_out_sums
from training.fitting import measured_at_once
from training.step import PADDING, StepOptions
from training.tuning.examples import ExamplesError
from training.tuning.prepare import Choice, Conversations

# Conversations run in groups of like length, padded to the next of these lengths.
_SHORTEST = 32
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class _Padded:
    """Conversations as sequences of their own, padded; the numbers that are read are places in `numbers`."""

    def __init__(self, found: Conversations, numbers: Sequence[int], whole: bool) -> None:
        self._found, self._numbers, self._whole = found, list(numbers), whole

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Coded ids (n, context + 1); `whole`: every id but the first counts."""
        rows = np.full((len(sequences), context + 1), PADDING, np.int64)
        for row, place in zip(rows, sequences.tolist()):
            ids = self._found.ids(self._numbers[place]).astype(np.int64)
            if self._whole:
                ids[1:] = np.where(ids[1:] < 0, -2 - ids[1:], ids[1:])
            row[: len(ids)] = ids
        return rows


def entropies(start: Path, found: Conversations, of: str, context: int, micro_batch: int | None = None) -> np.ndarray:
    """Cross-entropy of each conversation under a checkpoint's model, nats a token, float64 (n,).

    Every conversation is read alone, from its beginning.

    Args:
        start: the checkpoint's folder.
        found: conversations of at most `context` + 1 ids.
        of: answers (their tokens count) or all.
        context: longest sequence.
        micro_batch: conversations at once; None: as many as training would take of their length.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(open_checkpoint(start)).to(device)
    scores = np.full(len(found.rows), np.nan)
    for numbers, length in _groups(found.lengths, context):
        reader = _Padded(found, numbers, of == "all")
        held_out = HeldOut(["examples"], [len(numbers)], reader, length)
        at_once = micro_batch or measured_at_once(model.shape, length, len(numbers))
        sums, _ = held_out_sums(model, held_out, StepOptions(at_once), device)
        scores[numbers] = sums[:, 0] / sums[:, 1]
    return scores


def _groups(lengths: np.ndarray, context: int) -> list[tuple[np.ndarray, int]]:
    """Numbers of the conversations that fit each length: doublings of _SHORTEST, the last one the context."""
    needed = np.maximum(lengths - 1, 1)
    groups, low, high = [], 0, min(_SHORTEST, context)
    while True:
        numbers = np.flatnonzero((needed > low) & (needed <= high))
        if len(numbers):
            groups.append((numbers, high))
        if high == context:
            return groups
        low, high = high, min(2 * high, context)


def choose(scores: np.ndarray, model_entropy: float, band: tuple[float, float], clusters: int | None = None) -> Choice:
    """Keep examples whose entropy lies in a band above the model's own; with `clusters`, whole clusters by their mean.

    Args:
        scores: nats a token, float64 (n,).
        model_entropy: the model's own entropy, nats a token.
        band: low and high, both belong to it.
        clusters: number of K-means clusters; None looks at each example.

    Raises:
        ExamplesError: if nothing lies in the band, with where the examples lie.
    """
    above = scores - model_entropy
    groups = None if clusters is None else k_means(scores, clusters)
    judged = above if groups is None else np.array([above[groups == g].mean() for g in range(groups.max() + 1)])[groups]
    kept = (judged >= band[0]) & (judged <= band[1])
    if not kept.any():
        spread = ", ".join(f"{np.quantile(above, q):+.2f} ({q:.0%})" for q in _QUANTILES)
        means = "" if groups is None else "; clusters: " + ", ".join(f"{one:+.2f}" for one in np.unique(judged))
        raise ExamplesError(
            f"finetuning.selection.entropy: no example lies {band[0]:g} to {band[1]:g} nats above the model's own "
            f"entropy of {model_entropy:.3f}; quantiles of the examples: {spread}{means}"
        )
    return Choice(kept, scores, groups)


def k_means(values: np.ndarray, clusters: int) -> np.ndarray:
    """Cluster of each value, numbered by rising mean, int64 (n,): Lloyd's algorithm from evenly spaced quantiles.

    Deterministic; a cluster that loses all its values is left out.
    """
    centres = np.unique(np.quantile(values, (np.arange(clusters) + 0.5) / clusters))
    while True:
        # By borders, not by distances: those of a value to two centres may round to the same, and groups would overlap.
        found = np.searchsorted((centres[:-1] + centres[1:]) / 2, values)
        named, found = np.unique(found, return_inverse=True)
        means = np.array([values[found == g].mean() for g in range(len(named))])
        if len(means) == len(centres) and np.array_equal(means, centres):
            return found.astype(np.int64)
        centres = means
