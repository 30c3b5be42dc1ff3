"""What a table of sizes says: laws with intervals, whether they foretell the largest size, and how to spend a budget.

Shapes: N runs, P parameters, R bootstraps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.ablation.report import plain_values
from mixing.ablation.sampling import generator
from mixing.scaling.laws import Fitted, Law, fit, law_of, log_loss, terms_of
from mixing.scaling.table import ScalingTable

NAMES = ("power", "power_floor", "chinchilla", "chinchilla_mixture")
RAY = 0.9995  # correlation of log sizes with log tokens above which size and tokens cannot be told apart
INTERVAL = (2.5, 97.5)
NORMAL = 1.959964  # the same quantile of a normal distribution
FLOPS_A_TOKEN = 6  # of a parameter, where a law splits a budget: the convention of Hoffmann et al.


@dataclass(frozen=True)
class Target:
    """The run that is to be foretold, the star of the plots: total parameters, tokens, operations."""

    parameters: float
    tokens: float
    flops: float


@dataclass(frozen=True)
class Studied:
    """A law with the bootstraps of it (R, P), and the runs it was fitted to."""

    fitted: Fitted
    thetas: np.ndarray
    table: ScalingTable

    @property
    def stretch(self) -> float | None:
        """By how much bootstraps are too narrow: runs and parameters count as in a linear fit, with Student's t.

        A law of as many parameters as runs goes through them whatever they are, and so do its bootstraps. None where no
        run is left over: then nothing says how sure the law is.
        """
        from scipy.stats import t

        num_runs, spare = self.table.num_runs, self.table.num_runs - len(self.fitted.theta)
        if spare < 1 or not len(self.thetas):
            return None
        return math.sqrt(num_runs / spare) * float(t.ppf(INTERVAL[1] / 100, spare)) / NORMAL

    def interval(self, value: np.ndarray, drawn_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval around what the fit says, from what each bootstrap says of it; NaN where it is unknown."""
        if self.stretch is None:
            return np.full_like(value, np.nan), np.full_like(value, np.nan)
        low, high = np.percentile(drawn_R, INTERVAL, axis=0)
        return value - self.stretch * np.maximum(value - low, 0.0), value + self.stretch * np.maximum(high - value, 0.0)


def analyse(table: ScalingTable, target: Target | None = None, bootstraps: int = 200, seed: int = 0) -> dict[str, Any]:
    """Fit every law that a table can carry.

    Args:
        table: runs.
        target: what is foretold beside the runs.
        bootstraps: of the runs, behind the intervals.
        seed: of the bootstraps.

    Returns:
        runs, laws {name: parameters, intervals, restarts, held_out, target}, best, optimal, notes; docs/ablation.md
        describes them. JSON-serialisable, never NaN.
    """
    notes = list(table.notes)
    studies = {}
    for name in NAMES:
        why = _missing(name, table)
        if why:
            notes.append(f"{name} was not fitted: {why}.")
            continue
        studies[name] = study(law_of(name, table.domains), table, bootstraps, seed)
    laws = {name: _law(one, table, target, (bootstraps, seed)) for name, one in studies.items()}
    known = {n: abs(one["held_out"]["error"]) for n, one in laws.items() if one["held_out"] is not None}
    best = min(known, key=lambda name: known[name]) if known else next(iter(laws), None)
    if known and best is not None:
        held = laws[best]["held_out"]
        others = [f"{name} to {laws[name]['held_out']['error']:+.2%}" for name in known if name != best]
        notes.insert(
            0,
            f"Fitted without the largest size ({held['parameters']:.3g} parameters), {best} foretells it to "
            f"{held['error']:+.2%}" + "".join(f"; {other}" for other in others) + ".",
        )
    floorless = [name for name, law in laws.items() if law["parameters"].get("E", 1.0) < 1e-3 * table.losses.min()]
    if floorless:
        notes.append(f"{', '.join(floorless)}: the runs show no floor (E = 0), so nothing holds far beyond them.")
    found = {
        "runs": _runs(table, studies.get(best or "")),
        "laws": laws,
        "best": best,
        "target": None if target is None else vars(target),
        "optimal": _optimal(studies.get("chinchilla"), table, target),
        "notes": notes,
    }
    plain: dict[str, Any] = plain_values(found)
    return plain


