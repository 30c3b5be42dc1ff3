"""What a training takes, as frozen dataclasses that travel as JSON to the processes that train. No torch.

The recipe's words are resolved before: here stand train steps, tokens and paths.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from training.learning_rate import LearningRate
from training.models.shape import ModelShape

Spec = TypeVar("Spec")
# Where a training is logged -> the package that this needs.
LOGGERS = {"csv": None, "tensorboard": "tensorboard", "wandb": "wandb"}
ATTENTIONS = ("auto", "sdpa", "flex", "varlen")


class SpecError(ValueError):
    """A specification that cannot be trained."""


@dataclass(frozen=True)
class Span:
    """Train steps of one batch size, up to the next span's first step.

    Attributes:
        first_step: train steps before this span.
        first_position: position in the order of its first sequence; a gap to the span before skips text.
        first_token: the token clock (learning rate, checkpoints) at its start.
        sequences: sequences a train step.
        context: tokens a sequence.
    """

    first_step: int
    first_position: int
    first_token: int
    sequences: int
    context: int


@dataclass(frozen=True)
class Factory:
    """How a process makes an object that cannot travel: `module:function` called with JSON arguments."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        """Import the function and call it."""
        from importlib import import_module

        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(**self.arguments)


@dataclass(frozen=True)
class Optimizer:
    """AdamW's numbers: `clip` is the largest gradient norm (None does not clip), `z_loss` the weight of log(Z)^2."""

    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    z_loss: float = 0.0


@dataclass(frozen=True)
class Change:
    """Values that hold from a train step on; None leaves the one before. Part of an amended run's prefix."""

    first_step: int
    learning_rate: LearningRate | None = None
    optimizer: Optimizer | None = None


@dataclass(frozen=True)
class Spikes:
    """What to do when loss or gradient norm exceeds its mean by `sigma` deviations over the last 128 steps.

    Attributes:
        action: warn (a line in the log), drop_update (leave the weights as they are in that step) or rollback (end with
            Exit.SPIKED; whoever started the run goes back and skips the text with `training.batches.skip_after`).
        sigma: deviations.
    """

    action: str = "warn"
    sigma: float = 6.0


@dataclass(frozen=True)
class Checkpoints:
    """When to save and what to keep, in train steps.

    Attributes:
        every: steps between checkpoints; the last step is always saved.
        early: also steps 0, 1, 2, 4, ... up to `every` (Pythia's ladder).
        at: further steps (phase borders, the start of a decay); these stay.
        keep_last: how many of the newest to keep; None keeps all.
        keep_every: also keep those at multiples of so many steps.
        back: tokens that a rollback goes back; what it needs for that is kept beside `keep_last`. None: there is none.
        background: copy what is saved and write it while the training goes on.
    """

    every: int
    early: bool = False
    at: tuple[int, ...] = ()
    keep_last: int | None = None
    keep_every: int | None = None
    back: int | None = None
    background: bool = False


@dataclass(frozen=True)
class Evaluation:
    """When held-out loss is measured: every so many train steps, at the last one and, if asked, before the first."""

    every: int | None = None
    at_start: bool = False


@dataclass(frozen=True)
class Execution:
    """How the work is done; changes a result by rounding at most.

    Attributes:
        device: cpu, cuda or auto.
        threads: torch's threads a process.
        sharding: auto, replicate, hybrid, full or no_reshard.
        micro_batch: most sequences at once on a process; None takes as many as fit (`training.fitting`).
        recompute: compute activations again going backward.
        compile: compile each block.
        attention: auto, sdpa, flex or varlen; see `training.attention` and `attention_problem`.
        log_every: train steps a line of metrics.csv.
        resume: auto (the newest checkpoint with this prefix), none, or a checkpoint's folder.
        min_free_bytes: least space left on disk after a checkpoint.
        preflight: on, off, or only (end after it).
        meet_s: how long processes wait for each other before the first train step.
        stall_s: without a supervisor, seconds without a train step after which a process ends with its stacks.
        loggers: names of `LOGGERS`; the tables are always written.
    """

    device: str = "auto"
    threads: int = 1
    sharding: str = "auto"
    micro_batch: int | None = 8
    recompute: bool = False
    compile: bool = False
    attention: str = "auto"
    log_every: int = 10
    resume: str = "auto"
    min_free_bytes: int = 1 << 28
    preflight: str = "on"
    meet_s: float = 120.0
    stall_s: float = 900.0
    loggers: tuple[str, ...] = ("csv",)


