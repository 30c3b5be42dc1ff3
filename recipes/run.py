"""One run of one recipe: what is open while a verb works, and the order of the parts.

    curate ─▶ tokenize ─▶ (ablate) ─▶ plan ─▶ train ─▶ evaluate ─▶ export ─▶ (finetune) ─▶ report

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

from recipes.artifacts import InputChecksums, Store, to_json, write_atomically
from recipes.engine import WorkerPool
from recipes.errors import RunError
from recipes.progress import Narrator
from recipes.run_names import claim_name, refuse_other_recipe

if TYPE_CHECKING:
    from recipes.ablation.ablate import Ablation
    from recipes.curating.curate import Plan
    from recipes.pipeline import PlannedStage
    from recipes.pretraining.train import Training
    from recipes.schema.recipe import Recipe
    from recipes.tokenizing.tokens import Tokens

FLAGS = "flags"  # what a variant of a recipe remembers of how it was called


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
    checks: bool = True  # whether a step that drops too much stops the run; a forecast only counts
    publishes: bool = True  # whether `index: {publish}` gives what it made a name; not for samples
    trains: bool = True  # whether proxies that are missing may be trained; not for verbs that only look
    remembers: bool = True  # whether what it makes is kept track of beside the run; not samples, nor by two of one run
    ledger_file: str = "ledger.json"  # that of an unfinished training where the recipe gives other text by now
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)  # stage folder name -> counts
    used: dict[str, dict[str, Any]] = field(default_factory=dict)  # artifact folder name -> what the summary says of it
    _asked_whose: bool = field(default=False, init=False)  # whether the name was found to be this recipe's
    _claimed: bool = field(default=False, init=False)  # whether that is noted beside the run

    @classmethod
    def open(cls, recipe: Recipe, silent: bool = False, verify_inputs: bool = False, brief: bool = False) -> Run:
        """Open a recipe's work directory; it is made at need."""
        workdir = Path(recipe.execution.workdir)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"execution.workdir: {workdir}: {error.strerror}; name a folder you may write to") from None
        if not os.access(workdir, os.W_OK):
            raise RunError(f"execution.workdir: {workdir} is not writable; name a folder you may write to")
        store = Store(workdir, tuple(Path(path) for path in recipe.execution.reuse))
        return cls(recipe, store, Narrator(silent, brief), verify_inputs)

    @property
    def name(self) -> str:
        """The run's name: the recipe file's, and a key where flags change what is made."""
        return self.recipe.name

    @property
    def folder(self) -> Path:
        """Where the run keeps what is no artifact: its ledger's list of layers, its summary, its report.

        Raises:
            RunError: where another recipe of the same file name has it.
        """
        folder = self.store.workdir / "runs" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        if not self._asked_whose:
            refuse_other_recipe(folder, self.recipe)
            self._asked_whose = True
        return folder

    @property
    def logs(self) -> Path:
        """Where tasks write their logs and statistics."""
        return self.store.workdir / "logs"

    @cached_property
    def pool(self) -> WorkerPool:
        """Single-threaded worker processes, started at first use."""
        return WorkerPool(self.recipe.execution.num_workers())

    def end_workers(self) -> None:
        """End the worker processes, for a part that needs the memory; they start again at need."""
        if "pool" in self.__dict__:
            self.pool.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.used and self.remembers:  # whatever verb it was, and wherever it ended: the report tells of it
            self.write_summary()
        if "pool" in self.__dict__:
            self.pool.close(kill=kind is not None)

    # ------------------------------------------------------------ making stages

    def make(self, stages: list[PlannedStage], *, stops: bool = True) -> None:
        """Make what is missing of some stages, in order; stop after the last one of the step `until`, if asked to."""
        from recipes.pipeline import make_stage

        last = self.last_until(stages) if stops else None
        for place, stage in enumerate(stages):
            self._reach(stage.verb, stage.folder.name)
            counts = make_stage(stage, self.pool, self.narrator, self.logs, checks=self.checks)
            self.counts[stage.folder.name] = counts
            self.use(stage.folder.name, stage.verb, stage.title, counts)
            if place == last:
                raise Stopped(stage.title)

    def last_until(self, stages: list[PlannedStage]) -> int | None:
        """Place of the last stage that serves the step after which the run stops."""
        return max((place for place, stage in enumerate(stages) if self.until in stage.serves), default=None)

    def use(self, folder: str, part: str, title: str, counts: dict[str, Any]) -> None:
        """Note an artifact folder that this run uses, for the summary and for `gristmill clean`."""
        self.used[folder] = {"folder": folder, "part": part, "title": title, "counts": counts}
        self._reach(part, folder)

    def _reach(self, part: str, folder: str) -> None:
        """Tell `gristmill clean` of a folder before it is filled, so that a run cut short keeps what it made."""
        if not self.remembers:
            return
        known = self.recall("reached") or {}
        if folder not in known.get(part, []):
            self.remember("reached", {**known, part: sorted({*known.get(part, []), folder})})

    def write_summary(self, done: bool = False, whole: bool = False) -> None:
        """Keep beside the run what it used, in order (`stages.json`), and what it reaches, by part (`reached.json`).

        A part that is `done` reaches what it used now and nothing of before; after a `whole` run that holds for all.
        Where its parts used what they had used before, what was made from that stays in the summary.
        """
        done_now = {told["part"] for told in self.used.values()}
        before = {one["folder"] for one in self.recall("stages") or [] if one["part"] in done_now}
        if whole or self.used.keys() != before:
            self.remember("stages", list(self.used.values()))
        parts: dict[str, list[str]] = {}
        for name, told in sorted(self.used.items()):
            parts.setdefault(told["part"], []).append(name)
        if done or whole:
            self.remember("reached", parts if whole else {**(self.recall("reached") or {}), **parts})

    def checksums(self) -> InputChecksums:
        """Checksums of raw shards, remembered between runs."""
        return InputChecksums(self.store.workdir / "inputs.json", self.verify_inputs)

    # ------------------------------------------------------------ parts

    @cached_property
    def curation(self) -> Plan:
        """Curation as it stands once every stage was made. Makes it."""
        from recipes.curating.curate import curate

        return curate(self)

    @cached_property
    def tokens(self) -> Tokens:
        """Tokenizer, token shards and domains once they are made. Makes them."""
        from recipes.tokenizing.tokens import plan_tokens

        curated = self.curation
        self.narrator.heading("Tokens")
        planned = plan_tokens(self, curated)
        self.make(list(planned.stages))
        return planned

    @cached_property
    def weights(self) -> dict[str, float] | None:
        """Weights that the recipe's ablation chose, or None where no phase asks for them. Runs it."""
        if not self.recipe.open_phases():
            return None
        from recipes.pretraining.several import num_nodes
        from training.launch import place_under_torchrun

        nodes = num_nodes(self)
        # Every node must read the same weights, whatever its work directory holds.
        if nodes > 1 or place_under_torchrun() is not None:
            raise RunError(
                f"{self.recipe.path}: weights: ablation is not pinned, and training on {nodes} nodes needs weights "
                "that stand in the recipe; `gristmill ablate`, then `gristmill pin`, then train"
            )
        return self.ablation.weights

    @cached_property
    def ablation(self) -> Ablation:
        """The recipe's ablation once it is finished. Runs it."""
        from recipes.ablation.ablate import ablate

        return ablate(self)

    @cached_property
    def scaling(self) -> dict[str, Any]:
        """What the recipe's ladder of sizes says, once it is trained. Trains it."""
        from recipes.ablation.scaling import scale

        return scale(self)

    @cached_property
    def plan(self) -> PlannedStage:
        """The plan once it is made. Makes it."""
        from recipes.tokenizing.tokens import plan_options, plan_plan

        tokens, chosen = self.tokens, self.weights
        self.narrator.heading("Plan")
        stage = plan_plan(self, tokens, plan_options(self, chosen))
        self.make([stage])
        for warning in filter(None, stage.counts()["warnings"].split("\n")):
            if not self.narrator.brief:  # `gristmill plan` shows them with the plan
                self.narrator.say(f"  {warning}")
        return stage

    @cached_property
    def sort_values(self) -> PlannedStage | None:
        """What phases ordered by a signal sort by, or None where none is. Makes it."""
        from recipes.tokenizing.sorting import make_values, signals_of_schedule

        return make_values(self, self.tokens.domains, signals_of_schedule(self.recipe), "plan")

    @cached_property
    def training(self) -> Training:
        """The target model's training as planned."""
        from recipes.pretraining.train import plan_training

        return plan_training(self, self.tokens, self.plan)

    @cached_property
    def trained(self) -> Path:
        """The last checkpoint. Trains."""
        from recipes.pretraining.train import train

        training = self.training
        self.narrator.heading("Training")
        return train(self, training)

    @cached_property
    def exported(self) -> Path | None:
        """Folder of the exported model, or None where the recipe asks for none. Exports."""
        if self.recipe.export is None:
            return None
        from recipes.pretraining.export import export

        checkpoint = self.trained
        self.narrator.heading("Export")
        return export(self, checkpoint)

    @cached_property
    def finetuned(self) -> Path | None:
        """Folder of the fine-tuned model, or None where the recipe asks for none. Tunes."""
        if self.recipe.finetuning is None:
            return None
        from recipes.finetuning.finetune import finetune

        return finetune(self)

    def remember(self, name: str, value: object) -> Path:
        """Keep a small JSON file beside the run; a variant of a recipe also tells by which flags it is called."""
        if not self._claimed:
            claim_name(self.folder, self.recipe)
            self._claimed = True
        if "@" in self.name and name != FLAGS:
            self.remember(FLAGS, self.recipe.flags)
        path = self.folder / f"{name}.json"
        write_atomically(path, to_json(value))
        return path

    def recall(self, name: str) -> Any:
        """What `remember` kept, or None."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def elapsed_since(started: float) -> str:
    """Time since a monotonic moment, as `12 s` or `3 min 20 s`."""
    seconds = round(time.monotonic() - started)
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"
