"""`gristmill pin`: chosen weights written into the recipe."""

from __future__ import annotations

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
            show_plan(run, flags.as_json)
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
    from ruamel.yaml.comments import CommentedMap

    from recipes.artifacts import write_atomically
    from recipes.errors import RunError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path.read_text(encoding="utf-8"))
    pinned = []
    for entry in document.get("schedule") or []:
        if entry.get("weights") != "ablation" or phase not in (None, entry["name"]):
            continue
        mapping = CommentedMap()
        for name, weight in rounded(weights).items():
            mapping[name] = weight
            low, high = intervals.get(name, (None, None))
            if low is not None:
                mapping.yaml_add_eol_comment(f"{low:.3f} to {high:.3f}", name)
        mapping.yaml_set_start_comment(note, indent=6)
        entry["weights"] = mapping
        entry.fa.set_block_style()
        pinned.append(str(entry["name"]))
    if not pinned:
        raise RunError(
            f"{path}: no phase of this file says `weights: ablation`" + (f" and is named {phase}" if phase else "")
        )
    import io

    stream = io.StringIO()
    yaml.dump(document, stream)
    write_atomically(path, stream.getvalue())
    return pinned


def rounded(weights: dict[str, float]) -> dict[str, float]:
    """Weights in steps of 1e-4 that sum to 1 exactly, by largest remainders; names in order."""
    scaled = {name: weights[name] * 10_000 for name in sorted(weights)}
    floors = {name: int(value) for name, value in scaled.items()}
    left = 10_000 - sum(floors.values())
    for name in sorted(scaled, key=lambda n: (floors[n] - scaled[n], n))[:left]:
        floors[name] += 1
    return {name: number / 10_000 for name, number in floors.items()}
