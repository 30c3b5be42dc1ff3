"""The recipe's `finetuning`: examples, template, numbers, adapters, selection. Only stdlib and pydantic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from curation.amounts import Amount
from curation.fields import (
    Flag,
    Name,
    Number,
    Paths,
    Pattern,
    PositiveCount,
    PositiveNumber,
    RecipePath,
    Section,
    Share,
    allowed_name,
    did_you_mean,
    file_path,
    looks_like_path,
    one_of,
    or_else,
    refuse,
)
from training.config import BatchSize, LearningRate, Optimizer

TEMPLATES = ("chatml", "alpaca", "mindllm", "plain", "own")
# Parts of a conversation that a column may hold.
FIELDS = ("messages", "system", "instruction", "input", "output")
# Linear layers of a block, by our names; the last part of what they are called in the model.
LAYERS = ("query", "key", "value", "output", "gate", "up", "down")
_THEIR_NAMES = {
    "q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output", "out_proj": "output",
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "c_fc": "up", "c_proj": "down",
}  # fmt: skip


class ExampleSet(Section):
    """Files of examples that are one set: they share their columns and their number of epochs."""

    required_keys = ("path",)

    path: Paths = Field(min_length=1, description="Files, folders or globs of JSONL, JSON or Parquet.")
    fields: dict[str, str] = Field(
        default={},
        description="{messages | system | instruction | input | output: column}; default: told by the columns there.",
    )

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """A path."""
        return {"path": word}

    @model_validator(mode="after")
    def _known_fields(self) -> ExampleSet:
        for key in self.fields:
            if key not in FIELDS:
                known = f"; known: {', '.join(FIELDS)}"
                refuse(
                    (
                        ("fields", key),
                        self.fields[key],
                        f"no part of a conversation{did_you_mean(key, FIELDS) or known}",
                    )
                )
        if "messages" in self.fields and {"instruction", "input", "output"} & set(self.fields):
            refuse((("fields",), dict(self.fields), "either messages, or instruction, input and output"))
        return self


def _sets(value: object) -> object:
    """A path or a list of paths as sets that are called like their files."""
    if isinstance(value, Mapping):
        return value
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list | tuple) or not paths or not all(isinstance(path, str) for path in paths):
        raise ValueError("a path, a list of paths, or {NAME: {path, fields}} is wanted")
    sets: dict[str, object] = {}
    for path in paths:
        parts = [re.sub(r"[*?]|\[.*\]", "", part).split(".")[0] for part in PurePosixPath(str(path)).parts]
        name = allowed_name(next((part for part in reversed(parts) if part.strip("/")), ""))
        if name in sets:
            raise ValueError(f"two sets would be called {name!r}; name them: {{{name}_1: PATH, {name}_2: PATH}}")
        sets[name] = path
    return sets


def _template(value: object) -> object:
    """A word, or a path of a Jinja file."""
    if not isinstance(value, str) or not looks_like_path(value):
        return one_of(value, TEMPLATES, "template (or the path of a .jinja file)")
    return file_path(value)


def _epochs(value: object) -> object:
    return value if isinstance(value, Mapping) else {"*": value}


def _targets(value: object) -> object:
    """One word, or several; `all` is every linear layer of a block."""
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError(f"names of layers are wanted: all, or some of {', '.join(LAYERS)}")
    for word in words:
        if word in _THEIR_NAMES:
            raise ValueError(f"{word} is called {_THEIR_NAMES[word]} here; the layers are {', '.join(LAYERS)}")
        if word not in (*LAYERS, "all"):
            raise ValueError(f"no layer is called {word!r}; the layers are {', '.join(LAYERS)}, or all")
    return ("all",) if "all" in words else tuple(dict.fromkeys(words))


class Lora(Section):
    """Low-rank adaptation: only a product of two narrow matrices is trained beside each chosen layer."""

    rank: PositiveCount = Field(default=8, description="Rank of the update.")
    alpha: PositiveNumber = Field(default=16.0, description="Scale of the update, times alpha / rank.")
    dropout: Share = Field(default=0.0, description="Share of a layer's inputs that the update leaves out at random.")
    targets: Annotated[tuple[str, ...], BeforeValidator(_targets), or_else({"type": "string"}, {"type": "array"})] = (
        Field(
            default=("query", "value"), description="Layers: some of query, key, value, output, gate, up, down; or all."
        )
    )


class Selection(Section):
    """Examples by their entropy under the model that is tuned (MindLLM)."""

    required_keys = ("entropy",)

    entropy: Annotated[
        tuple[Number, Number],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
    ] = Field(description="[low, high] nats a token above the model's own entropy; examples between them are used.")
    of: Literal["answers", "all"] = Field(default="answers", description="Tokens whose entropy counts.")
    clusters: PositiveCount | None = Field(
        default=None,
        description="K-means clusters of entropies, kept or dropped whole by their mean; null: each alone.",
    )
    model_entropy: PositiveNumber | None = Field(
        default=None,
        description="The model's own entropy in nats; null: its held-out loss, which this recipe measured.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Selection:
        if self.entropy[0] >= self.entropy[1]:
            refuse((("entropy",), list(self.entropy), "low is not below high"))
        return self


class Finetuning(Section):
    """Instruction tuning: conversations in a template, loss on their answers."""

    required_keys = ("examples",)
    _default_peaks: ClassVar[tuple[float, float]] = (2e-5, 2e-4)

    from_: RecipePath | None = Field(
        default=None,
        alias="from",
        description="Weights to start from: another run's checkpoint, or a Hugging Face folder; null: this recipe's.",
    )
    examples: Annotated[
        dict[Name, ExampleSet],
        BeforeValidator(_sets),
        or_else({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, {"type": "object"}),
    ] = Field(min_length=1, description="Files of examples: a path, several, or {NAME: {path, fields}}.")
    template: Annotated[str, BeforeValidator(_template)] = Field(
        default="chatml",
        description="How a conversation is written: chatml, alpaca, mindllm, plain, own (the start's), or a Jinja file",
    )
    system: str | None = Field(default=None, description="System turn of conversations that have none.")
    loss: Literal["answers", "all"] = Field(default="answers", description="Tokens that are learnt.")
    too_long: Literal["cut", "drop"] = Field(
        default="cut", description="Conversations longer than a sequence: their end is left out, or all."
    )
    broken: Share = Field(default=0.0, description="Share of examples that may be unreadable; above it the run stops.")
    held_out: Share = Field(default=0.01, description="Share of examples that is measured and never trained on.")
    context: PositiveCount | None = Field(default=None, description="Tokens of a sequence; null: the model's context.")
    packing: Flag = Field(default=True, description="Several conversations a sequence, which do not see each other.")
    epochs: Annotated[
        dict[Pattern, PositiveNumber],
        BeforeValidator(_epochs),
        or_else({"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}),
    ] = Field(default={"*": 3.0}, description="Passes over the examples: a number, or a number for each set.")
    batch: BatchSize = Field(default=Amount(64, "sequences"), description="Sequences or tokens of a train step.")
    learning_rate: LearningRate | None = Field(
        default=None,
        description="As in training; default: linear from 2e-4 (lora) or 2e-5 (all weights), 3 % of it warm-up.",
    )
    optimizer: Optimizer = Field(
        default=Optimizer(betas=(0.9, 0.999), weight_decay=0.0), description="adamw, or its values."
    )
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Precision of activations.")
    lora: Lora | None = Field(default=None, description="Low-rank adaptation; null: all parameters.")
    selection: Selection | None = Field(default=None, description="Examples by entropy, such as {entropy: [1, 1.5]}.")

    @property
    def default_peak(self) -> float:
        """Highest learning rate where the recipe says none."""
        return self._default_peaks[self.lora is not None]
