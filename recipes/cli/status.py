"""`gristmill status`: where a run stands, on one screen."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

# A training writes status.json every few seconds; a train step may take minutes.
SILENT_S = 900.0

_RUNNING = ("starting", "training", "saving", "measuring", "compiling")

if TYPE_CHECKING:
    from recipes.ablation.standing import Standing
    from recipes.run import Run


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Show where a run stands: stages made, training, last whole checkpoint, and the next command.

    \b
    gristmill status recipes/quickstart.yaml
    """
    from recipes.show import compiled_stages
    from recipes.whole import parts_of

    with flags.open_run() as run:
        stages = compiled_stages(run)
        training = training_status(run.store.workdir, run.recall("training"), run.name)
        tunings = tuning_status(run.store.workdir, (run.recall("reached") or {}).get("finetune", []))
        proxies = None if any(s["missing"] for s in stages) else _proxies(run)
        making, report = being_made(run.store.workdir), run.folder / "report.html"
        reached: dict[str, list[str]] = run.recall("reached") or {}
        new = [part for part in parts_of(run) if part in _AFTER_TRAINING and part not in reached]
    last = [part for part in _LATE_PARTS if part in reached]
    found: dict[str, Any] = {
        "stages": len(stages),
        "missing": [s["stage"] for s in stages if s["missing"]],
        "proxies": None if proxies is None else _counted(proxies),
        "training": training,
        "finetuning": tunings,
        "making": making,
    }
    if flags.as_json:
        print_json(found)
        return
    made = len(stages) - len(found["missing"])
    if stages or not tunings:
        click.echo(f"{flags.recipe}: {made} of {len(stages)} stages of curation and tokens are made")
    for title in found["missing"][:5]:
        click.echo(f"  missing: {title}")
    if proxies is not None:
        click.echo(f"ablation: {proxies.words()}")
    mine = [one for one in training if one["this_recipe"]]
    for one in mine:
        _show_training(one)
    if len(training) > len(mine):
        others = len(training) - len(mine)
        click.echo(f"{others} training{'s' * (others > 1)} of other recipes, or of earlier versions of this one")
    for one in tunings:
        _show_training(one, "fine-tuning")
    if last:
        click.echo(f"the last whole run made, beside text and tokens: {', '.join(last)}")
    if making:
        click.echo(f"a run in this work directory is making {', '.join(making)} now")
    own = {stage["folder"] for stage in stages} | {name for names in reached.values() for name in names}
    running = bool(own & set(making))
    following = _following(mine, tunings, running, not (found["missing"] or new), report)
    click.echo("next: " + following.replace("{recipe}", f"{flags.recipe} {flags.words}".rstrip()))


_LATE_PARTS = ("ablate", "scale", "plan", "train", "evaluate", "export", "finetune")
_AFTER_TRAINING = ("export", "finetune")
_RUNS = "nothing, it runs; gristmill status {recipe} shows where"


def _following(
    mine: list[dict[str, Any]], tunings: Sequence[dict[str, Any]], running: bool, is_whole: bool, report: Path
) -> str:
    """What to do next.

    Args:
        mine: this recipe's trainings.
        tunings: its fine-tunings.
        running: whether some run is making an artifact of this recipe now.
        is_whole: whether nothing is missing before the training, and no part after it is new.
        report: where the report lies, if there is one.
    """
    following = _RUNS if running else _next(mine, is_whole, tunings)
    if following.startswith("gristmill report") and report.exists() and _is_newer(report, mine):
        return f"nothing is left to make; the report is {report}"
    return following


def being_made(workdir: Path) -> list[str]:
    """Artifacts that some run holds now, by the names of their folders."""
    from recipes.cli.clean import is_artifact
    from recipes.pretraining.training_log import is_held

    folders = sorted(workdir.iterdir()) if workdir.is_dir() else []
    return [folder.name for folder in folders if is_artifact(folder) and is_held(folder)]


def _is_newer(report: Path, mine: Sequence[dict[str, Any]]) -> bool:
    """Whether a report was written after the trainings last said something."""
    said = [Path(one["log"]) / "status.json" for one in mine]
    return all(report.stat().st_mtime >= one.stat().st_mtime for one in said if one.exists())


# What to do after an end that starting again alone does not mend.
_AFTER = {
    "DIVERGED": "lower learning_rate.peak from a step before it (training.amendments), then gristmill run {recipe}",
    "NO_SPACE": "make room (gristmill clean lists what no recipe reaches), then gristmill run {recipe}",
    "UNFIT": "mend what is named, look with gristmill train {recipe} --preflight, then gristmill run {recipe}",
    "STALLED": "gristmill run {recipe}; if it stalls again, the stacks in the log say where",
    "SPIKED": "look at the documents of spike-*.json in the log, then gristmill run {recipe}",
    "ERROR": "read the log, then gristmill run {recipe}",
}


def _next(mine: list[dict[str, Any]], is_whole: bool, tunings: Sequence[dict[str, Any]] = ()) -> str:
    """The next command for what this recipe's training, or the fine-tuning after it, has come to."""
    if {one["state"] for one in [*mine, *tunings]} & set(_RUNNING):
        return _RUNS
    if tunings:
        if tunings[-1]["state"] == "done":
            return 'gristmill generate {recipe} --ask "..."'
        return _AFTER.get(tunings[-1]["exit"], "gristmill run {recipe}")
    states = {one["state"] for one in mine}
    if "done" in states:
        return "gristmill report {recipe}" if is_whole else "gristmill run {recipe}"
    exits = [one["exit"] for one in mine if one["state"] == "failed"]
    return _AFTER.get(exits[-1], "gristmill run {recipe}") if exits else "gristmill run {recipe}"


