"""Where compiled kernels lie, and how many there are; without importing numba, so that the command line may ask."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_FOLDERS = ("curation", "mixing", "training")
_MARK = b"@" + b"kernel"  # in two pieces, so that this file is none of those that hold kernels


def _kernel_files_hash() -> str:
    """Hash of every file below the folders that mentions the decorator, with numba's version.

    A kernel compiles in the constants that it names: a file that only holds such constants mentions it in a comment.
    """
    digest = hashlib.blake2b(importlib.metadata.version("numba").encode(), digest_size=8)
    for folder in _FOLDERS:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            source = path.read_bytes()
            if _MARK in source:
                digest.update(path.relative_to(_ROOT).as_posix().encode())
                digest.update(source)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where compiled kernels and fetched packages lie: `$XDG_CACHE_HOME/gristmill` or `~/.cache/gristmill`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill"


def kernels_folder() -> Path:
    """Folder of the compiled kernels of these sources."""
    return cache_folder() / f"kernels-{_kernel_files_hash()}"


def compiled_kernels(folder: Path) -> int:
    """How many kernels lie compiled in a folder, each for each type of its arguments."""
    return sum(1 for _ in folder.rglob("*.nbc"))


@contextlib.contextmanager
def compile_seconds() -> Iterator[list[float]]:
    """CPU seconds of this process that go into compiling kernels meanwhile, one number for each. Imports numba."""
    from numba.core import event

    spent: list[float] = []
    begun: list[float] = []  # one kernel may compile another on its way

    class Timer(event.Listener):  # type: ignore[misc]
        def on_start(self, _: Any) -> None:
            begun.append(time.process_time())

        def on_end(self, _: Any) -> None:
            elapsed = time.process_time() - begun.pop()
            if not begun:
                spent.append(elapsed)

    with event.install_listener("numba:compile", Timer()):
        yield spent
