"""Runs of an earlier swarm whose domains have since been split, merged, renamed, added or taken away.

What an old run still says follows from what became of its domains:

    kept, renamed   its weight is the weight
    merged          the weights of what went into a domain add up
    split           the old domain held its parts in natural proportion, so its weight is shared out like that
    added           weight 0: the run saw none of it
    taken away      a run that gave it weight says nothing of mixtures without it, and is left out

So runs over a split still tell what the whole is worth, and nothing of one part against another; that, and domains no
old run saw, is what new runs are for. A loss measured on an old domain is that of a domain which kept its text, or of a
merged one by natural proportion; of parts and of new domains it is unknown. Shapes: N runs, D new domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixing.ablation.evidence import mean
from mixing.ablation.preparation import EARLIER, LEAST_MOVE, NOT_FITTED, moved, of_kinds
from mixing.ablation.read_runs import read_csv
from mixing.ablation.runs import RunsError, RunsTable
from mixing.patterns import covers

MIXTURES_A_DIRECTION = 2  # mixtures for each direction that a law with a slope per domain needs (`surrogates.usable`)
MOST_DRIFT = 0.05  # of losses at natural weights: more is another proxy, tokenizer or length, not a seed
Became = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Evidence:
    """An earlier swarm: its `runs.csv`, and what became of its domains where names do not say it."""

    path: str
    became: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Carried:
    """Earlier runs in terms of new domains.

    Attributes:
        table: those that still speak, their kind `earlier`, losses NaN where they are unknown. Other orders of natural
            weights are not among them: they say nothing of weights.
        silent: names of those that do not.
        split, merged, added, removed: what became of domains.
    """

    table: RunsTable
    silent: tuple[str, ...]
    split: tuple[str, ...]
    merged: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def successors(old: Sequence[str], new: Sequence[str], became: Became) -> dict[str, tuple[str, ...]]:
    """The new domains that each old one went into: as told, else by name.

    By name, a domain is itself; `web` became its parts `web/…`; `web/head` became `web`. One without is gone.

    Raises:
        RunsError: for a domain that is told to have become one that is not there, or that was none.
    """
    unknown = [f"{name} (no earlier domain)" for name in became if name not in old]
    unknown += [f"{one} (not trained)" for names in became.values() for one in names if one not in new]
    if unknown:
        raise RunsError(f"evidence: became names {', '.join(unknown)}")
    found = {}
    for name in old:
        if name in became:
            found[name] = tuple(became[name])
        elif name in new:
            found[name] = (name,)
        else:
            parts = tuple(one for one in new if covers(name, one))
            whole = name.rpartition("/")[0]
            found[name] = parts or ((whole,) if whole in new else ())
    return found


def carried(table: RunsTable, natural: Mapping[str, float], became: Became) -> Carried:
    """What the runs of an earlier swarm say of mixtures of the new domains.

    Args:
        table: the earlier runs.
        natural: natural weights of the new domains.
        became: what became of old domains, where names do not say it.
    """
    new = tuple(sorted(natural))
    into = successors(table.domains, new, became)
    share_OD = np.array([[_part(one, into[name], natural) for one in new] for name in table.domains])
    table = table.rows(~of_kinds(table, NOT_FITTED))
    speaks_N = (table.weights[:, share_OD.sum(1) == 0] <= 1e-6).all(1) & ~table.diverged
    weights_ND = table.weights @ share_OD
    targets, losses_NT = _losses(table, into, natural)
    kept = table.rows(speaks_N)
    origins = {one: [name for name in table.domains if one in into[name]] for one in new}
    carried_table = replace(
        kept,
        names=tuple(f"earlier.{name}" for name in kept.names),
        kinds=(EARLIER,) * kept.num_runs,
        domains=new,
        weights=weights_ND[speaks_N],
        targets=targets,
        losses=losses_NT[speaks_N],
        bits=np.full((kept.num_runs, len(targets)), np.nan),
        curves=({},) * kept.num_runs,
    )
    return Carried(
        carried_table,
        tuple(name for name, speaks in zip(table.names, speaks_N, strict=True) if not speaks),
        tuple(name for name in table.domains if len(into[name]) > 1),
        tuple(one for one in new if len(origins[one]) > 1),
        tuple(one for one in new if not origins[one]),
        tuple(name for name in table.domains if not into[name]),
    )


def _part(one: str, names: Sequence[str], natural: Mapping[str, float]) -> float:
    """Share of an old domain's tokens that went into a new one: natural proportions among what it became."""
    return natural[one] / sum(natural[name] for name in names) if one in names else 0.0


