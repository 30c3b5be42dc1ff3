"""`gristmill clean`: artifacts that no recipe reaches."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import click

from recipes.artifacts import StageFolder
from recipes.cli.options import Flags, print_json, shared_flags
from recipes.pretraining.training_log import PINNED
from recipes.progress import compact_bytes


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
    unreached = unreached_folders(workdir, without_variants=variants)
    if variants:
        unreached += _variant_folders(workdir)
    elif not flags.as_json and (told := _variant_folders(workdir)):
        click.echo(
            f"kept for {len(told)} runs made with --set or --sample: what they use; --variants lists it too", err=True
        )
    if flags.as_json:
        print_json([{"folder": path.name, "bytes": folder_bytes(path)} for path in unreached])
    else:
        for path in unreached:
            click.echo(f"{compact_bytes(folder_bytes(path)):>9}  {path.name}")
        total = sum(folder_bytes(path) for path in unreached)
        click.echo(f"{len(unreached)} folders, {compact_bytes(total)} that no run in {workdir} uses")
    if delete and not flags.dry_run:
        removed = [path for path in unreached if remove_unused(path)]
        click.echo("removed" if removed else "nothing to remove", err=True)
        for path in sorted(set(unreached) - set(removed)):
            click.echo(f"{path.name}: left alone; a run is making it", err=True)


def _variant_folders(workdir: Path) -> list[Path]:
    """What lies beside runs made with flags of their own: `runs/NAME@KEY`."""
    return sorted(path for path in (workdir / "runs").glob("*@????????") if path.is_dir())


def unreached_folders(workdir: Path, without_variants: bool = False) -> list[Path]:
    """Artifact folders that no run's list of what it used names. Without any list nothing is unreached.

    Args:
        workdir: the work directory.
        without_variants: whether lists of runs made with `--set` or `--sample` are passed over.
    """
    left_out = _variant_folders(workdir) if without_variants else []
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