def _missing(name: str, table: ScalingTable) -> str:
    """Why a table cannot carry a law; empty where it can."""
    sizes, lengths = np.log(table.parameters), np.log(table.tokens)
    if name.startswith("power"):
        points = len(envelope(table))
        least = 3 if name == "power" else 4
        return "" if points >= least else f"{points} runs lie on the envelope of least loss, {least} are needed"
    if len(np.unique(sizes)) < 3 or len(np.unique(lengths)) < 3:
        return "it needs three sizes and three numbers of tokens at least"
    if abs(float(np.corrcoef(sizes, lengths)[0, 1])) > RAY:
        return (
            "all runs have the same tokens per parameter, so size and tokens cannot be told apart; "
            "give scaling.tokens_per_parameter several values"
        )
    wanted = 6 if name == "chinchilla" else 6 + 2 * len(table.domains)
    if name == "chinchilla_mixture" and (not table.domains or np.ptp(table.weights, axis=0).max(initial=0.0) < 1e-6):
        return "all runs have the same mixture"
    return "" if table.num_runs >= wanted else f"{table.num_runs} runs, {wanted} are needed"


def envelope(table: ScalingTable) -> np.ndarray:
    """Rows of runs that no run of as few operations beats, by operations: what a law of operations is about."""
    rows: list[int] = []
    least = math.inf
    for row in np.lexsort((table.losses, table.flops)).tolist():
        if table.losses[row] < least:
            rows.append(row)
            least = float(table.losses[row])
    return np.array(rows, dtype=np.int64)


def study(law: Law, table: ScalingTable, bootstraps: int, seed: int) -> Studied:
    """Fit a law and bootstraps of it; laws of operations see the envelope alone."""
    if law.name.startswith("power"):
        keep_N = np.zeros(table.num_runs, bool)
        keep_N[envelope(table)] = True
        table = table.rows(keep_N)
    fitted = fit(law, table.columns(), table.losses)
    chance = generator(seed, "scaling", law.name)
    # Bayesian bootstraps: with few runs a drawn sample would often lack the only large one.
    counts_RN = chance.standard_exponential((bootstraps, table.num_runs))
    counts_RN /= counts_RN.mean(1, keepdims=True)
    start_1P = fitted.theta[None]
    thetas = [fit(law, table.columns(), table.losses, counts_N, start_1P).theta for counts_N in counts_RN]
    return Studied(fitted, np.array(thetas).reshape(bootstraps, len(fitted.theta)), table)


