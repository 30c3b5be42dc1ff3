"""Whether weights that were proposed hold one size up: arms trained on the same seeds, compared seed by seed.

A pair shares seed, start values and the order of draws; what a seed does to both cancels. From n pairs a difference has
the interval mean ± t(0.975, n - 1) · sd / √n (Student's paired t). Only the proposed weights are put to the test, so
that nothing is owed to having looked at many arms; baselines are shown beside them. Shapes: N runs, T measured domains,
P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.ablation.design import Order, PlannedRun, order_runs
from mixing.ablation.objective import Objective, Wanted, make_objective, percent
from mixing.ablation.preparation import LEAST_MOVE
from mixing.ablation.runs import RunsTable
from mixing.ablation.words import KEPT_NATURAL, NOT_CONFIRMED
from mixing.patterns import covers

PROPOSED, NATURAL = "proposed", "natural"
CONFIDENCE = 0.95
SEED_OFFSET = 100  # seeds of its own: no run that took part in choosing is counted again


@dataclass(frozen=True)
class Interval:
    """A mean difference over pairs; `low` and `high` are None for fewer than two pairs."""

    difference: float
    low: float | None
    high: float | None
    pairs: int

    def written(self) -> dict[str, Any]:
        """As the analysis shows it."""
        return {"difference": self.difference, "low": self.low, "high": self.high, "pairs": self.pairs}


def proposed_weights(analysis: Mapping[str, Any]) -> dict[str, float] | None:
    """The weights to be put to the test: the chosen ones, or where natural ones stay, the surrogate's optimum.

    None if that is natural as well.
    """
    for name in ("chosen", "optimum"):
        weights = dict(analysis[name])
        if _moved(weights, reference_weights(analysis)) > LEAST_MOVE:
            return weights
    return None


def _moved(weights: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Share of the tokens that two mixtures give to different domains."""
    return 0.5 * sum(abs(weights[domain] - other.get(domain, 0.0)) for domain in weights)


def reference_weights(analysis: Mapping[str, Any]) -> dict[str, float]:
    """What the proposed weights are compared with, and what stays without them: natural weights where they are allowed.

    Where bounds or supply forbid them it is the allowed mixture nearest to them: no other could be trained on.
    """
    natural, home = dict(analysis["natural"]), dict(analysis.get("home") or analysis["natural"])
    return natural if _moved(home, natural) < 1e-6 else home


def confirmation_runs(
    natural: Mapping[str, float],
    proposed: Mapping[str, float] | None,
    baselines: Sequence[tuple[str, Mapping[str, float]]],
    seeds: int,
    seed: int,
    orders: Sequence[Order] = (),
) -> list[PlannedRun]:
    """The runs of a confirmation: natural weights, the proposed ones, baselines, other orders, on the same seeds."""
    arms: list[tuple[str, str, Mapping[str, float]]] = [(NATURAL, "natural", natural)]
    if proposed is not None:
        arms.append((PROPOSED, "optimum", proposed))
    arms += [(f"baseline.{name}", "baseline", weights) for name, weights in baselines]
    return [
        PlannedRun(
            f"confirm.{name}.s{number}",
            kind,
            {domain: float(weights.get(domain, 0.0)) for domain in sorted(natural)},
            seed + SEED_OFFSET + number,
        )
        for name, kind, weights in arms
        for number in range(seeds)
    ] + [
        replace(one, name=one.name.replace("order.", "confirm.order.", 1), seed=seed + SEED_OFFSET + number)
        for number in range(seeds)
        for one in order_runs(natural, orders, number)
    ]


def paired(differences_P: np.ndarray) -> Interval:
    """The mean of paired differences and its 95 % interval by Student's t."""
    from scipy.stats import t

    mean, pairs = float(differences_P.mean()), len(differences_P)
    if pairs < 2:
        return Interval(mean, None, None, pairs)
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, pairs - 1)) * float(differences_P.std(ddof=1)) / math.sqrt(pairs)
    return Interval(mean, mean - reach, mean + reach, pairs)


