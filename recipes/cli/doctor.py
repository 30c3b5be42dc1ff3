"""`gristmill doctor`: check this machine and installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from recipes.cli.exit_codes import FAILED

_NEEDED = ("datatrove", "polars", "pyarrow", "numba", "fasttext-community", "kenlm-ex", "tokenizers", "datasketch")
_TRAINING = ("torch", "lightning", "transformers", "safetensors")
_FASTTEXT = ("fasttext", "fasttext-wheel", "fasttext-numpy2-wheel", "fasttext-predict")
_MALICIOUS = ("2.6.2", "2.6.3")


@click.command()
@click.option("--workdir", type=click.Path(path_type=Path), default=Path(), help="Folder whose disk is looked at.")
def command(workdir: Path) -> None:
    """Check this machine and installation, and name what to mend.

    \b
    gristmill doctor
    """
    failed = False
    for good, line in _findings(workdir):
        failed |= not good
        click.echo(f"{click.style('ok  ', fg='green') if good else click.style('mend', fg='red')} {line}")
    if failed:
        sys.exit(FAILED)


def _findings(workdir: Path) -> Iterator[tuple[bool, str]]:
    version = sys.version_info
    yield (3, 11) <= version[:2] < (3, 14), f"Python {platform.python_version()} (3.11 to 3.13)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield True, f"{cores} cores, {_memory_gib():.1f} GiB of memory, {platform.machine()}"
    free = shutil.disk_usage(workdir).free / 2**30
    yield free > 2, f"{free:.1f} GiB free at {workdir.resolve()}" + ("" if free > 2 else ": free some")
    for name in _NEEDED:
        yield _installed(name, f"pip install {name}")
    for name in _TRAINING:
        yield _installed(name, "pip install 'gristmill[training]'")
    if _version("lightning") in _MALICIOUS:
        yield False, "lightning 2.6.2 and 2.6.3 were malicious releases: remove them, and treat credentials as stolen"
    others = [name for name in _FASTTEXT if _version(name)]
    others_hint = "no other fastText beside fasttext-community"
    yield not others, f"{', '.join(others)} overwrites fasttext-community: pip uninstall" if others else others_hint
    yield _language_model()
    if importlib.util.find_spec("torch"):
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        yield True, f"{gpus} GPUs" if gpus else "no GPU: training runs on the CPU with gloo"


def _installed(name: str, fix: str) -> tuple[bool, str]:
    version = _version(name)
    return bool(version), f"{name} {version}" if version else f"{name} is missing: {fix}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) / 2**30


def _language_model() -> tuple[bool, str]:
    from curation.language import resolve_model

    try:
        return True, f"language model {resolve_model('lid176').name}"
    except FileNotFoundError as error:
        return False, str(error)