def predict(studied: Studied, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted losses (M,) of some sizes, with low and high ends of their 95 % interval (of the law, not of a run)."""
    terms = terms_of(studied.fitted.law, columns)
    logs_M = log_loss(studied.fitted.theta, terms)
    drawn_RM = np.array([log_loss(theta_P, terms) for theta_P in studied.thetas])
    low_M, high_M = studied.interval(logs_M, drawn_RM)
    return np.exp(logs_M), np.exp(low_M), np.exp(high_M)


def _law(one: Studied, table: ScalingTable, target: Target | None, settings: tuple[int, int]) -> dict[str, Any]:
    law, thetas = one.fitted.law, one.thetas
    draws = [Fitted(law, theta_P, 0.0, np.zeros(1)).values() for theta_P in thetas]
    values = one.fitted.values()
    return {
        "parameters": values,
        "intervals": {
            name: [float(end) for end in one.interval(np.array(value), np.array([draw[name] for draw in draws]))]
            for name, value in values.items()
        }
        if one.stretch is not None
        else {},
        "objective": one.fitted.objective,
        "restarts": {
            "starts": len(one.fitted.restarts),
            "agreeing": one.fitted.agreeing(),
            "ends": [float(value) for value in np.unique(np.round(one.fitted.restarts, 12))[:8]],
        },
        "runs": one.table.num_runs,
        "root_mean_square": float(
            np.sqrt(np.square(np.log(predict(one, one.table.columns())[0] / one.table.losses)).mean())
        ),
        "held_out": _held_out(law, table, settings),
        "target": None if target is None or law.name == "chinchilla_mixture" else _foretold(one, target),
        "curve": _curve(one, target) if law.name.startswith("power") else [],
    }


def _held_out(law: Law, table: ScalingTable, settings: tuple[int, int]) -> dict[str, Any] | None:
    """The law fitted without the largest size, on the least loss of that size; None where the rest cannot carry it."""
    largest_N = table.parameters == table.parameters.max()
    rest = table.rows(~largest_N)
    if rest.num_runs < 3 or _missing(law.name, rest):
        return None
    row = int(np.flatnonzero(largest_N)[np.argmin(table.losses[largest_N])])
    one = study(law, rest, *settings)
    loss, low, high = (float(end[0]) for end in predict(one, {k: v[[row]] for k, v in table.columns().items()}))
    seen = float(table.losses[row])
    return {
        "run": table.names[row],
        "parameters": float(table.parameters[row]),
        "times_larger": float(table.flops[row] / rest.flops.max()),
        "observed": seen,
        "predicted": loss,
        "interval": [low, high],
        "error": loss / seen - 1,
    }


def _foretold(one: Studied, target: Target) -> dict[str, Any]:
    columns = {name: np.array([float(value)]) for name, value in vars(target).items()}
    loss, low, high = (float(end[0]) for end in predict(one, columns))
    return {"loss": loss, "interval": [low, high], "times_larger": target.flops / float(one.table.flops.max())}


def _curve(one: Studied, target: Target | None) -> list[dict[str, float]]:
    """A law of operations over the range of the runs and up to the target: points with intervals, for plots."""
    ends = [
        float(one.table.flops.min()),
        float(one.table.flops.max()) * 10,
        *([] if target is None else [target.flops]),
    ]
    flops_M = np.geomspace(min(ends), max(ends), 41)
    losses_M, low_M, high_M = predict(one, {"parameters": flops_M, "tokens": flops_M, "flops": flops_M})
    points = zip(flops_M.tolist(), losses_M.tolist(), low_M.tolist(), high_M.tolist(), strict=True)
    return [{"flops": flops, "loss": loss, "low": low, "high": high} for flops, loss, low, high in points]


def optimal_split(values: Mapping[str, float], flops: float) -> tuple[float, float, float]:
    """Parameters, tokens and loss at the least loss that a budget C = 6 N D buys under Chinchilla's law."""
    alpha, beta = values["alpha"], values["beta"]
    power = 1 / (alpha + beta)
    scale = math.exp(power * (values["log_A"] + math.log(alpha) - values["log_B"] - math.log(beta)))
    size = scale * (flops / FLOPS_A_TOKEN) ** (beta * power)
    tokens = flops / FLOPS_A_TOKEN / size
    loss = values["E"] + math.exp(values["log_A"] - alpha * math.log(size))
    return size, tokens, loss + math.exp(values["log_B"] - beta * math.log(tokens))


def _optimal(one: Studied | None, table: ScalingTable, target: Target | None) -> list[dict[str, Any]]:
    """How Chinchilla's law would spend budgets: of the runs, of the target, and a decade beyond."""
    if one is None or min(one.fitted.values()["alpha"], one.fitted.values()["beta"]) <= 0:
        return []
    largest = float(table.flops.max())
    budgets = sorted({largest / 10, largest, largest * 10, largest * 100, *([] if target is None else [target.flops])})
    laws = [Fitted(one.fitted.law, theta_P, 0.0, np.zeros(1)).values() for theta_P in one.thetas]
    laws = [values for values in laws if min(values["alpha"], values["beta"]) > 0]
    rows = []
    for flops in budgets:
        size, tokens, loss = optimal_split(one.fitted.values(), flops)
        row: dict[str, Any] = {"flops": flops, "parameters": size, "tokens": tokens, "loss": loss}
        row |= {"tokens_per_parameter": tokens / size, "is_target": target is not None and flops == target.flops}
        if laws and one.stretch is not None:
            drawn_R3 = np.log([optimal_split(values, flops) for values in laws])
            ends = zip(*one.interval(np.log([size, tokens, loss]), drawn_R3), strict=True)
            for name, end in zip(("parameters_interval", "tokens_interval", "loss_interval"), ends, strict=True):
                row[name] = [math.exp(value) for value in end]
        rows.append(row)
    return rows


def _runs(table: ScalingTable, best: Studied | None) -> list[dict[str, Any]]:
    predicted_N = predict(best, table.columns())[0] if best is not None else np.full(table.num_runs, np.nan)
    return [
        {
            "name": table.names[i],
            "parameters": table.parameters[i],
            "tokens": table.tokens[i],
            "flops": table.flops[i],
            "loss": table.losses[i],
            "predicted": predicted_N[i],
        }
        for i in range(table.num_runs)
    ]
