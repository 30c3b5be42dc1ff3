"""The table of a scaling study: runs of several sizes with their losses, ours or anybody's CSV.

Shapes: N runs, D domains.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mixing.csv_rows import read_rows

PARAMETERS = ("num_parameters", "parameters", "n", "model size", "params")
TOKENS = ("num_tokens", "tokens", "d", "training tokens")
FLOPS = ("flops", "c", "training flop", "compute")
WEIGHT, LOSS = "w:", "loss:"
LEAST_RUNS = 4


class ScalingError(ValueError):
    """A table that no scaling law can be fitted to."""


@dataclass(frozen=True)
class ScalingTable:
    """Runs of several sizes.

    Attributes:
        names: of the runs.
        parameters: total parameters of each.
        tokens: trained on.
        flops: operations of its training; 6 · parameters · tokens where the table has none.
        losses: final held-out loss in nats; the geometric mean over domains where the table has several.
        domains, weights: mixture (N, D), no columns where it is unknown.
        notes: what was left out or made up, in words.
    """

    names: tuple[str, ...]
    parameters: np.ndarray
    tokens: np.ndarray
    flops: np.ndarray
    losses: np.ndarray
    domains: tuple[str, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    notes: tuple[str, ...] = ()

    @property
    def num_runs(self) -> int:
        """Runs."""
        return len(self.names)

    def columns(self) -> dict[str, np.ndarray]:
        """What laws are made of."""
        return {"parameters": self.parameters, "tokens": self.tokens, "flops": self.flops, "weights": self.weights}

    def rows(self, keep_N: np.ndarray) -> ScalingTable:
        """Some of the runs, by a mask."""
        picked = np.flatnonzero(keep_N)
        return ScalingTable(
            tuple(self.names[i] for i in picked), self.parameters[picked], self.tokens[picked], self.flops[picked],
            self.losses[picked], self.domains, self.weights[picked], self.notes,
        )  # fmt: skip


def make_table(
    names: Sequence[str],
    columns: dict[str, np.ndarray],
    losses_N: np.ndarray,
    domains: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ScalingTable:
    """A table of what was measured; runs without a positive size, tokens or loss are left out and noted.

    Raises:
        ScalingError: if fewer than four runs are left.
    """
    parameters_N, tokens_N = columns["parameters"], columns["tokens"]
    flops_N = np.where(np.isfinite(columns["flops"]), columns["flops"], 6 * parameters_N * tokens_N)
    good_N = np.ones(len(names), bool)
    for values_N in (parameters_N, tokens_N, flops_N, losses_N):
        good_N &= np.isfinite(values_N) & (values_N > 0)
    told = list(notes)
    if not good_N.all():
        left = [name for name, good in zip(names, good_N, strict=True) if not good]
        told.append(f"{len(left)} runs without size, tokens or loss were left out: {', '.join(left[:5])}.")
    weights_ND = columns.get("weights", np.zeros((len(names), 0)))
    table = ScalingTable(
        tuple(names), parameters_N, tokens_N, flops_N, losses_N, tuple(domains), weights_ND, tuple(told)
    ).rows(good_N)
    if table.num_runs < LEAST_RUNS:
        raise ScalingError(f"{table.num_runs} runs with size, tokens and loss; a law needs at least {LEAST_RUNS}")
    return table


def read_table(path: Path | str) -> ScalingTable:
    """Read a CSV with the columns num_parameters, num_tokens, loss (or loss:DOMAIN), and perhaps flops, w:DOMAIN.

    Raises:
        ScalingError: with the file, and the column or line to blame.
    """
    path = Path(path)
    header, rows = read_rows(path, ScalingError)
    header = [name for name in header if name]
    found = {name.strip().lower(): name for name in header}
    wanted = {"parameters": PARAMETERS, "tokens": TOKENS, "flops": FLOPS}
    places = {key: next((found[name] for name in names if name in found), None) for key, names in wanted.items()}
    losses = [name for name in header if name.startswith(LOSS)] or [found[n] for n in ("loss",) if n in found]
    if places["parameters"] is None or places["tokens"] is None or not losses:
        raise ScalingError(
            f"{path}:1: a table of sizes has the columns num_parameters, num_tokens and loss (or loss:DOMAIN), "
            f"and may have flops and w:DOMAIN; found {', '.join(header) or 'none'}"
        )
    columns = {key: np.array([_number(path, line, row, name) for line, row in rows]) for key, name in places.items()}
    domains = [name.removeprefix(WEIGHT) for name in header if name.startswith(WEIGHT)]
    cells = [[_number(path, line, row, WEIGHT + name) for name in domains] for line, row in rows]
    columns["weights"] = np.nan_to_num(np.array(cells).reshape(len(rows), len(domains)))
    values = np.array([[_number(path, line, row, name) for name in losses] for line, row in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        several_N = np.exp(np.log(values.reshape(len(rows), len(losses))).mean(1))
    losses_N = several_N if len(losses) > 1 else values.reshape(len(rows))
    names = [row.get(found.get("name", "name")) or f"run.{number:03}" for number, (_, row) in enumerate(rows)]
    return make_table(names, columns, losses_N, domains)


def write_table(table: ScalingTable, path: Path | str) -> None:
    """Write a table as `read_table` reads it."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "num_parameters", "num_tokens", "flops", "loss", *(WEIGHT + n for n in table.domains)])
        for i in range(table.num_runs):
            numbers = [table.parameters[i], table.tokens[i], table.flops[i], table.losses[i], *table.weights[i]]
            writer.writerow([table.names[i], *(repr(float(number)) for number in numbers)])


def _number(path: Path, line: int, row: dict[str, str | None], name: str | None) -> float:
    cell = (row.get(name) or "").strip() if name is not None else ""
    try:
        return float(cell) if cell else math.nan
    except ValueError as error:
        raise ScalingError(f"{path}:{line}: {name} is {cell!r}, not a number") from error