def _losses(
    table: RunsTable, into: Mapping[str, Sequence[str]], natural: Mapping[str, float]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Losses by the new domains' names; those of parts and of new domains are unknown."""
    sizes = _natural_of(table)
    columns: dict[str, np.ndarray] = {}
    sums: dict[str, float] = {}
    for place, name in enumerate(table.targets):
        names = into.get(name, (name,))  # measured and never trained on: it keeps its name
        if len(names) != 1:
            continue
        weight = sizes.get(name, 1.0)
        columns[names[0]] = columns.get(names[0], 0.0) + weight * table.losses[:, place]
        sums[names[0]] = sums.get(names[0], 0.0) + weight
    targets = tuple(sorted(columns))
    empty = np.zeros((table.num_runs, 0))
    return targets, np.stack([columns[name] / sums[name] for name in targets], axis=1) if targets else empty


def _natural_of(table: RunsTable) -> dict[str, float]:
    """Weights of the earlier swarm's natural runs; even ones without."""
    for kind, weights_D in zip(table.kinds, table.weights, strict=True):
        if kind == "natural":
            return {name: max(float(w), 1e-9) for name, w in zip(table.domains, weights_D, strict=True)}
    return dict.fromkeys(table.domains, 1.0)


def needed(found: Sequence[Carried], natural: Mapping[str, float], measured: Sequence[str]) -> int:
    """New mixtures that a law with a slope per domain still needs beside the earlier runs.

    Twice as many as there are directions in which no earlier run moved; twice as many as domains where a measured
    domain's loss is known from none of them.
    """
    known = {name for one in found for name in one.table.targets if one.table.num_runs}
    if not found or set(measured) - known:
        return MIXTURES_A_DIRECTION * len(natural)
    mixtures = np.vstack([one.table.weights for one in found])
    moved = np.linalg.matrix_rank(mixtures - mixtures.mean(0), tol=1e-3)
    return MIXTURES_A_DIRECTION * max(0, len(natural) - 1 - int(moved))


def read_evidence(evidence: Sequence[Evidence], natural: Mapping[str, float]) -> list[Carried]:
    """Earlier swarms in terms of the new domains.

    Raises:
        RunsError: for a table that cannot be read, or domains that are not there.
    """
    return [carried(read_csv(runs_file(one.path)), natural, dict(one.became)) for one in evidence]


def runs_file(path: str) -> Path:
    """The table of runs that a path names: itself, or the one inside a folder of an ablation's weights.

    Raises:
        RunsError: for a folder without one.
    """
    place = Path(path)
    if not place.is_dir():
        return place
    inside = sorted(place.glob("*.runs.csv"))
    if not inside:
        raise RunsError(
            f"evidence: {place} holds no *.runs.csv; name an ablation's weights-… folder or a table of runs"
        )
    return inside[0]


def with_evidence(table: RunsTable, found: Sequence[Carried], natural: Mapping[str, float]) -> RunsTable:
    """The runs of a study with those of earlier ones behind them; what they are is noted.

    Earlier runs whose losses at natural weights are others than the study's are left out: they are of another proxy,
    tokenizer, length or text. A smaller difference is taken out of them, loss by loss, so that it is not mistaken for
    an effect of their mixtures.
    """
    for one in found:
        ratios = _natural_ratios(table, one.table, natural)
        drift = None if ratios is None else float(np.mean(np.abs(np.log(list(ratios.values())))))
        if drift is not None and drift > MOST_DRIFT:
            note = (
                f"{one.table.num_runs} earlier runs were left out: at natural weights their losses differ by "
                f"{drift:.1%} from those here, so they are of another proxy, tokenizer, length or text."
            )
            table = replace(table, notes=(*table.notes, note))
        elif one.table.num_runs:
            table = _joined(table, _levelled(one.table, ratios or {}), words_of(one, drift))
    return table


def _natural_ratios(table: RunsTable, earlier: RunsTable, natural: Mapping[str, float]) -> dict[str, float] | None:
    """The study's loss over the earlier one at natural weights, by domain; None where either has no run there."""
    ratios = {}
    for name in sorted(set(earlier.targets) & set(table.targets)):
        own, old = (_natural_mean(one, name, natural) for one in (table, earlier))
        if own is not None and old is not None:
            ratios[name] = own / old
    return ratios or None


def _natural_mean(table: RunsTable, target: str, natural: Mapping[str, float]) -> float | None:
    """Mean loss of a domain over the runs at natural weights that count."""
    at_D = np.array([natural.get(name, 0.0) for name in table.domains])
    counts_N = ~table.diverged & ~of_kinds(table, NOT_FITTED)
    near_N = counts_N & (moved(table.weights, at_D / at_D.sum()) <= LEAST_MOVE)
    return mean(table.losses[near_N, table.targets.index(target)])


def _levelled(table: RunsTable, ratios: Mapping[str, float]) -> RunsTable:
    """Earlier runs whose losses at natural weights are those of the study, where both are known."""
    return replace(table, losses=table.losses * np.array([ratios.get(name, 1.0) for name in table.targets]))


def _joined(table: RunsTable, earlier: RunsTable, note: str) -> RunsTable:
    """Two tables as one over all their domains and the first one's targets."""
    domains = tuple(sorted({*table.domains, *earlier.domains}))
    names = tuple(name if name not in table.names else f"{name}.again" for name in earlier.names)
    return replace(
        table,
        names=(*table.names, *names),
        kinds=(*table.kinds, *earlier.kinds),
        seeds=(*table.seeds, *earlier.seeds),
        domains=domains,
        weights=np.vstack([_columns(one.weights, one.domains, domains, 0.0) for one in (table, earlier)]),
        losses=np.vstack([table.losses, _columns(earlier.losses, earlier.targets, table.targets, np.nan)]),
        bits=np.vstack([table.bits, _columns(earlier.bits, earlier.targets, table.targets, np.nan)]),
        diverged=np.concatenate([table.diverged, earlier.diverged]),
        curves=(*(table.curves or ({},) * table.num_runs), *earlier.curves),
        notes=(*table.notes, note),
    )


def _columns(values: np.ndarray, names: Sequence[str], wanted: Sequence[str], absent: float) -> np.ndarray:
    place = {name: at for at, name in enumerate(names)}
    empty = np.full(len(values), absent)
    return np.stack([values[:, place[name]] if name in place else empty for name in wanted], axis=1)


def words_of(one: Carried, drift: float | None = None) -> str:
    """What an earlier swarm still says, in a sentence or two."""
    parts = [f"{one.table.num_runs} of {one.table.num_runs + len(one.silent)} earlier runs still speak"]
    if one.split:
        parts.append(f"of {', '.join(one.split)} only as a whole, its parts in natural proportion")
    if one.merged:
        parts.append(f"of {', '.join(one.merged)} by the sum of the weights that went into it")
    if one.added:
        parts.append(f"of {', '.join(one.added)} not at all (weight 0)")
    if one.removed:
        parts.append(f"those that drew {', '.join(one.removed)} are silent")
    if drift is None:
        return "; ".join(parts) + "."
    return "; ".join(parts) + f". At natural weights their losses differed by {drift:.1%} from those here: levelled."


__all__ = ["Carried", "Evidence", "carried", "needed", "read_evidence", "with_evidence", "words_of"]