def _counted(proxies: Standing) -> dict[str, Any]:
    """Where a swarm stands, for `--json`."""
    return {
        "planned": proxies.number,
        "finished": proxies.num_finished,
        "diverged": proxies.diverged,
        "stopped": len(proxies.stopped),
        "paused": proxies.paused,
        "failed": dict(proxies.failed),
        "left": proxies.left.number,
    }


def _proxies(run: Run) -> Standing | None:
    """Where the recipe's swarm stands, without a word."""
    if run.recipe.ablation is None:
        return None
    from recipes.ablation.runs_table import progress
    from recipes.progress import Narrator

    run.narrator, run.remembers = Narrator(silent=True), False  # looking leaves no trace
    return progress(run)


def _show_training(one: dict[str, Any], kind: str = "training") -> None:
    """A training in a few lines: where it stands, why it ended, and what a restart costs."""
    from recipes.pretraining.watching import progress_note

    where = f", step {one['step']} of {one['num_steps']}" if one["step"] is not None else ""
    click.echo(f"{kind} {one['folder']}: {one['state']}{where}; {one['age']} on {one['host'] or 'no host yet'}")
    if note := progress_note(one["status"]):
        click.echo(f"  {note}")
    if one["status"].get("slow") and one["state"] in _RUNNING:
        click.echo(f"  {one['status']['slow']}")
    _show_domains(one["domains"])
    if one["state"] == "killed":
        click.echo("  killed: its launcher died without a word (kill -9, out of memory, or the machine)")
    if one["exit"] is not None and one["exit"] != "DONE":
        cause = f": {one['cause']}" if one["cause"] else ""
        click.echo(f"  ended with {one['exit']} (exit code {one['code']}) on {one['host']}{cause}")
    if one["state"] != "done":
        again = "would be" if one["state"] in _RUNNING else "are"
        lost = "" if one["tokens_lost"] is None else f"; {one['tokens_lost']:,} tokens behind it {again} trained again"
        click.echo(f"  last whole checkpoint: {one['checkpoint'] or 'none'}{lost}")
        click.echo(f"  log: {one['log']}")


def _show_domains(domains: list[dict[str, Any]], most: int = 12) -> None:
    """Losses by domain, in nats a token, the greatest held-out loss first."""
    if not domains:
        return
    ordered = sorted(domains, key=lambda one: (-(one["held_out"] or one["loss"] or 0.0), one["domain"]))
    width = max(len(one["domain"]) for one in ordered[:most])
    click.echo(f"  {'domain':<{width}}  {'train':>7}  {'held out':>8}  {'bpb':>6}")
    for one in ordered[:most]:
        cells = [f"{one[key]:.3f}" if one[key] is not None else "" for key in ("loss", "held_out", "bits_per_byte")]
        click.echo(f"  {one['domain']:<{width}}  {cells[0]:>7}  {cells[1]:>8}  {cells[2]:>6}".rstrip())
    if len(ordered) > most:
        click.echo(f"  … and {len(ordered) - most} more domains in held_out.csv")


def training_status(workdir: Path, remembered: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """What each training of the work directory last said of itself.

    Args:
        workdir: the work directory.
        remembered: what the run keeps of its training, None before the first finished one.
        name: the run's.
    """
    logs = sorted(workdir.glob("training-*/runs/*"))
    is_alone = remembered is None or sum(log.name == name for log in logs) == 1
    found = []
    for log in logs:
        one = _status_of(log, log.parent.parent)
        newest = is_alone or (remembered or {}).get("folder") == one["folder"]
        found.append({**one, "this_recipe": log.name == name and newest})
    return found


def tuning_status(workdir: Path, folders: list[str]) -> list[dict[str, Any]]:
    """What each fine-tuning among the folders that a run reaches last said of itself, the newest last."""
    logs = [workdir / name for name in folders if name.startswith("tuning-") and (workdir / name).is_dir()]
    return [_status_of(log, log) for log in sorted(logs, key=lambda log: (log.stat().st_mtime, log.name))]


def _status_of(log: Path, folder: Path) -> dict[str, Any]:
    """What a training last said of itself; `folder` holds its checkpoints and its lock."""
    from recipes.pretraining.training_log import domain_losses, is_held, read_end, read_status

    status, end = read_status(log) or {"state": "starting"}, read_end(log) or {}
    checkpoint = last_whole_checkpoint(folder / "checkpoints", log.name, status.get("resumed"))
    tokens = status.get("tokens")
    said = log / "status.json" if "step" in status else log
    age_s = time.time() - said.stat().st_mtime
    return {
        "folder": folder.name,
        "log": str(log),
        "state": _state(status, end, age_s, is_held(folder)),
        "status": status,
        "domains": domain_losses(log),
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
    }


def _state(status: dict[str, Any], end: dict[str, Any], age_s: float, held: bool | None) -> str:
    """The state in one word: what it says of itself, or failed, killed or silent where it cannot say so any more."""
    if end.get("exit") not in (None, "DONE", "REQUEUE"):
        return "failed"
    state = str(status.get("state", "?"))
    if state not in _RUNNING or end:
        return state
    here = status.get("host") in (None, platform.node())
    if here and held is False:  # a launcher holds the folder as long as it lives
        return "killed"
    return "silent" if age_s > SILENT_S else state


def last_whole_checkpoint(folder: Path, log: str, resumed: str | None = None) -> dict[str, Any] | None:
    """Name, step and tokens of the newest whole checkpoint that a run saved, or of the one it continued from."""
    found = []
    for path in folder.glob("step-*/manifest.json"):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            continue
        if manifest.get("state", {}).get("log") == log or path.parent.name == resumed:
            found.append((manifest["step"], path.parent.name, manifest["tokens"]))
    if not found:
        return None
    step, name, tokens = max(found)
    return {"name": name, "step": step, "tokens": tokens}
