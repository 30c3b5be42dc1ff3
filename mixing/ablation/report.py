"""The findings of an analysis written down: plain values under the keys of docs/ablation.md.

Shapes: N runs, D trained domains, T measured domains, M mixtures, R replicates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.ablation import evidence, words
from mixing.ablation.clusters import clustered
from mixing.ablation.evidence import weights_of
from mixing.ablation.optimum import pareto_front
from mixing.ablation.preparation import some_targets
from mixing.ablation.surrogates import COMBINATION, FITS
from mixing.ablation.validation import learning_curve, nested, scores

if TYPE_CHECKING:
    from mixing.ablation.analysis import Findings

MOST_FRONT = 40


def write_down(found: Findings, seed: int) -> dict[str, Any]:
    """Everything the analysis found, JSON-serialisable, never NaN."""
    more = _more_runs(found, seed)
    analysis = {
        **_weights(found),
        **_evidence(found),
        "surrogate": found.portfolio.chosen,
        "surrogates": _surrogates(found),
        "nested": _nested(found),
        "predicted": _predicted(found),
        "tied": _tied(found),
        "dependence": found.dependence,
        "front": _front(found),
        "regret": _regret(found),
        "more_runs": more,
        "runs": _runs(found),
        "observed_vs_predicted": _observed(found),
        "notes": [
            *words.verdict(found),
            *found.question.notes,
            *found.portfolio.notes,
            *words.more_runs(more, found.noise["objective"]),
        ],
    }
    plain: dict[str, Any] = plain_values(analysis)
    return plain


def plain_values(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries alone; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_values(one) for one in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _weights(found: Findings) -> dict[str, Any]:
    """The chosen weights beside natural ones, the optimum and its interval."""
    domains, doubt = found.question.fitted.domains, found.search.doubt
    return {
        "chosen": weights_of(domains, found.chosen),
        "natural": weights_of(domains, found.question.natural),
        "home": weights_of(domains, found.question.home),
        "optimum": weights_of(domains, found.search.optimum),
        "reason": found.reason,
        "objective": found.question.objective.written(),
        # Without a surrogate every mixture is as good as any: an interval would be that of a random draw.
        "weights_interval": {}
        if found.portfolio.chosen == "constant"
        else {name: [float(low), float(high)] for name, low, high in zip(domains, doubt.low, doubt.high, strict=True)},
    }


def _evidence(found: Findings) -> dict[str, Any]:
    """What the runs show without a surrogate."""
    question, table, fitted = found.question, found.question.table, found.question.fitted
    reference = dict(zip(fitted.targets, question.objective.reference.tolist(), strict=True))
    measured_T = np.array([name in fitted.targets for name in table.targets])
    bits = bool(np.isfinite(table.bits).any())
    matrix = evidence.cross_domain_matrix(table)
    return {
        "natural_losses": reference,
        "matrix": matrix,
        "clusters": clustered(matrix),
        "matrix_bits_per_byte": evidence.cross_domain_matrix(table, bits=True) if bits else {},
        "noise": found.noise["losses"],
        "objective_noise": {"sd": found.noise["objective"], "degrees": found.noise["degrees"]},
        "learnability": evidence.learnability(table, reference),
        "curves": evidence.loss_curves(table),
        "arms": evidence.arms(some_targets(table, measured_T), question.objective),
        "num_parameters": table.num_parameters,
        "num_tokens": table.num_tokens,
    }


def _surrogates(found: Findings) -> dict[str, Any]:
    """Held-out scores of every surrogate."""
    shown: dict[str, Any] = {}
    for name, held_out in found.portfolio.validation.predictions.items():
        shown[name] = scores(held_out, found.question.fitted.losses, found.question.objective)
        shown[name]["chosen"] = name == found.portfolio.chosen
    if COMBINATION in shown:
        shown[COMBINATION]["shares"] = found.portfolio.validation.shares
    return shown


def _nested(found: Findings) -> dict[str, Any]:
    """Held-out scores of choosing and fitting together: what the chosen surrogate's own scores owe to being chosen."""
    question, portfolio = found.question, found.portfolio
    losses_NT, objective = question.fitted.losses, question.objective
    seen_ND = question.seen(question.fitted.weights)
    held_out = nested(portfolio.validation, seen_ND, losses_NT, objective, portfolio.eligible)
    return {} if held_out is None else scores(held_out, losses_NT, objective)


def _predicted(found: Findings) -> dict[str, Any]:
    """What the surrogate expects at the chosen weights, at its optimum and at natural weights."""
    mixtures_3D = np.stack([found.chosen, found.search.optimum, found.question.natural])
    losses_3T = found.portfolio.predictions[found.portfolio.chosen](mixtures_3D)[0]
    values = found.question.objective.of(losses_3T)
    gain, targets = found.gain, found.question.fitted.targets
    return {
        "objective": float(values[0]),
        "at_optimum": float(values[1]),
        "natural": float(values[2]),
        "gain": gain.expected,
        "gain_corrected": gain.corrected,
        "error": gain.error,
        "interval": [gain.low, gain.high],
        "beats_natural": found.reason != "natural",
        "losses": dict(zip(targets, losses_3T[0].tolist(), strict=True)),
        "losses_at_natural": dict(zip(targets, losses_3T[2].tolist(), strict=True)),
    }


