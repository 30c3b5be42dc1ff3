"""Tables of runs from CSV files: an ablation's own `runs.csv`, and those of others.

Others write weights and losses into one file with the columns `w:DOMAIN` and `loss:DOMAIN`, or into two that name the
same runs, as RegMix and Olmix publish theirs. Shapes: N runs, D trained domains, T measured domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixing.ablation.runs import BITS, LOSS, WEIGHT, RunsError, RunsTable, normalised
from mixing.csv_rows import read_rows

TRUE, FALSE = ("1", "1.0", "true", "yes"), ("", "0", "0.0", "false", "no")
# Columns that name a run, the first that both files of a pair have: Olmix's, then RegMix's.
NAMING = ("run", "run_id", "index", "name")
# Columns beside weights or losses: what names runs, what `runs.csv` tells of them, and an unnamed index of data frames.
BESIDE = (*NAMING, "kind", "seed", "diverged", "", "Unnamed: 0")
# What RegMix writes around a domain's name.
AROUND = (("train_the_pile_", ""), ("metric/the_pile_", "_val_loss"))

Row = Mapping[str, str | None]


def read_csv(path: Path | str) -> RunsTable:
    """Read a table of runs: `runs.csv` of an ablation, or anyone's with the columns `w:DOMAIN` and `loss:DOMAIN`.

    Without a column `seed`, rows of one mixture are taken for seeds of it.

    Raises:
        RunsError: with the file, and the line where one is to blame.
    """
    path = Path(path)
    header, rows = read_rows(path, RunsError)
    domains = [name.removeprefix(WEIGHT) for name in header if name.startswith(WEIGHT)]
    targets = [name.removeprefix(LOSS) for name in header if name.startswith(LOSS)]
    if not domains or not targets or not rows:
        raise RunsError(
            f"{path}:1: a table of runs has a column w:DOMAIN per trained domain, loss:DOMAIN per measured domain, and "
            f"a row per run; found {len(rows)} rows and the columns {', '.join(header) or 'none'}; losses in a file of "
            "their own are named by --losses FILE"
        )
    names = tuple(row.get("name") or f"run.{number:03}" for number, (_, row) in enumerate(rows))
    _refuse_twice(path, names)
    weights_ND, notes = _weights(path, rows, [WEIGHT + name for name in domains], names)
    losses_NT = _losses(path, rows, [LOSS + name for name in targets])
    bits_NT = np.array([_numbers(path, line, row, [BITS + name for name in targets]) for line, row in rows])
    return _table(path, rows, names, (domains, weights_ND), (targets, losses_NT, bits_NT), notes)


def read_two(weights: Path | str, losses: Path | str) -> RunsTable:
    """Read a table of weights and one of losses, joined on the column that names a run in both.

    That is `run`, `run_id`, `index` or `name`. Every other column of the one is a trained domain's weight, of the other
    a measured domain's loss; `kind`, `seed` and `diverged` are read as in `runs.csv`, of the weights' file. Runs that
    only one of them has are left out and noted.

    Raises:
        RunsError: with the file, and the line where one is to blame.
    """
    weights, losses = Path(weights), Path(losses)
    (weights_header, weights_rows), (losses_header, losses_rows) = (read_rows(p, RunsError) for p in (weights, losses))
    naming = [name for name in NAMING if name in weights_header and name in losses_header]
    if not naming:
        raise RunsError(f"{weights} and {losses} share no column that names a run; give both one called `run`")
    weights_by, losses_by = _by_name(weights, weights_rows, naming[0]), _by_name(losses, losses_rows, naming[0])
    names = tuple(name for name in weights_by if name in losses_by)
    if not names:
        raise RunsError(f"{weights} and {losses} have no run in common: their columns `{naming[0]}` share no value")
    domains, targets = ([name for name in header if name not in BESIDE] for header in (weights_header, losses_header))
    for path, columns in ((weights, domains), (losses, targets)):
        if not columns:
            raise RunsError(f"{path}:1: no column beside {', '.join(naming)}; write one for each domain")
    rows = [weights_by[name] for name in names]
    weights_ND, notes = _weights(weights, rows, domains, names)
    losses_NT = _losses(losses, [losses_by[name] for name in names], targets)
    if alone := len(weights_by) + len(losses_by) - 2 * len(names):
        notes.append(f"{alone} run{'s are' if alone > 1 else ' is'} in only one of the two files and left out.")
    measured = [_bare(name) for name in targets], losses_NT, np.full_like(losses_NT, np.nan)
    return _table(weights, rows, names, ([_bare(name) for name in domains], weights_ND), measured, notes)


def _table(
    path: Path,
    rows: Sequence[tuple[int, Row]],
    names: tuple[str, ...],
    trained: tuple[list[str], np.ndarray],
    measured: tuple[list[str], np.ndarray, np.ndarray],
    notes: list[str],
) -> RunsTable:
    """The table of what was read, with what the rows tell of their runs."""
    (domains, weights_ND), (targets, losses_NT, bits_NT) = trained, measured
    seeded = bool(rows) and "seed" in rows[0][1]
    return RunsTable(
        names,
        tuple(row.get("kind") or "other" for _, row in rows),
        tuple(_seed(path, line, row) for line, row in rows) if seeded else _numbered(weights_ND, losses_NT),
        tuple(domains),
        weights_ND,
        tuple(targets),
        losses_NT,
        bits_NT,
        np.array([_diverged(path, line, row) for line, row in rows], dtype=bool),
        notes=tuple(notes),
    )


def _by_name(path: Path, rows: Sequence[tuple[int, Row]], column: str) -> dict[str, tuple[int, Row]]:
    """Runs by their names, as data frames write them too: `7.0` is `7`."""
    found: dict[str, tuple[int, Row]] = {}
    for line, row in rows:
        name = (row[column] or "").strip()
        name = name.removesuffix(".0") if name.removesuffix(".0").isdigit() else name
        if not name or name in found:
            again = ", as in another row" if name else ""
            raise RunsError(f"{path}:{line}: {column} is {name!r}{again}; give each run a name of its own")
        found[name] = line, row
    return found


def _bare(column: str) -> str:
    """A domain's name without what RegMix writes around it."""
    for before, behind in AROUND:
        if column.startswith(before) and column.endswith(behind):
            return column.removeprefix(before).removesuffix(behind)
    return column


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise RunsError(f"{path}: two runs are called {next(n for n in names if names.count(n) > 1)!r}")


