"""`gristmill status`: where a run stands, on one screen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from recipes.run import Run


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Show where a run stands: stages made, training, last whole checkpoint, and the next command.

    \b
    gristmill status recipes/quickstart.yaml
    """
    from recipes.show import compiled_stages

    with flags.open_run() as run:
        stages = compiled_stages(run)
        training = training_status(run.store.workdir, run.recall("training"))
        proxies = None if any(s["missing"] for s in stages) else _proxies(run)
    found: dict[str, Any] = {
        "stages": len(stages),
        "missing": [s["stage"] for s in stages if s["missing"]],
        "proxies": None if proxies is None else {"finished": proxies[0], "planned": proxies[1]},
        "training": training,
    }
    if flags.as_json:
        print_json(found)
        return
    made = len(stages) - len(found["missing"])
    click.echo(f"{flags.recipe}: {made} of {len(stages)} stages of curation and tokens are made")
    for title in found["missing"][:5]:
        click.echo(f"  missing: {title}")
    if proxies is not None:
        click.echo(f"ablation: {proxies[0]} of {proxies[1]} proxies are finished")
    mine = [one for one in training if one["this_recipe"]]
    for one in mine:
        click.echo(
            f"training {one['folder']}: {one['state']}, step {one['step']} of {one['num_steps']}"
            + (f", loss {one['loss']:.3f}" if one.get("loss") else "")
            + f"; last whole checkpoint: {one['checkpoint'] or 'none'}; {one['age']}"
        )
    next_command = (
        "gristmill report" if not found["missing"] and any(t["state"] == "done" for t in mine) else "gristmill run"
    )
    if len(training) > len(mine):
        click.echo(f"{len(training) - len(mine)} trainings of other recipes, or of earlier versions of this one")
    click.echo(f"next: {next_command} {flags.recipe}")


def _proxies(run: Run) -> tuple[int, int] | None:
    """Finished and planned proxies, without a word."""
    if run.recipe.ablation is None:
        return None
    from recipes.progress import Narrator
    from recipes.runs_table import progress

    run.narrator = Narrator(silent=True)
    return progress(run)


def training_status(workdir: Path, remembered: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What each training of the work directory last said of itself."""
    from recipes.train import read_status

    found = []
    for folder in sorted(workdir.glob("training-*")):
        status = read_status(folder)
        if status is None:
            continue
        whole = sorted(path.parent.name for path in (folder / "checkpoints").glob("step-*/manifest.json"))
        age_s = time.time() - (folder / "status.json").stat().st_mtime
        found.append(
            {
                "folder": folder.name,
                "state": status.get("state", "?"),
                "step": status.get("step"),
                "num_steps": status.get("num_steps"),
                "loss": status.get("loss"),
                "checkpoint": whole[-1] if whole else None,
                "age": f"said {age_s:.0f} s ago" if age_s < 3600 else f"said {age_s / 3600:.1f} h ago",
                "this_recipe": bool(remembered and remembered.get("folder") == folder.name),
            }
        )
    return found
