"""`gristmill status`: where a run stands, on one screen."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

# A training writes status.json every few seconds; a train step may take minutes.
SILENT_S = 900.0

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
        training = training_status(run.store.workdir, run.recall("training"), run.name)
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
        _show_training(one)
    done = any(one["state"] == "done" for one in mine)
    next_command = "gristmill report" if not found["missing"] and done else "gristmill run"
    if len(training) > len(mine):
        click.echo(f"{len(training) - len(mine)} trainings of other recipes, or of earlier versions of this one")
    click.echo(f"next: {next_command} {flags.recipe} {flags.words}".rstrip())


def _proxies(run: Run) -> tuple[int, int] | None:
    """Finished and planned proxies, without a word."""
    if run.recipe.ablation is None:
        return None
    from recipes.progress import Narrator
    from recipes.runs_table import progress

    run.narrator = Narrator(silent=True)
    return progress(run)


def _show_training(one: dict[str, Any]) -> None:
    """A training in a few lines: where it stands, why it ended, and what a restart costs."""
    loss = f", loss {one['loss']:.3f}" if one.get("loss") else ""
    click.echo(
        f"training {one['folder']}: {one['state']}, step {one['step']} of {one['num_steps']}{loss}; {one['age']}"
    )
    if one["exit"] is not None and one["exit"] != "DONE":
        cause = f": {one['cause']}" if one["cause"] else ""
        click.echo(f"  ended with {one['exit']} (exit code {one['code']}) on {one['host']}{cause}")
    if one["state"] != "done":
        lost = "" if one["tokens_lost"] is None else f"; {one['tokens_lost']:,} tokens behind it are trained again"
        click.echo(f"  last whole checkpoint: {one['checkpoint'] or 'none'}{lost}")
        click.echo(f"  log: {one['log']}")


def training_status(workdir: Path, remembered: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """What each training of the work directory last said of itself.

    Args:
        workdir: the work directory.
        remembered: what the run keeps of its training, None before the first finished one.
        name: the run's.
    """
    from recipes.training_log import read_end, read_status

    found = []
    for log in sorted(workdir.glob("training-*/runs/*")):
        status, end = read_status(log) or {"state": "starting"}, read_end(log) or {}
        checkpoint = last_whole_checkpoint(log.parent.parent / "checkpoints", log.name)
        tokens = status.get("tokens")
        age_s = (
            time.time() - log.stat().st_mtime
            if "step" not in status
            else time.time() - (log / "status.json").stat().st_mtime
        )
        found.append(
            {
                "folder": log.parent.parent.name,
                "log": str(log),
                "state": _state(status, end, age_s),
                "step": status.get("step"),
                "num_steps": status.get("num_steps"),
                "loss": status.get("loss"),
                "exit": end.get("exit"),
                "code": end.get("code"),
                "cause": end.get("cause"),
                "host": end.get("host") or status.get("host"),
                "checkpoint": checkpoint["name"] if checkpoint else None,
                "tokens_lost": tokens - checkpoint["tokens"] if tokens is not None and checkpoint else tokens,
                "age": f"said {age_s:.0f} s ago" if age_s < 3600 else f"said {age_s / 3600:.1f} h ago",
                "this_recipe": log.name == name and (remembered is None or len(_logs(workdir, name)) == 1
                or remembered.get("folder") == log.parent.parent.name),
            }
        )  # fmt: skip
    return found


def _logs(workdir: Path, name: str) -> list[Path]:
    return list(workdir.glob(f"training-*/runs/{name}"))


def _state(status: dict[str, Any], end: dict[str, Any], age_s: float) -> str:
    """The state in one word; a process that says nothing for long and left no word of its end was killed with all."""
    if end.get("exit") not in (None, "DONE", "REQUEUE"):
        return "failed"
    state = str(status.get("state", "?"))
    running = state in ("training", "saving", "measuring")
    return "silent" if running and not end and age_s > SILENT_S else state


def last_whole_checkpoint(folder: Path, log: str) -> dict[str, Any] | None:
    """Name, step and tokens of the newest whole checkpoint that a run saved, or that others left for it."""
    found = []
    for path in folder.glob("step-*/manifest.json"):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        own = manifest.get("state", {}).get("log") == log
        found.append((own, manifest["step"], path.parent.name, manifest["tokens"]))
    if not found:
        return None
    _, step, name, tokens = max(found)
    return {"name": name, "step": step, "tokens": tokens}