@dataclass(frozen=True)
class LowRank:
    """Low-rank updates that are trained instead of the weights; see `training.tuning.lora`.

    Attributes:
        rank: of the updates.
        alpha: their scale, times alpha / rank.
        dropout: share of a layer's inputs that its update leaves out.
        targets: names of the adapted layers.
        embeddings: whether embedding and output layer are trained whole beside them.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    embeddings: bool = False


@dataclass(frozen=True)
class TrainSpec:
    """One training.

    Attributes:
        folder: where metrics.csv, held_out.csv and status.json are written.
        checkpoints_folder: where checkpoints are; None: `checkpoints` in `folder`. Runs that begin alike share it, and
            continue from each other's.
        shape: the model.
        stream: makes the `training.batches.TokenStream`.
        spans: batch sizes over train steps, first_step ascending from 0.
        num_steps: train steps in all.
        learning_rate: over the token clock.
        seed: of the initial weights.
        precision: bf16 or fp32.
        optimizer: AdamW's numbers.
        changes: what `learning_rate` and `optimizer` become on the way, first_step ascending.
        start_from: folder of a checkpoint whose weights are taken instead of drawn ones.
        separator: token id after which a new document starts, where attention must not cross documents; None: it may.
        prefix: what made the weights, as JSON; `training.resume.cut_prefix` says how it is cut at a position.
        lora: updates that are trained in place of the weights of `start_from`, which every checkpoint then leaves out.
    """

    folder: str
    shape: ModelShape
    stream: Factory
    spans: tuple[Span, ...]
    num_steps: int
    learning_rate: LearningRate
    seed: int = 0
    precision: str = "fp32"
    optimizer: Optimizer = Optimizer()
    changes: tuple[Change, ...] = ()
    spikes: Spikes = Spikes()
    checkpoints: Checkpoints = Checkpoints(1000)
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()
    start_from: str | None = None
    separator: int | None = None
    checkpoints_folder: str | None = None
    prefix: dict[str, Any] = field(default_factory=dict)
    lora: LowRank | None = None

    @property
    def checkpoints_root(self) -> Path:
        """Folder of all checkpoints."""
        return Path(self.checkpoints_folder or Path(self.folder) / "checkpoints")

    def __post_init__(self) -> None:
        check_spans(self.spans)
        if self.precision not in ("bf16", "fp32"):
            raise SpecError(f"precision '{self.precision}' is unknown; choose bf16 or fp32")
        if self.execution.attention not in ATTENTIONS:
            raise SpecError(f"attention '{self.execution.attention}' is unknown; choose one of {', '.join(ATTENTIONS)}")
        if self.spikes.action not in ("warn", "drop_update", "rollback"):
            raise SpecError(f"spikes action '{self.spikes.action}' is unknown; choose warn, drop_update or rollback")
        if self.lora is not None and self.start_from is None:
            raise SpecError("lora adapts given weights; name them in start_from")


def attention_problem(attention: str, device: str, precision: str) -> str | None:
    """Why this kernel of attention cannot train here; None where it can.

    Args:
        attention: of `ATTENTIONS`.
        device: cpu or cuda.
        precision: bf16 or fp32.
    """
    if attention in ("flex", "varlen") and device == "cpu":
        lacks = "no kernel for a CPU" if attention == "varlen" else "no backward on a CPU"
        return f"torch's {attention} attention has {lacks}; auto serves there, and keeps documents apart too"
    if attention == "varlen" and precision == "fp32":
        return "torch's varlen attention takes bf16, and the precision is fp32; choose auto, flex or sdpa"
    return None


def values_at(spec: TrainSpec, step: int) -> tuple[LearningRate, Optimizer]:
    """The learning rate's course and the optimizer's numbers that hold in a train step."""
    rate, optimizer = spec.learning_rate, spec.optimizer
    for change in spec.changes:
        if change.first_step <= step:
            rate, optimizer = change.learning_rate or rate, change.optimizer or optimizer
    return rate, optimizer


def missing_packages(names: Sequence[str]) -> list[str]:
    """A sentence for each logger whose package is not installed."""
    return [
        f"execution.loggers asks for {name}, which is not installed; pip install 'gristmill[loggers]', or leave it out"
        for name in names
        if LOGGERS[name] and importlib.util.find_spec(LOGGERS[name]) is None
    ]


def check_spans(spans: tuple[Span, ...]) -> None:
    """Refuse spans that leave a train step without a batch."""
    steps = [span.first_step for span in spans]
    if not steps or steps[0] != 0 or steps != sorted(set(steps)):
        raise SpecError(f"spans must start at train step 0 and ascend, not at {steps}")


def to_json(spec: Any) -> str:
    """Write a specification (any dataclass of this package) as JSON, keys in order."""
    return json.dumps(dataclasses.asdict(spec), sort_keys=True, indent=1)


def from_json(kind: type[Spec], text: str) -> Spec:
    """Read a specification back; an unknown key raises SpecError."""
    return _built(kind, json.loads(text))


def load(path: str | Path) -> TrainSpec:
    """Read a training's specification from a file."""
    return from_json(TrainSpec, Path(path).read_text())


def _built(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    arms = [arm for arm in typing.get_args(kind) if arm is not types.NoneType]
    if isinstance(kind, types.UnionType):
        return _built(arms[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise SpecError(f"{kind.__name__} has no field '{unknown[0]}'; it has {', '.join(hints)}")
        return kind(**{name: _built(hints[name], part) for name, part in value.items()})
    if typing.get_origin(kind) is tuple:
        repeated = arms[0] if arms[-1:] == [Ellipsis] else None
        return tuple(_built(repeated or arms[place], part) for place, part in enumerate(value))
    return value
