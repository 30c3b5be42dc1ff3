"""The whole recipe: one YAML file, validated as a whole.

`load_recipe` reads it with everything it extends, and raises `RecipeErrors` with all that is wrong, each with
file:line. Nothing here imports more than the standard library, pydantic and ruamel.yaml: `validate` and `--help` are
instant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator

from curation.amounts import Amount
from curation.config import TOKEN_FORMATS, AnyStep, Bytes, Name, Source, Step, WordRules
from curation.fields import (
    AmountIn,
    Count,
    FilePath,
    Flag,
    Paths,
    PositiveCount,
    RecipePath,
    Seconds,
    Section,
    Words,
    one_of,
    or_else,
)
from mixing.ablation_config import Ablation, Scaling
from mixing.config import Domains, Phase, Sequences, Tokenizer
from mixing.patterns import is_pattern
from recipes.schema.layered import load_located
from recipes.schema.located import Located, Node, RecipeErrors
from training.config import Checkpoints, Evaluation, Export, Model, Training, merged
from training.presets import MODEL_PRESETS
from training.spec import LOGGERS
from training.tuning.config import Finetuning

__all__ = ["Execution", "Recipe", "RecipeErrors", "load_recipe", "step_for"]


class Slurm(Section):
    """How jobs are asked for on a cluster (comes later)."""

    partition: str | None = Field(default=None, description="Partition.")
    account: str | None = Field(default=None, description="Account.")
    time: Seconds | None = Field(default=None, description="Time limit of a job.")
    max_array: PositiveCount | None = Field(default=None, description="Most tasks of one job array.")
    signal: Seconds | None = Field(default=None, description="How long before the end a job is told to save.")


def _automatic(value: object) -> object:
    return None if value in ("auto", "all") else value


OrAutomatic = Annotated[
    PositiveCount | None, BeforeValidator(_automatic), or_else({"enum": ["auto", "all", None]}, {"type": "integer"})
]


class TrainingExecution(Section):
    """How training is carried out; changes a result by no more than the order of float sums."""

    nodes: PositiveCount = Field(default=1, description="Machines.")
    devices: OrAutomatic = Field(default=None, description="Devices of a machine; all.")
    threads: PositiveCount | None = Field(
        default=None, description="CPU threads of a process; default: cores / processes."
    )
    sharding: Literal["auto", "replicate", "hybrid", "full", "no_reshard"] = Field(
        default="auto",
        description="Each device holds all parameters, a share inside a machine, or a share of all; `no_reshard` is "
        "`full` with weights kept from forward to backward: less traffic, more memory.",
    )
    micro_batch: OrAutomatic = Field(
        default=None, description="Sequences at once on a device; auto: the most that fit."
    )
    recompute: Flag = Field(default=False, description="Activation checkpointing.")
    compile: Flag = Field(default=True, description="Compile the model where the machine can.")
    attention: Literal["auto", "sdpa", "flex", "varlen"] = Field(
        default="auto",
        description="Attention kernel, with documents kept apart or not. auto: on a CPU ours; on a GPU SDPA's flash "
        "attention, and with document masks varlen in bf16, else flex. sdpa: torch's, with dense masks where there are "
        "any. flex and varlen are for GPUs only, varlen for bf16.",
    )
    cache: RecipePath | None = Field(
        default=None, description="Folder on each machine for the token shards of the coming hour."
    )
    stall: Seconds = Field(
        default=Amount(900, "seconds"),
        description="No sign of life from training for so long: stacks of all ranks, exit.",
    )
    restarts: Count = Field(default=3, description="Restarts in a row without a new checkpoint.")
    preflight: Literal["on", "off"] = Field(
        default="on", description="Processes compare versions, text, folders and speed before the first train step."
    )
    stacked: OrAutomatic = Field(
        default=None,
        description="Proxies of a swarm trained at once as one stacked model; auto: one by one, faster on a CPU.",
    )
    slurm: Slurm = Field(default=Slurm(), description="Job options of training.")


class Execution(Section):
    """Where and how it runs. Changes no result, and enters no artifact key."""

    raw: RecipePath = Field(
        default=FilePath("."), description="Root of relative source paths; default: the recipe's folder."
    )
    workdir: RecipePath = Field(
        default=FilePath("work"), description="Where artifacts live; default: work beside the recipe."
    )
    reuse: Paths = Field(default=(), description="Read-only stores of artifacts, found by key.")
    engine: Literal["local", "slurm", "ray"] = Field(
        default="local", description="Where tasks run (slurm and ray come later)."
    )
    slurm: Slurm = Field(default=Slurm(), description="Job options of curation.")
    workers: PositiveCount | None = Field(default=None, description="Tasks at once; default: the cores.")
    memory: Bytes = Field(default=Amount(4 << 30, "bytes"), description="Memory of a worker.")
    disk: Bytes | None = Field(
        default=None, description="Most that the workdir may hold; null: no limit but the disk's."
    )
    log_every: Annotated[Amount, AmountIn("train steps")] = Field(
        # type: ignore[valid-type]
        default=Amount(10, "train steps"),
        description="Span between lines of the training log.",
    )
    loggers: Words = Field(default=("csv",), description="Where training is logged: csv, tensorboard, wandb.")
    training: TrainingExecution = Field(default=TrainingExecution(), description="How training is carried out.")

    @field_validator("loggers")
    @classmethod
    def _known_loggers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one_of(name, LOGGERS, "logger") for name in names)

    def num_workers(self) -> int:
        """Tasks at once: the recipe's number, else the cores this process may use."""
        if self.workers is not None:
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Recipe(Section):
    """From sources to a trained model: the one file that configures a run."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset({"execution", "checkpoints", "extends"})

    extends: str | None = Field(default=None, description="Recipe that this one changes.")
    seed: Count = Field(default=0, description="The only source of chance for order, initialisation and designs.")
    sources: dict[Name, Source] = Field(
        default={}, description="Name -> where text comes from. Only a tuning of other weights needs none."
    )
    steps: tuple[AnyStep, ...] = Field(default=(), description="What is done to documents, in order of work.")
    words: WordRules = Field(default=WordRules(), description="What a word is, for signals of words.")
    domains: Domains = Field(
        default=Domains(), description="What gets a weight, what is held out, how often text may repeat."
    )
    tokenizer: Tokenizer | None = Field(default=None, description="A tokenizer file, a preset, or how one is trained.")
    sequences: Sequences = Field(default=Sequences(), description="How documents become training sequences.")
    ablation: Ablation[Model] | None = Field(
        default=None, description="The study that `weights: ablation` takes weights from."
    )
    scaling: Scaling[Model] | None = Field(default=None, description="A scaling law over model sizes.")
    schedule: tuple[Phase, ...] = Field(default=(), description="Phases; the token budget is their sum.")
    model: Model | None = Field(default=None, description="The target model.")
    training: Training | None = Field(
        default=None, description="How the target model is trained, over its preset's values."
    )
    checkpoints: Checkpoints = Field(default=Checkpoints(), description="When the run is saved.")
    evaluation: Evaluation = Field(default=Evaluation(), description="Held-out loss and evaluation suites.")
    finetuning: Finetuning | None = Field(default=None, description="Instruction tuning.")
    export: Export | None = Field(default=None, description="The model in a form that others read.")
    execution: Execution = Field(default=Execution(), description="Where and how it runs.")

    _tree: Node | None = PrivateAttr(None)
    _path: Path | None = PrivateAttr(None)
    _variant: str = PrivateAttr("")
    _flags: str = PrivateAttr("")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Lay `training:` over the training values of the model's preset."""
        model, training = mapping.get("model"), mapping.get("training")
        if model is None and training is None:
            return mapping
        if training is not None and not isinstance(training, Mapping):
            return mapping
        preset = model.get("preset") if isinstance(model, Mapping) else model
        values = MODEL_PRESETS.get(str(preset), MODEL_PRESETS["llama_15m"])["training"]
        return {**mapping, "training": merged(values, training or {})}

    @classmethod
    def unknown_key(cls, key: object) -> str:
        """A key of a section that stands at the top, for want of an indent, is sent there."""
        sections = {name: field.annotation for name, field in cls.model_fields.items()}
        homes = [name for name, section in sections.items() if key in _section_keys(section)]
        return f"unknown key; it stands below {' or '.join(homes)}" if homes else super().unknown_key(key)

    @property
    def name(self) -> str:
        """The file's name without its suffix; with flags that change what is made, `name@key`."""
        return f"{self.file_name}@{self._variant}" if self._variant else self.file_name

    @property
    def file_name(self) -> str:
        """The file's name without its suffix."""
        return self._path.stem if self._path else "recipe"

    @property
    def path(self) -> Path | None:
        """The file it was loaded from."""
        return self._path

    @property
    def flags(self) -> str:
        """The flags by which it was changed on the command line, as one would write them."""
        return self._flags

    @property
    def called(self) -> str:
        """The file and its flags, as a command names them."""
        return f"{self._path} {self._flags}".rstrip()

    @property
    def tree(self) -> Node | None:
        """The recipe as written, each value with its place."""
        return self._tree

    def trained_sources(self) -> list[str]:
        """Sources that text is trained on, by name: all but validate_only."""
        return sorted(set(self.sources) - set(self.domains.validate_only))

    def text_sources(self) -> dict[str, Source]:
        """Sources of text, which steps look at; the others are ready token shards."""
        return {name: source for name, source in self.sources.items() if source.format not in TOKEN_FORMATS}

    def token_sources(self) -> dict[str, Source]:
        """Sources of ready token shards."""
        return {name: source for name, source in self.sources.items() if source.format in TOKEN_FORMATS}

    def open_phases(self) -> list[str]:
        """Names of the phases whose weights an ablation chooses."""
        return [phase.name for phase in self.schedule if phase.weights.kind == "ablation"]

    def steps_of(self, source: str) -> list[Step]:
        """The steps applied to a source, in order, with the source's own values."""
        return [step_for(step, source, self) for step in self.steps if matches(step.sources, source)]


