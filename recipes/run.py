"""One run of one recipe: what is open while a verb works, and the order of the parts.

    curate ─▶ tokenize ─▶ (ablate) ─▶ plan ─▶ train ─▶ evaluate ─▶ export ─▶ report

Each part plans its stages from what the parts before it planned, makes what is missing, and hands on where things lie.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.artifacts import InputChecksums, Store, key_of, to_json, write_atomically
from recipes.engine import WorkerPool
from recipes.errors import RunError
from recipes.progress import Narrator

if TYPE_CHECKING:
    from recipes.curate import Plan
    from recipes.pipeline import PlannedStage
    from recipes.recipe import Recipe

PARTS = ("curate", "tokenize", "ablate", "plan", "train", "evaluate", "export", "report")


class Stopped(Exception):  # noqa: N818
    """The step named by `--until` has been made."""


@dataclass
class Run:
    """What a verb works with: the recipe, the store, the pool and the narrator."""

    recipe: Recipe
    store: Store
    narrator: Narrator
    verify_inputs: bool = False
    until: str | None = None
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage folder name -> counts

    @classmethod
    def open(cls, recipe: Recipe, silent: bool = False, verify_inputs: bool = False, until: str | None = None) -> Run:
        """Open a recipe's work directory; it is made at need."""
        workdir = Path(recipe.execution.workdir)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"execution.workdir: {workdir}: {error.strerror}; name a folder you may write to") from None
        if not os.access(workdir, os.W_OK):
            raise RunError(f"execution.workdir: {workdir} is not writable; name a folder you may write to")
        store = Store(workdir, tuple(Path(path) for path in recipe.execution.reuse))
        return cls(recipe, store, Narrator(silent), verify_inputs, until)

    @property
    def name(self) -> str:
        """The run's name: the recipe file's."""
        return self.recipe.name

    @property
    def folder(self) -> Path:
        """Where the run keeps what is no artifact: its ledger's list of layers, its summary, its report."""
        folder = self.store.workdir / "runs" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def logs(self) -> Path:
        """Where tasks write their logs and statistics."""
        return self.store.workdir / "logs"

    @cached_property
    def pool(self) -> WorkerPool:
        """Single-threaded worker processes, started at first use."""
        return WorkerPool(self.recipe.execution.workers or os.cpu_count() or 1)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if "pool" in self.__dict__:
            self.pool.close(kill=kind is not None)

    # ------------------------------------------------------------ making stages

    def make(self, stages: list[PlannedStage]) -> None:
        """Make what is missing of some stages, in order."""
        from recipes.pipeline import make_stage

        for stage in stages:
            self.counts[stage.folder.name] = make_stage(stage, self.pool, self.narrator, self.logs)
            if self.until is not None and self.until in stage.title.replace(":", " ").replace(",", " ").split():
                raise Stopped(stage.title)

    def checksums(self) -> InputChecksums:
        """Checksums of raw shards, remembered between runs."""
        return InputChecksums(self.store.workdir / "inputs.json", self.verify_inputs)

    # ------------------------------------------------------------ parts

    @cached_property
    def curation(self) -> Plan:
        """Curation as it stands once every stage was made. Makes it."""
        from recipes.curate import curate

        return curate(self)

    def remember(self, name: str, value: object) -> Path:
        """Keep a small JSON file beside the run."""
        path = self.folder / f"{name}.json"
        write_atomically(path, to_json(value))
        return path

    def recall(self, name: str) -> Any:
        """What `remember` kept, or None."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def key(self, *parts: object) -> str:
        """Key of plain values."""
        return key_of(*parts)


def elapsed_since(started: float) -> str:
    """Time since a monotonic moment, as `12 s` or `3 min 20 s`."""
    seconds = round(time.monotonic() - started)
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"
