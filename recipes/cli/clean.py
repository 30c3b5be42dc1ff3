"""`gristmill clean`: artifacts that no recipe reaches."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from recipes.artifacts import StageFolder
from recipes.cli.options import Flags, print_json, shared_flags
from recipes.pretraining.training_log import PINNED, read_json
from recipes.progress import compact_bytes, several
from recipes.run import FLAGS


@click.command()
@shared_flags
@click.option("--delete", is_flag=True, help="Remove them; without it they are only listed.")
@click.option(
    "--variants",
    is_flag=True,
    help="With the ledgers and reports of runs made with --set or --sample, and what only they use.",
)
def command(flags: Flags, delete: bool, variants: bool) -> None:
    """List or remove artifacts of the work directory that the last run of no recipe used.

    \b
    gristmill clean recipes/quickstart.yaml
    gristmill clean recipes/quickstart.yaml --variants --delete
    """
    with flags.open_run() as run:
        workdir = run.store.workdir
    found = _variant_folders(workdir)
    unfinished = [path for path in found if _is_training(path)]
    left_out = [path for path in found if variants and path not in unfinished]
    unreached = [*unreached_folders(workdir, left_out), *left_out]
    for path in unfinished if variants else []:
        click.echo(
            f"{path.name}{_called(path)}: left alone; its training has not come to its end. To give it up, remove "
            f"{path / PINNED}.json",
            err=True,
        )
    if found and not variants and not flags.as_json:
        click.echo(
            f"kept for {several(len(found), 'run')} made with --set or --sample: what they use; "
            "--variants lists it too",
            err=True,
        )
    if flags.as_json:
        print_json([{"folder": path.name, "bytes": folder_bytes(path)} for path in unreached])
    else:
        for path in unreached:
            click.echo(f"{compact_bytes(folder_bytes(path)):>9}  {path.name}")
        total = sum(folder_bytes(path) for path in unreached)
        who = "no run" if not left_out else "only runs made with --set or --sample, or none,"
        click.echo(
            f"{several(len(unreached), 'folder')}, {compact_bytes(total)} that {who} in {workdir} use"
            + ("" if left_out else "s")
        )
    if delete and not flags.dry_run:
        removed = [path for path in unreached if remove_unused(path)]
        click.echo("removed" if removed else "nothing to remove", err=True)
        for path in sorted(set(unreached) - set(removed)):
            click.echo(f"{path.name}: left alone; a run is making it", err=True)


def _variant_folders(workdir: Path) -> list[Path]:
    """What lies beside runs made with flags of their own: `runs/NAME@KEY`."""
    return sorted(path for path in (workdir / "runs").glob("*@????????") if path.is_dir())


def _is_training(variant: Path) -> bool:
    """Whether a variant's training began and has not come to its last step: it may be taken up again."""
    pinned = read_json(variant / f"{PINNED}.json")
    return pinned is not None and not pinned["finished"]


def _called(variant: Path) -> str:
    """The flags that take a variant up again, where it tells them."""
    words = read_json(variant / f"{FLAGS}.json")
    return f" ({words})" if words else ""


def unreached_folders(workdir: Path, left_out: Sequence[Path] = ()) -> list[Path]:
    """Artifact folders that no run's list of what it used names. Without any list nothing is unreached.

    Args:
        workdir: the work directory.
        left_out: folders beside runs whose lists are passed over.
    """
    lists = [path for path in sorted((workdir / "runs").glob("*/reached.json")) if path.parent not in left_out]
    if not lists:
        return []
    parts = [folders for path in lists for folders in json.loads(path.read_text(encoding="utf-8")).values()]
    used = {name for folders in parts for name in folders}
    for path in sorted((workdir / "runs").glob(f"*/{PINNED}.json")):  # what an unfinished training reads
        pinned = json.loads(path.read_text(encoding="utf-8"))
        used |= set() if pinned["finished"] else set(pinned["folders"])
    return [path for path in sorted(workdir.iterdir()) if is_artifact(path) and path.name not in used]


def remove_unused(path: Path) -> bool:
    """Remove an artifact's folder unless a run is making it; returns whether it was removed."""
    with StageFolder(path).unused() as unused:
        if unused:
            shutil.rmtree(path)
    return unused


def is_artifact(path: Path) -> bool:
    """Whether a folder of a work directory is ours: `<stage>-<key>`. Whatever else lies there is left alone."""
    return path.is_dir() and re.fullmatch(r".+-[0-9a-f]{16}", path.name) is not None


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