def _tied(found: Findings) -> dict[str, Any]:
    """The mixtures that are statistically as good as the optimum: their range, and the simplest of them.

    The simplest is the one closest to natural weights; distances are total variations (share of tokens to be moved).
    """
    domains = found.question.fitted.domains
    members_MD = found.search.candidates.mixtures[found.search.doubt.tied]
    from_natural_M = 0.5 * np.abs(members_MD - found.question.natural).sum(1)
    closest = int(np.argmin(from_natural_M))
    return {
        "ranges": {
            name: [float(low), float(high)]
            for name, low, high in zip(domains, members_MD.min(0), members_MD.max(0), strict=True)
        },
        "radius": float(0.5 * np.abs(members_MD - found.search.optimum).sum(1).max()),
        "simplest": weights_of(domains, members_MD[closest]),
        "distance": float(from_natural_M[closest]),
    }


def _front(found: Findings) -> list[dict[str, Any]]:
    """Mixtures that no candidate beats on all axes of a Pareto objective; empty for other objectives."""
    objective = found.question.objective
    if objective.kind != "pareto":
        return []
    mixtures_MD = np.concatenate([found.search.candidates.mixtures, found.front])
    counted_T = objective.shares > 0
    axes_MT = objective.axes(found.portfolio.predictions[found.portfolio.chosen](mixtures_MD)[0])[:, counted_T]
    rows = pareto_front(axes_MT)
    rows = rows[evenly(axes_MT[rows], MOST_FRONT)]
    names = [name for name, counted in zip(objective.targets, counted_T, strict=True) if counted]
    return [
        {
            "weights": weights_of(found.question.fitted.domains, mixtures_MD[row]),
            "axes": dict(zip(names, axes_MT[row].tolist(), strict=True)),
        }
        for row in rows
    ]


def evenly(axes_MA: np.ndarray, most: int) -> np.ndarray:
    """Some of the points of a front, in order and evenly along it: searches leave most where the sum is least."""
    scaled_MA = axes_MA / np.ptp(axes_MA, axis=0).clip(1e-12)
    way_M = np.concatenate([[0.0], np.linalg.norm(np.diff(scaled_MA, axis=0), axis=1).cumsum()])
    picked = np.searchsorted(way_M, np.linspace(0, way_M[-1], most) - 1e-12)
    return np.unique(np.append(picked, [0, len(axes_MA) - 1, int(axes_MA.sum(1).argmin())]).clip(0, len(axes_MA) - 1))


def _regret(found: Findings) -> dict[str, dict[str, float]]:
    """Each surrogate's optimum judged by every other: {whose optimum: {judge: objective above the judge's best}}."""
    names = sorted(found.optima)
    if not names:
        return {}
    optima_MD = np.array([found.optima[name] for name in names])
    regret: dict[str, dict[str, float]] = {name: {} for name in names}
    for judge in names:
        values_M = found.question.objective.of(found.portfolio.predictions[judge](optima_MD)[0])
        for name, value in zip(names, values_M - values_M.min(), strict=True):
            regret[name][judge] = float(value)
    return regret


def _runs(found: Findings) -> list[dict[str, Any]]:
    """Every run as it was: weights, losses, and its objective where all counted losses were measured."""
    table, objective = found.question.table, found.question.objective
    columns = [table.targets.index(name) for name in objective.targets]
    values_N = objective.of(table.losses[:, columns])
    return [
        {
            "name": table.names[i],
            "kind": table.kinds[i],
            "seed": table.seeds[i],
            "weights": weights_of(table.domains, table.weights[i]),
            "objective": None if table.diverged[i] else float(values_N[i]),
            "losses": dict(zip(table.targets, table.losses[i].tolist(), strict=True)),
            "diverged": bool(table.diverged[i]),
        }
        for i in range(table.num_runs)
    ]


def _observed(found: Findings) -> list[dict[str, Any]]:
    """Objective of each fitted run against what the chosen surrogate said without having seen it."""
    fitted, objective = found.question.fitted, found.question.objective
    predicted_KN = objective.of(found.portfolio.validation.predictions[found.portfolio.chosen])
    pairs = zip(fitted.names, objective.of(fitted.losses), predicted_KN.mean(0), strict=True)
    return [{"name": name, "observed": float(seen), "predicted": float(said)} for name, seen, said in pairs]


def _more_runs(found: Findings, seed: int) -> dict[str, Any]:
    """Held-out error over the number of runs, and what twice and four times as many would bring.

    The error is extrapolated as a power of the number of runs, falling at most as the inverse square root.
    """
    fitted, objective = found.question.fitted, found.question.objective
    shares = {n: s for n, s in found.portfolio.shares.items() if n not in ("lightgbm", "constant") and n in FITS}
    if not shares or max(shares.values()) <= 0:
        return {"surrogate": None, "curve": [], "expected": {}}
    name = max(shares, key=lambda one: shares[one])
    points = learning_curve(name, found.question.seen(fitted.weights), fitted.losses, objective, seed)
    curve = [list(point) for point in points]
    if len(points) < 3:
        return {"surrogate": name, "curve": curve, "expected": {}}
    sizes, errors = np.log([p[0] for p in points]), np.log([max(p[1], 1e-12) for p in points])
    slope = float(np.clip(np.polyfit(sizes, errors, 1)[0], -0.5, 0.0))
    level = float((errors - slope * sizes).mean())
    numbers = [factor * fitted.num_runs for factor in (1, 2, 4)]
    expected = {str(number): math.exp(level + slope * math.log(number)) for number in numbers}
    return {"surrogate": name, "curve": curve, "expected": expected}
