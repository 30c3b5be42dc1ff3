"""`gristmill clean`: artifacts that no recipe reaches."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import click

from recipes.artifacts import StageFolder
from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact


@click.command()
@shared_flags
@click.option("--delete", is_flag=True, help="Remove them; without it they are only listed.")
def command(flags: Flags, delete: bool) -> None:
    """List or remove artifacts of the work directory that the last run of no recipe used.

    \b
    gristmill clean recipes/quickstart.yaml
    gristmill clean recipes/quickstart.yaml --delete
    """
    with flags.open_run() as run:
        workdir = run.store.workdir
    unreached = unreached_folders(workdir)
    if flags.as_json:
        print_json([{"folder": path.name, "bytes": folder_bytes(path)} for path in unreached])
    else:
        for path in unreached:
            click.echo(f"{compact(folder_bytes(path)):>8}B  {path.name}")
        total = sum(folder_bytes(path) for path in unreached)
        click.echo(f"{len(unreached)} folders, {compact(total)}B that no run in {workdir} uses")
    if delete and not flags.dry_run:
        removed = [path for path in unreached if remove_unused(path)]
        click.echo("removed" if removed else "nothing to remove", err=True)
        for path in sorted(set(unreached) - set(removed)):
            click.echo(f"{path.name}: left alone; a run is making it", err=True)


def unreached_folders(workdir: Path) -> list[Path]:
    """Artifact folders that no run's list of what it used names. Without any list nothing is unreached."""
    lists = sorted((workdir / "runs").glob("*/reached.json"))
    if not lists:
        return []
    parts = [folders for path in lists for folders in json.loads(path.read_text(encoding="utf-8")).values()]
    used = {name for folders in parts for name in folders}
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