def _section_keys(annotation: Any) -> list[str]:
    """Keys of a section, also of one that may be null."""
    sections = [annotation, *getattr(annotation, "__args__", ())]
    return [key for section in sections if hasattr(section, "known_keys") for key in section.known_keys()]


def matches(patterns: Sequence[str], source: str) -> bool:
    """Whether one of the patterns names a source."""
    return source in patterns or any(is_pattern(pattern) and fnmatchcase(source, pattern) for pattern in patterns)


def step_for(step: Step, source: str, recipe: Recipe) -> Step:
    """A step with the values that `sources.NAME.steps.STEP` gives it."""
    own = recipe.sources[source].steps.get(step.name)
    if not own:
        return step
    return step.with_options(own)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file.
        overrides: `path=value` settings laid over it, as `--set` gives them.

    Raises:
        RecipeErrors: all that is wrong, each with file:line, path, value, reason and fix.
    """
    from recipes.schema.validation import validated

    noticed: list[Located] = []
    return validated(load_located(path, overrides, noticed), Path(path), noticed)


def sampled(recipe: Recipe, share: float) -> list[str]:
    """Overrides by which a recipe reads a share of what it would: a source sampled anyway is sampled further."""
    return [f"sources.{name}.sample={share * source.sample!r}" for name, source in recipe.sources.items()]