def _weights(
    path: Path, rows: Sequence[tuple[int, Row]], columns: Sequence[str], names: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Weights (N, D) that sum to 1, and what was changed; an empty cell is 0."""
    read = [_numbers(path, line, row, columns) for line, row in rows]
    for (line, row), numbers in zip(rows, read, strict=True):
        for column, number in zip(columns, numbers, strict=True):
            if math.isnan(number) and (row.get(column) or "").strip():
                raise RunsError(
                    f"{path}:{line}: {column} is {row[column]!r}; write a share of tokens, or nothing for 0"
                )
    try:
        return normalised(np.nan_to_num(np.array(read)), names)
    except RunsError as error:
        raise RunsError(f"{path}: {error}") from error


def _losses(path: Path, rows: Sequence[tuple[int, Row]], columns: Sequence[str]) -> np.ndarray:
    """Losses (N, T), NaN where nothing was measured; they are compared by their logarithm, and less is better."""
    losses_NT = np.array([_numbers(path, line, row, columns) for line, row in rows])
    for place, target in np.argwhere(losses_NT <= 0):
        raise RunsError(
            f"{path}:{rows[place][0]}: {columns[target]} is {losses_NT[place, target]:g}; a loss is above 0, "
            "and less is better: write log-likelihoods with the other sign, and of an accuracy its error, 1 - accuracy"
        )
    return losses_NT


def _numbers(path: Path, line: int, row: Row, columns: Sequence[str]) -> list[float]:
    """The finite numbers of a row, NaN for the others and for empty cells."""
    numbers = []
    for column in columns:
        cell = (row.get(column) or "").strip()
        try:
            number = float(cell or "nan")
        except ValueError as error:
            raise RunsError(f"{path}:{line}: {column} is {cell!r}, not a number") from error
        numbers.append(number if math.isfinite(number) else math.nan)
    return numbers


def _numbered(weights_ND: np.ndarray, losses_NT: np.ndarray) -> tuple[int, ...]:
    """Seeds where a table names none: 0, 1, … of each mixture; a copy of a row keeps its number."""
    seen: dict[bytes, list[bytes]] = {}
    seeds = []
    for weights_D, losses_T in zip(np.round(weights_ND, 6), losses_NT, strict=True):
        rows = seen.setdefault(weights_D.tobytes(), [])
        if losses_T.tobytes() not in rows:
            rows.append(losses_T.tobytes())
        seeds.append(rows.index(losses_T.tobytes()))
    return tuple(seeds)


def _seed(path: Path, line: int, row: Row) -> int:
    """A whole number, also as tables of floats write it (`1.0`)."""
    cell = (row.get("seed") or "0").strip()
    whole, point, rest = cell.partition(".")
    try:
        return int(whole if point and not rest.strip("0") else cell)
    except ValueError as error:
        raise RunsError(f"{path}:{line}: seed is {cell!r}, not a whole number") from error


def _diverged(path: Path, line: int, row: Row) -> bool:
    cell = (row.get("diverged") or "0").strip().lower()
    if cell not in TRUE and cell not in FALSE:
        raise RunsError(f"{path}:{line}: diverged is {cell!r}; write 1 for a run that diverged, else 0 or nothing")
    return cell in TRUE
