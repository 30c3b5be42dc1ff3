"""What a run left behind, read once: the files beside the run and the artifacts that they name.

Memory grows with the number of domains, runs of the swarm and lines of the training log, not with text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.ledger import Ledger
from mixing.plan_record import Plan
from mixing.plan_table import PlanRow, table
from recipes.artifacts import LAST_MAKING, StageFolder
from recipes.report.axes import colours

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """A stage that the run used: its folder, the part it belongs to, its title, and what it counted."""

    folder: str
    part: str
    title: str
    counts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The folder's name without its key: `made_de.rows`, `plan`, …"""
        return self.folder.rpartition("-")[0]


@dataclass(frozen=True)
class Record:
    """One run as its files tell it. Parts that were not made are None or empty.

    Attributes:
        workdir: where artifacts lie.
        beside: the run's own folder.
        asked: parts of a run that the recipe asks for.
        stages: what the run used, in order.
        reuse: read-only stores in which stages lie that the work directory does not hold.
    """

    recipe: Recipe
    workdir: Path
    beside: Path
    asked: tuple[str, ...]
    stages: tuple[Stage, ...]
    reuse: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The run's name."""
        return self.recipe.name

    def command(self, verb: str, *more: str) -> str:
        """A command line about this recipe."""
        return " ".join(["gristmill", verb, self.recipe.called, *more])

    # ------------------------------------------------------------ finding

    def titled(self, title: str) -> Stage | None:
        """The stage of a title."""
        return next((stage for stage in self.stages if stage.title == title), None)

    def of_part(self, part: str) -> list[Stage]:
        """Stages of a part of the run."""
        return [stage for stage in self.stages if stage.part == part]

    def path(self, title: str, name: str) -> Path | None:
        """A file of the stage of a title, if both are there."""
        stage = self.titled(title)
        return self._lying(stage, name) if stage else None

    def _lying(self, stage: Stage, name: str) -> Path | None:
        """A file of a stage, in the work directory or in the first store that has it."""
        places = (store / stage.folder / name for store in (self.workdir, *self.reuse))
        return next((path for path in places if path.exists()), None)

    def _json(self, title: str, name: str) -> Any:
        path = self.path(title, name)
        return None if path is None else _parsed(path)

    def remembered(self, name: str) -> Any:
        """A small file beside the run, or None."""
        return _parsed(self.beside / f"{name}.json")

    # ------------------------------------------------------------ parts

    @cached_property
    def ledger(self) -> Ledger | None:
        """The layers of every shard."""
        path = self.beside / "ledger.json"
        return Ledger.from_json(path.read_text(encoding="utf-8")) if path.exists() else None

    @cached_property
    def domains(self) -> list[dict[str, Any]]:
        """Domains with their supply and held-out text; without those that are only measured, `training` is null."""
        return self._json("domains", "all.domains.json") or []

    @cached_property
    def trained_domains(self) -> list[str]:
        """Names of the domains that are trained on, sorted."""
        return sorted(domain["name"] for domain in self.domains if domain.get("training") is not None)

    @cached_property
    def hues(self) -> dict[str, str]:
        """A colour for each domain, the same in all pictures; domains that are only measured come last."""
        measured = sorted({str(domain["name"]) for domain in self.domains} - set(self.trained_domains))
        return colours([*self.trained_domains, *measured])

    @cached_property
    def analysis(self) -> dict[str, Any] | None:
        """What the ablation concludes."""
        found: dict[str, Any] | None = self._json("weights", "all.analysis.json")
        return found

    @cached_property
    def scaling(self) -> dict[str, Any] | None:
        """What the ladder of sizes says."""
        found: dict[str, Any] | None = self._json("scaling laws", "all.scaling.json")
        return found

    @cached_property
    def plan(self) -> Plan | None:
        """The plan."""
        path = self.path("plan", "all.plan.json")
        return None if path is None else Plan.from_json(path.read_text(encoding="utf-8"))

    @cached_property
    def plan_rows(self) -> list[PlanRow]:
        """The plan's table."""
        return [] if self.plan is None else table(self.plan)

    @cached_property
    def training(self) -> Path | None:
        """Folder of the training, if this run trained."""
        stages = self.of_part("train")
        folder = self.workdir / stages[-1].folder if stages else None
        own = folder / "runs" / self.beside.name if folder is not None else None
        return next((path for path in (own, folder) if path is not None and path.exists()), None)

    @cached_property
    def metrics(self) -> list[dict[str, float | None]]:
        """Lines of metrics.csv."""
        return [] if self.training is None else read_numbers(self.training / "metrics.csv")

    @cached_property
    def held_out(self) -> dict[str, list[tuple[float, float, float | None]]]:
        """Per domain (tokens, loss in nats, bits per byte), in order of training."""
        if self.training is None or not (self.training / "held_out.csv").exists():
            return {}
        curves: dict[str, list[tuple[float, float, float | None]]] = {}
        with (self.training / "held_out.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                tokens, loss = _number(row["tokens"]), _number(row["loss"])
                if tokens is not None and loss is not None:
                    curves.setdefault(row["domain"], []).append((tokens, loss, _number(row.get("bits_per_byte"))))
        return dict(sorted(curves.items()))

    @cached_property
    def evaluation(self) -> list[dict[str, Any]]:
        """Held-out loss per domain of the last checkpoint, if it is of the training that the run used."""
        measured, trained = self.remembered("evaluation"), self.remembered("training")
        if not measured or not trained or self.training is None or trained["checkpoint"] != measured["checkpoint"]:
            return []
        return sorted(measured["domains"], key=lambda one: str(one["domain"]))

    @cached_property
    def export(self) -> dict[str, Any] | None:
        """The export's check."""
        stages = self.of_part("export")
        path = self._lying(stages[-1], "export.json") if stages else None
        found: dict[str, Any] | None = None if path is None else _parsed(path)
        return found

    def made_in(self, stage: Stage) -> dict[str, Any] | None:
        """Seconds, host and start of a stage's making, as its folder keeps them."""
        told = self._lying(stage, LAST_MAKING)
        return None if told is None else StageFolder(told.parent).last_making() or None


def read_record(run: Run) -> Record:
    """Read what a run left behind."""
    from recipes.whole import parts_of

    listed = run.recall("stages") or []
    stages = tuple(Stage(one["folder"], one["part"], one["title"], one.get("counts") or {}) for one in listed)
    return Record(run.recipe, run.store.workdir, run.folder, tuple(parts_of(run)), stages, run.store.reuse)


def _parsed(path: Path) -> Any:
    """A file's JSON; None where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_numbers(path: Path) -> list[dict[str, float | None]]:
    """Lines of a CSV file of numbers; what is no number is None. A half-written last line is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            {name: _number(cell) for name, cell in row.items() if name is not None}
            for row in csv.DictReader(stream)
            if None not in row.values()
        ]


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None
