"""The findings of an analysis written down: plain values under the keys of docs/ablation.md, and sentences.

Shapes: N runs, D trained domains, T measured domains, M mixtures, R replicates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.ablation import evidence
from mixing.ablation.evidence import weights_of
from mixing.ablation.objective import Objective
from mixing.ablation.optimum import pareto_front
from mixing.ablation.runs import RunsTable
from mixing.ablation.surrogates import COMBINATION, FITS
from mixing.ablation.validation import LEAST_LOCAL, LOCAL_SHARE, learning_curve, nested, scores

if TYPE_CHECKING:
    from mixing.ablation.analysis import Findings

MOST_FRONT = 40


def local_error(held_out_KNT: np.ndarray, losses_NT: np.ndarray, objective: Objective) -> float | None:
    """Root mean square error of the objective on held-out runs, among the best quarter of them."""
    observed_N = objective.of(losses_NT)
    best = np.argsort(np.where(np.isfinite(observed_N), observed_N, np.inf), kind="stable")
    best = best[: max(LEAST_LOCAL, round(LOCAL_SHARE * len(best)))]
    errors_KN = (objective.of(held_out_KNT) - observed_N)[:, best]
    errors = errors_KN[np.isfinite(errors_KN)]
    return float(np.sqrt(np.square(errors).mean())) if len(errors) else None


def write_down(table: RunsTable, fitted: RunsTable, found: Findings, notes: list[str], seed: int) -> dict[str, Any]:
    """Everything the analysis found, JSON-serialisable, never NaN."""
    more = _more_runs(fitted, found, seed)
    reference = dict(zip(fitted.targets, found.objective.reference_T.tolist(), strict=True))
    analysis = {
        "chosen": weights_of(fitted.domains, found.chosen_D),
        "natural": weights_of(fitted.domains, found.natural_D),
        "optimum": weights_of(fitted.domains, found.optimum_D),
        "reason": found.reason,
        "objective": found.objective.written(),
        "natural_losses": reference,
        "surrogate": found.portfolio.chosen,
        "surrogates": _surrogates(fitted, found),
        "nested": scores(
            nested(found.portfolio.validation, fitted.losses_NT, found.objective), fitted.losses_NT, found.objective
        ),
        "matrix": evidence.cross_domain_matrix(table),
        "matrix_bits_per_byte": evidence.cross_domain_matrix(table, bits=True)
        if np.isfinite(table.bits_NT).any()
        else {},
        "noise": evidence.seed_noise(fitted, found.objective)["losses"],
        "objective_noise": {"sd": found.noise["objective"], "degrees": found.noise["degrees"]},
        "learnability": evidence.learnability(table, reference),
        "curves": evidence.loss_curves(table),
        "arms": _arms(table, fitted, found),
        "predicted": _predicted(fitted, found),
        "weights_interval": {
            name: [float(low), float(high)]
            for name, low, high in zip(fitted.domains, found.uncertainty.low_D, found.uncertainty.high_D, strict=True)
        },
        "tied": _tied(fitted, found),
        "front": _front(fitted, found),
        "regret": _regret(found),
        "more_runs": more,
        "runs": _runs(table, found),
        "observed_vs_predicted": _observed(fitted, found),
        "num_parameters": table.num_parameters,
        "num_tokens": table.num_tokens,
        "notes": [*_verdict(fitted, found), *notes, *_more_words(more, found)],
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


def _surrogates(fitted: RunsTable, found: Findings) -> dict[str, Any]:
    """Held-out scores of every surrogate."""
    shown: dict[str, Any] = {}
    for name, held_out in found.portfolio.validation.predictions.items():
        shown[name] = scores(held_out, fitted.losses_NT, found.objective)
        shown[name]["chosen"] = name == found.portfolio.chosen
    if COMBINATION in shown:
        shown[COMBINATION]["shares"] = found.portfolio.validation.shares
    return shown


def _predicted(fitted: RunsTable, found: Findings) -> dict[str, Any]:
    """What the surrogate expects at the chosen weights, at its optimum and at natural weights."""
    predict = found.portfolio.predictions[found.portfolio.chosen]
    three_3D = np.stack([found.chosen_D, found.optimum_D, found.natural_D])
    losses_3T = predict(three_3D)[0]
    values = found.objective.of(losses_3T)
    gain = found.gain
    return {
        "objective": float(values[0]),
        "at_optimum": float(values[1]),
        "natural": float(values[2]),
        "gain": gain.expected,
        "gain_corrected": gain.corrected,
        "error": gain.error,
        "interval": [gain.low, gain.high],
        "beats_natural": found.reason != "natural",
        "losses": dict(zip(fitted.targets, losses_3T[0].tolist(), strict=True)),
        "losses_at_natural": dict(zip(fitted.targets, losses_3T[2].tolist(), strict=True)),
    }


def _tied(fitted: RunsTable, found: Findings) -> dict[str, Any]:
    """The candidates that are statistically as good as the optimum: how many, their range, and the simplest of them.

    The simplest is the one closest to natural weights (total variation).
    """
    tied_M = found.uncertainty.tied_M
    mixtures_MD = found.candidates.mixtures_MD
    if not tied_M.any():
        return {"share": 0.0, "ranges": {}, "simplest": weights_of(fitted.domains, found.optimum_D), "distance": None}
    members_MD = mixtures_MD[tied_M]
    distance_M = 0.5 * np.abs(members_MD - found.natural_D).sum(1)
    closest = int(np.argmin(distance_M))
    return {
        "share": float(tied_M.mean()),
        "ranges": {
            name: [float(low), float(high)]
            for name, low, high in zip(fitted.domains, members_MD.min(0), members_MD.max(0), strict=True)
        },
        "simplest": weights_of(fitted.domains, members_MD[closest]),
        "distance": float(distance_M[closest]),
    }


def _front(fitted: RunsTable, found: Findings) -> list[dict[str, Any]]:
    """Mixtures that no candidate beats on all axes of a Pareto objective; empty for other objectives."""
    if found.objective.kind != "pareto":
        return []
    counted_T = found.objective.shares_T > 0
    axes_MT = found.objective.axes(found.portfolio.predictions[found.portfolio.chosen](found.candidates.mixtures_MD)[0])
    rows = pareto_front(axes_MT[:, counted_T])
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FRONT)).astype(int)]
    names = [name for name, counted in zip(fitted.targets, counted_T, strict=True) if counted]
    return [
        {
            "weights": weights_of(fitted.domains, found.candidates.mixtures_MD[row]),
            "axes": dict(zip(names, axes_MT[row, counted_T].tolist(), strict=True)),
        }
        for row in rows
    ]


def _regret(found: Findings) -> dict[str, dict[str, float]]:
    """Each surrogate's optimum judged by every other: {whose optimum: {judge: objective above the judge's best}}."""
    judges = {name: predict for name, predict in found.portfolio.predictions.items() if name in found.optima}
    least = {
        judge: min(float(found.objective.of(predict(w[None])[0])[0]) for w in found.optima.values())
        for judge, predict in judges.items()
    }
    return {
        name: {
            judge: float(found.objective.of(predict(weights_D[None])[0])[0]) - least[judge]
            for judge, predict in judges.items()
        }
        for name, weights_D in found.optima.items()
    }


def _runs(table: RunsTable, found: Findings) -> list[dict[str, Any]]:
    """Every run as it was: weights, losses, and its objective where all counted losses were measured."""
    columns = [table.targets.index(name) for name in found.objective.targets]
    values_N = found.objective.of(table.losses_NT[:, columns])
    return [
        {
            "name": table.names[i],
            "kind": table.kinds[i],
            "seed": table.seeds[i],
            "weights": weights_of(table.domains, table.weights_ND[i]),
            "objective": None if table.diverged_N[i] else float(values_N[i]),
            "losses": dict(zip(table.targets, table.losses_NT[i].tolist(), strict=True)),
            "diverged": bool(table.diverged_N[i]),
        }
        for i in range(table.num_runs)
    ]


def _arms(table: RunsTable, fitted: RunsTable, found: Findings) -> list[dict[str, Any]]:
    kept_T = np.array([name in fitted.targets for name in table.targets])
    from mixing.ablation.preparation import some_targets

    return evidence.arms(some_targets(table, kept_T), found.objective)


def _observed(fitted: RunsTable, found: Findings) -> list[dict[str, Any]]:
    """Objective of each fitted run against what the chosen surrogate said without having seen it."""
    observed_N = found.objective.of(fitted.losses_NT)
    predicted_KN = found.objective.of(found.portfolio.validation.predictions[found.portfolio.chosen])
    return [
        {"name": name, "observed": float(observed), "predicted": float(predicted)}
        for name, observed, predicted in zip(fitted.names, observed_N, predicted_KN.mean(0), strict=True)
    ]


def _more_runs(fitted: RunsTable, found: Findings, seed: int) -> dict[str, Any]:
    """Held-out error over the number of runs, and what twice and four times as many would bring.

    The error is extrapolated as a power of the number of runs, at most as the inverse square root and never rising.
    """
    shares = {n: s for n, s in found.portfolio.shares.items() if n not in ("lightgbm", "constant") and n in FITS}
    if not shares:
        return {"curve": [], "expected": {}}
    name = max(shares, key=lambda one: shares[one])
    points = learning_curve(name, fitted.weights_ND, fitted.losses_NT, found.objective, seed)
    if len(points) < 3:
        return {"curve": [list(point) for point in points], "expected": {}}
    sizes, errors = np.log([p[0] for p in points]), np.log([max(p[1], 1e-12) for p in points])
    slope = float(np.clip(np.polyfit(sizes, errors, 1)[0], -0.5, 0.0))
    level = float((errors - slope * sizes).mean())
    expected = {
        str(factor * fitted.num_runs): math.exp(level + slope * math.log(factor * fitted.num_runs))
        for factor in (1, 2, 4)
    }
    return {"surrogate": name, "curve": [list(point) for point in points], "slope": slope, "expected": expected}


def _more_words(more: dict[str, Any], found: Findings) -> list[str]:
    errors = list(more["expected"].values())
    if len(errors) < 2:
        return []
    now, twice = errors[0], errors[1]
    sizes = list(more["expected"])
    words = (
        f"Error of the objective on runs not seen: about {now:.2%} with {sizes[0]} runs, {twice:.2%} with {sizes[1]}."
    )
    noise = found.noise["objective"]
    if noise is not None and now < 1.2 * noise:
        return [words + f" Seed noise is {noise:.2%}: more runs would hardly help."]
    return [words]


def _verdict(fitted: RunsTable, found: Findings) -> list[str]:
    """What came out, in the first sentences."""
    gain, noise = found.gain, found.noise["objective"]
    interval = f"{gain.low:+.2%} to {gain.high:+.2%}"
    if found.reason == "surrogate":
        words = [f"The chosen weights are expected to change the objective by {gain.corrected:+.2%} ({interval})."]
    elif found.reason == "best_run":
        value = float(found.objective.of(fitted.losses_NT[found.best_row]))
        words = [
            f"No surrogate's optimum is sure enough ({interval}), but the run {fitted.names[found.best_row]} beat natural "
            f"weights by {-value:.2%}, beyond seed noise: its weights were chosen."
        ]
    else:
        words = [
            f"Nothing beats natural weights beyond noise (the best expected change is {interval}): they were chosen."
        ]
    if noise is None:
        words.append("No mixture was trained on several seeds, so seed noise is unknown; raise ablation.runs.repeats.")
    else:
        words.append(f"Seed noise of the objective: {noise:.2%} ({found.noise['degrees']} degrees of freedom).")
    if found.portfolio.chosen == "constant":
        words.append("No surrogate predicts a run it has not seen better than the mean of the others does.")
    return words