def compare(table: RunsTable, wanted: Wanted, natural: Mapping[str, float]) -> dict[str, Any]:
    """Every arm of a confirmation against natural weights, on the objective and on every measured domain.

    Args:
        table: the runs of `confirmation_runs`; diverged ones are left out with their pair.
        wanted: the objective, as the ablation has it; what these models do not measure is left out of it and noted.
        natural: natural weights.

    Returns:
        num_parameters, num_tokens, seeds, arms, against_baselines, verdict, notes; docs/ablation.md describes them.
    """
    arms = _arms(table)
    measured_T = np.isfinite(table.losses).any(0)
    targets = tuple(name for name, some in zip(table.targets, measured_T, strict=True) if some)
    losses_NT = table.losses[:, measured_T]
    at_natural = sorted(arms.get(NATURAL, {}).values())
    empty = {"num_parameters": table.num_parameters, "num_tokens": table.num_tokens, "arms": []}
    if not at_natural:
        return {**empty, "verdict": "open", "notes": ["No run at natural weights is whole: nothing can be compared."]}
    wanted, unmeasured = _measured(wanted, targets)
    if unmeasured and not wanted:
        note = f"Nothing of the objective was measured ({', '.join(unmeasured)}): nothing can be compared."
        return {**empty, "verdict": "open", "notes": [note]}
    objective = make_objective(wanted, targets, losses_NT[at_natural].mean(0), natural)
    values_N = objective.of(losses_NT)
    shown = [_arm(table, objective, losses_NT, name, rows, arms[NATURAL]) for name, rows in arms.items()]
    tested = next((arm for arm in shown if arm["name"] == PROPOSED), None)
    against = {
        name: paired(_differences(values_N, arms[PROPOSED], rows)).written()
        for name, rows in arms.items()
        if tested is not None
        and name not in (PROPOSED, NATURAL)
        and not name.startswith("order.")
        and set(rows) & set(arms[PROPOSED])
    }
    return {
        **empty,
        "seeds": sorted(arms[NATURAL]),
        "arms": shown,
        "against_baselines": against,
        "objective": objective.written(),
        "verdict": _verdict(tested),
        "notes": [*_lost(unmeasured), *_notes(table, shown, tested, against)],
    }


def _measured(wanted: Wanted, targets: Sequence[str]) -> tuple[Wanted, list[str]]:
    """An objective over what was measured, and what was not: a longer context may leave a domain no held-out text."""
    if isinstance(wanted, str):
        return wanted, []
    lost = [name for name in wanted if not any(covers(name, target) for target in targets)]
    if isinstance(wanted, tuple):
        return tuple(name for name in wanted if name not in lost), lost
    return {name: share for name, share in wanted.items() if name not in lost}, lost


def _lost(unmeasured: Sequence[str]) -> list[str]:
    if not unmeasured:
        return []
    return [
        f"Confirmation: {', '.join(unmeasured)} of the objective has no held-out sequence of these models' length; the "
        "others' shares were raised in proportion. Raise domains.held_out, or confirm at the proxies' context."
    ]


def _arms(table: RunsTable) -> dict[str, dict[int, int]]:
    """Arm -> seed -> row of its run, in the order of the runs; diverged runs and runs without losses left out."""
    arms: dict[str, dict[int, int]] = {}
    measured_N = np.isfinite(table.losses[:, np.isfinite(table.losses).any(0)]).all(1)
    for row, name in enumerate(table.names):
        if not table.diverged[row] and measured_N[row]:
            arm = name.removeprefix("confirm.").rpartition(".s")[0]
            arms.setdefault(arm, {})[table.seeds[row]] = row
    return arms


def _differences(values_N: np.ndarray, arm: Mapping[int, int], other: Mapping[int, int]) -> np.ndarray:
    """Values of one arm less another's, by the seeds that both have."""
    return np.array([values_N[arm[seed]] - values_N[other[seed]] for seed in sorted(set(arm) & set(other))])


def _arm(
    table: RunsTable,
    objective: Objective,
    losses_NT: np.ndarray,
    name: str,
    rows: Mapping[int, int],
    natural: Mapping[int, int],
) -> dict[str, Any]:
    """One arm: weights, the objective's difference to natural, and for each domain its loss and relative change."""
    first = next(iter(rows.values()))
    arm: dict[str, Any] = {
        "name": name,
        "kind": table.kinds[first],
        "seeds": sorted(rows),
        "weights": dict(zip(table.domains, table.weights[first].tolist(), strict=True)),
        "losses": dict(zip(objective.targets, losses_NT[sorted(rows.values())].mean(0).tolist(), strict=True)),
    }
    if name == NATURAL or not set(rows) & set(natural):
        return arm
    logs_NT = np.log(losses_NT)
    arm["objective"] = paired(_differences(objective.of(losses_NT), rows, natural)).written()
    arm["domains"] = {
        target: {
            **paired(_differences(logs_NT[:, place], rows, natural)).written(),
            "nats": float(_differences(losses_NT[:, place], rows, natural).mean()),
        }
        for place, target in enumerate(objective.targets)
    }
    return arm


