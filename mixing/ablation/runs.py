"""The table of runs: what was trained on what, and the losses that came of it.

Rows come from run files or from anyone's CSV (`read_runs`): runs times trained domains (weights) and runs times
measured domains (losses). Nothing is dropped here: a diverged run is marked, a missing loss is NaN. Shapes: N runs, D
trained domains, T measured domains.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROUNDED = 1e-4  # what weights of a few digits may sum to beside 1 without a word
SUM_TOLERANCE = 0.02  # RegMix's own tables sum to 0.996 to 1.003
WEIGHT, LOSS, BITS = "w:", "loss:", "bpb:"


class RunsError(ValueError):
    """A table of runs that cannot be read."""


@dataclass(frozen=True)
class RunsTable:
    """Runs with their weights and final held-out losses.

    Attributes:
        names, kinds, seeds: of each run.
        domains: trained domains, the columns of `weights` (shares of tokens, rows sum to 1).
        targets: measured domains, the columns of `losses` and `bits`, NaN where nothing was measured.
        diverged: runs that ended early with a loss that was no number.
        curves: per run, held-out losses over tokens: {"tokens": [..], "losses": {domain: [..]}}, {} where unknown.
        num_parameters, num_tokens: of a run, 0 where unknown.
        notes: what was changed while reading, in words.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    seeds: tuple[int, ...]
    domains: tuple[str, ...]
    weights: np.ndarray
    targets: tuple[str, ...]
    losses: np.ndarray
    bits: np.ndarray
    diverged: np.ndarray
    curves: tuple[dict[str, Any], ...] = ()
    num_parameters: int = 0
    num_tokens: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def num_runs(self) -> int:
        """Runs, diverged ones among them."""
        return len(self.names)

    def rows(self, keep_N: np.ndarray) -> RunsTable:
        """The table of some runs (a mask or row numbers), in their order."""
        picked = [int(i) for i in (np.flatnonzero(keep_N) if keep_N.dtype == bool else keep_N)]
        return RunsTable(
            tuple(self.names[i] for i in picked),
            tuple(self.kinds[i] for i in picked),
            tuple(self.seeds[i] for i in picked),
            self.domains,
            self.weights[picked],
            self.targets,
            self.losses[picked],
            self.bits[picked],
            self.diverged[picked],
            tuple(self.curves[i] for i in picked) if self.curves else (),
            self.num_parameters,
            self.num_tokens,
            self.notes,
        )


def table_of(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str] | None = None) -> RunsTable:
    """Make a table of run files' rows (`training.swarm`).

    Args:
        rows: with keys name, weights, seed, held_out, diverged_at, num_parameters, num_tokens.
        kinds: kind of each run by name; without it a row's own `kind`, or "other".

    Raises:
        RunsError: for no rows, or two runs of one name.
    """
    if not rows:
        raise RunsError("a table of runs needs at least one run")
    names = [str(row["name"]) for row in rows]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RunsError(f"runs of one name: {', '.join(twice)}; give each run a name of its own")
    domains = sorted({domain for row in rows for domain in row["weights"]})
    finals = [_final(row) for row in rows]
    targets = sorted({domain for final in finals for domain in final.get("losses", {})})
    weights_ND = np.array([[float(row["weights"].get(domain, 0.0)) for domain in domains] for row in rows])
    weights_ND, notes = normalised(weights_ND, names)
    return RunsTable(
        tuple(names),
        tuple((kinds or {}).get(name, str(row.get("kind", "other"))) for name, row in zip(names, rows, strict=True)),
        tuple(int(row.get("seed", 0)) for row in rows),
        tuple(domains),
        weights_ND,
        tuple(targets),
        _matrix([final.get("losses", {}) for final in finals], targets),
        _matrix([final.get("bits_per_byte") or {} for final in finals], targets),
        np.array([row.get("diverged_at") is not None for row in rows], dtype=bool),
        tuple(_curve(row) for row in rows),
        max(int(row.get("num_parameters", 0)) for row in rows),
        max(int(row.get("num_tokens", 0)) for row in rows),
        tuple(notes),
    )


def _final(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last measurement of a run; a diverged run has none that counts."""
    measured: Sequence[Mapping[str, Any]] = row.get("held_out") or ()
    return measured[-1] if measured else {}


def _matrix(rows: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> np.ndarray:
    return np.array([[_number(row.get(name)) for name in targets] for row in rows], dtype=np.float64).reshape(
        len(rows), len(targets)
    )


def _number(value: object) -> float:
    """A finite number, or NaN."""
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else math.nan


def _curve(row: Mapping[str, Any]) -> dict[str, Any]:
    measured: Sequence[Mapping[str, Any]] = row.get("held_out") or ()
    domains = sorted({name for one in measured for name in one["losses"]})
    return {
        "tokens": [int(one["tokens"]) for one in measured],
        "losses": {name: [one["losses"].get(name) for one in measured] for name in domains},
    }


def normalised(weights_ND: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Weights whose rows sum to 1, and a note where they did not.

    Raises:
        RunsError: for a weight below 0, or rows that are far from 1.
    """
    bad = [name for name, row in zip(names, weights_ND, strict=True) if not np.isfinite(row).all() or (row < 0).any()]
    if bad:
        raise RunsError(f"runs {', '.join(bad[:5])}: a weight is not a number of 0 or more")
    sums_N = weights_ND.sum(1)
    far = [f"{names[i]} ({sums_N[i]:.4g})" for i in np.flatnonzero(np.abs(sums_N - 1) > SUM_TOLERANCE).tolist()]
    if far:
        more = f" and {len(far) - 5} more" if len(far) > 5 else ""
        raise RunsError(
            f"weights must sum to 1; they do not in {', '.join(far[:5])}{more}; divide each row by its sum if that is "
            "what it means, or add the columns that are missing"
        )
    off = np.flatnonzero(np.abs(sums_N - 1) > ROUNDED)
    notes = []
    if len(off):
        least, most = f"{sums_N[off].min():.4f}", f"{sums_N[off].max():.4f}"
        sums = least if least == most else f"{least} to {most}"
        notes.append(f"The weights of {len(off)} of {len(names)} runs summed to {sums}; they were scaled to sum to 1.")
    return weights_ND / sums_N[:, None], notes


def write_csv(table: RunsTable, path: Path | str) -> None:
    """Write `runs.csv`: name, kind, seed, diverged, a weight per trained and a loss per measured domain.

    Numbers are written so that they read back as the same bits; an empty cell was not measured.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["name", "kind", "seed", "diverged"]
            + [WEIGHT + name for name in table.domains]
            + [prefix + name for prefix in (LOSS, BITS) for name in table.targets]
        )
        for i in range(table.num_runs):
            numbers = [*table.weights[i], *table.losses[i], *table.bits[i]]
            cells = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
            writer.writerow([table.names[i], table.kinds[i], table.seeds[i], int(table.diverged[i]), *cells])
