"""MixMin's weights: the mixture of the one-domain proxies that gives held-out text the most probability.

F(w) = mean over held-out sequences x of -1/len(x) · log Σ_j w_j p_j(x), with p_j(x) the probability that the proxy
trained on domain j alone gives to the whole sequence. F is convex in w. Source: Thudi et al. 2025 (MixMin, ICML 2025),
who step by exponentiated gradients; here the same problem is solved by expectation and maximisation, without a step
size. A cheap prior from runs that are trained anyway; it knows nothing of repeats, of what domains teach together, or
of the model's size. Shapes: J proxies, X sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MOST_STEPS, TOLERANCE = 5000, 1e-10

Nats = Mapping[str, Sequence[Sequence[float]]]  # domain -> (nats, tokens) of each held-out sequence


def mixmin_weights(nats_JX: np.ndarray, counts_X: np.ndarray) -> np.ndarray:
    """The weights (J,) of least F.

    Args:
        nats_JX: nats of each sequence by each proxy.
        counts_X: how much each sequence counts, positive.
    """
    counts_X = counts_X / counts_X.sum()
    likely_JX = np.exp(nats_JX.min(0) - nats_JX)
    weights_J = np.full(len(nats_JX), 1 / len(nats_JX))
    for _ in range(MOST_STEPS):
        joint_JX = weights_J[:, None] * likely_JX
        new_J = (joint_JX / joint_JX.sum(0)) @ counts_X
        moved = float(np.abs(new_J - weights_J).sum())
        weights_J = new_J
        if moved < TOLERANCE:
            break
    return weights_J


def mixmin(proxies: Mapping[str, Nats], shares: Mapping[str, float]) -> dict[str, float] | None:
    """MixMin's weights of the domains that a proxy was trained on alone.

    Args:
        proxies: per trained domain, its proxy's nats and tokens of the held-out sequences of every domain.
        shares: share of each measured domain in the objective.

    Returns:
        Weight by domain; None where proxies did not measure the same sequences.
    """
    names = sorted(proxies)
    parts, counts = [], []
    for target, share in shares.items():
        each = [np.array(proxies[name].get(target, ()), dtype=np.float64).reshape(-1, 2) for name in names]
        if share <= 0 or not len(each[0]):
            continue
        if any(len(one) != len(each[0]) or not np.array_equal(one[:, 1], each[0][:, 1]) for one in each):
            return None
        tokens_X = np.maximum(each[0][:, 1], 1.0)
        parts.append(np.stack([one[:, 0] for one in each]))
        counts.append(share / len(tokens_X) / tokens_X)
    if len(names) < 2 or not parts:
        return None
    weights_J = mixmin_weights(np.concatenate(parts, axis=1), np.concatenate(counts))
    return dict(zip(names, weights_J.tolist(), strict=True))