def _verdict(tested: Mapping[str, Any] | None) -> str:
    """`confirmed` where the whole interval is below 0, `worse` where it is above, else `open`."""
    change = (tested or {}).get("objective")
    if not change or change["high"] is None:
        return "open"
    return "confirmed" if change["high"] < 0 else "worse" if change["low"] > 0 else "open"


def _notes(
    table: RunsTable, shown: Sequence[Mapping[str, Any]], tested: Mapping[str, Any] | None, against: Mapping[str, Any]
) -> list[str]:
    lost = [name for name, diverged in zip(table.names, table.diverged, strict=True) if diverged]
    notes = [f"Confirmation: {', '.join(lost)} diverged and count for nothing."] if lost else []
    if tested is None or "objective" not in tested:
        return [*notes, "Confirmation: there were no weights but natural ones to be confirmed."]
    change = tested["objective"]
    size = f"{table.num_parameters:,} parameters and {table.num_tokens:,} tokens"
    if change["high"] is None:
        notes.append(
            f"Confirmation: one pair of runs at {size} changed by {percent(change['difference'])}; one pair shows no "
            "noise, so nothing is claimed. Raise ablation.confirm.seeds."
        )
        return notes
    words = {
        "confirmed": "better than natural weights beyond noise, so they are chosen",
        "worse": "worse than natural weights beyond noise, so natural weights stay",
        "open": "not beyond noise, so natural weights stay",
    }[_verdict(tested)]
    notes.append(
        f"Confirmation at {size}, {change['pairs']} paired seeds: the proposed weights change the objective by "
        f"{percent(change['difference'])} against natural ones (95% interval {percent(change['low'])} to "
        f"{percent(change['high'])}): {words}."
    )
    for name, other in against.items():
        if other["high"] is not None:
            mean, low, high = (percent(other[key]) for key in ("difference", "low", "high"))
            notes.append(f"Against {name}: {mean} ({low} to {high}).")
    beyond = [
        f"{domain} {percent(one['difference'])}"
        for domain, one in tested["domains"].items()
        if one["high"] is not None and (one["high"] < 0 or one["low"] > 0)
    ]
    notes.append(f"Domains that changed beyond noise: {', '.join(beyond) or 'none'}.")
    return notes


def settled(analysis: Mapping[str, Any], confirmed: Mapping[str, Any]) -> dict[str, Any]:
    """The analysis with its confirmation: proposed weights are chosen if they were confirmed, else natural ones stay.

    Natural weights that bounds or supply forbid are no choice; what is nearest to them stays (`reference_weights`).
    """
    proposed, home = proposed_weights(analysis), reference_weights(analysis)
    won = confirmed["verdict"] == "confirmed" and proposed is not None
    return {
        **analysis,
        "proposed": {"weights": proposed, "reason": analysis["reason"]},
        "chosen": dict(proposed) if won and proposed is not None else home,
        "reason": "confirmed" if won else "natural",
        "confirmation": confirmed,
        "notes": [*confirmed["notes"], *(_before(note) for note in analysis["notes"] if not _is_void(note))],
    }


def _is_void(note: str) -> bool:
    """Whether a confirmation makes a sentence of the analysis void."""
    return note.startswith(NOT_CONFIRMED)


def _before(note: str) -> str:
    """A sentence of the analysis beside its confirmation: what the proxies say does not decide any more."""
    said = KEPT_NATURAL.partition(",")[0]
    return note.replace(KEPT_NATURAL, f"By the proxies alone n{said[1:]}", 1) if note.startswith(KEPT_NATURAL) else note


def rows_as_csv(confirmed: Mapping[str, Any]) -> list[list[Any]]:
    """The comparison as a table: a row for the objective and each domain of each arm, header first."""
    rows: list[list[Any]] = [["arm", "measured", "change", "low", "high", "pairs", "nats"]]
    for arm in confirmed["arms"]:
        lines = [("objective", arm["objective"])] if "objective" in arm else []
        for name, one in [*lines, *sorted(arm.get("domains", {}).items())]:
            rows.append([arm["name"], name, one["difference"], one["low"], one["high"], one["pairs"], one.get("nats")])
    return rows
