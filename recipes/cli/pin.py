"""`gristmill pin`: chosen weights written into the recipe."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from recipes.cli.options import Flags, shared_flags


@click.command()
@shared_flags
@click.option("--phase", help="Only this phase; default: every phase with `weights: ablation`.")
def command(flags: Flags, phase: str | None) -> None:
    """Write the weights that a finished ablation chose into the recipe, with artifact, interval and date.

    \b
    gristmill pin recipes/quickstart.yaml
    """
    from recipes.whole import show_plan

    with flags.open_run(brief=True, trains=False) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "ablate")
            return
        ablation = run.ablation
    note = f"gristmill pin: {ablation.folder.name}, {datetime.now(UTC):%Y-%m-%d}"
    intervals = ablation.analysis.get("weights_interval", {})
    if ablation.analysis.get("reason") == "natural":
        note = f"{note}: natural weights stay"
    if ablation.analysis.get("reason") in ("surrogate", "best_run"):
        note = f"{note}: not confirmed"
    if ablation.weights != ablation.analysis.get("optimum"):
        intervals = {}  # they are those of the surrogate's optimum
    phases = pin_weights(flags.recipe, ablation.weights, intervals, note, phase)
    click.echo(f"{flags.recipe}: pinned {', '.join(phases)}")


def pin_weights(
    path: Path, weights: dict[str, float], intervals: dict[str, Any], note: str, phase: str | None = None
) -> list[str]:
    """Replace `weights: ablation` in a recipe file by the chosen weights; everything else of the file stays as it is.

    Returns:
        Names of the phases that were pinned.

    Raises:
        RunError: if no phase of this file asks for an ablation's weights.
    """
    from ruamel.yaml import YAML

    from recipes.artifacts import write_atomically
    from recipes.errors import RunError

    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    pinned: list[str] = []
    for entry in reversed(YAML().load(text).get("schedule") or []):  # from below: lines above keep their numbers
        if entry.get("weights") != "ablation" or phase not in (None, entry["name"]):
            continue
        if not _replace(lines, entry, rounded(weights), intervals, note):
            raise RunError(f"{path}: schedule.{entry['name']}.weights: write `weights: ablation` plainly in the phase")
        pinned.insert(0, str(entry["name"]))
    if not pinned:
        raise RunError(
            f"{path}: no phase of this file says `weights: ablation`" + (f" and is named {phase}" if phase else "")
        )
    write_atomically(path, "".join(lines))
    return pinned


def _replace(lines: list[str], entry: Any, weights: dict[str, float], intervals: dict[str, Any], note: str) -> bool:
    """Put weights in the place of the word in one phase, as it is written: below the key, or in braces on its line."""
    place = entry.lc.data.get("weights")
    if place is None:  # it came by a merge key
        return False
    _, key_column, line, column = place
    found = re.match(r"(['\"]?)ablation\1", lines[line][column:])
    if found is None:  # an anchor or an alias
        return False
    before, after = lines[line][:column], lines[line][column + found.end() :]
    written = {_quoted(name): _plain(weight) for name, weight in weights.items()}
    if entry.fa.flow_style():
        shares = ", ".join(f"{name}: {weight}" for name, weight in written.items())
        indent = before[: len(before) - len(before.lstrip())]
        lines[line : line + 1] = [f"{indent}# {note}\n", f"{before}{{{shares}}}{after}"]
        return True
    rest, indent = after.rstrip(), " " * (key_column + 2)
    below = [f"{indent}# {note}"]
    for name, (quoted, weight) in zip(weights, written.items(), strict=True):
        low, high = intervals.get(name, (None, None))
        below.append(f"{indent}{quoted}: {weight}" + ("" if low is None else f"  # {low:.3f} to {high:.3f}"))
    lines[line : line + 1] = [f"{before.rstrip()}{rest}\n", *(f"{one}\n" for one in below)]
    return True


def _quoted(name: str) -> str:
    """A name as a key of YAML."""
    is_plain = re.fullmatch(r"[^\W\d][\w/.-]*", name) and name.lower() not in ("true", "false", "null")
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _plain(weight: float) -> str:
    """A weight without an exponent."""
    return f"{weight:.12f}".rstrip("0").removesuffix(".")


def rounded(weights: dict[str, float]) -> dict[str, float]:
    """Weights in steps of 1e-4 that sum to 1, by largest remainders; names in order.

    The steps are finer, to 1e-9, where the smallest weight above 0 would be less than ten of them: none is lost.
    """
    from mixing.weights import whole_units

    least = min((weight for weight in weights.values() if weight > 0), default=1.0)
    steps = next((10**digits for digits in range(4, 9) if least * 10**digits >= 10), 10**9)
    scaled = {name: weights[name] * steps for name in sorted(weights)}
    return {name: number / steps for name, number in whole_units(scaled, steps).items()}
