"""The recipe's models, training, checkpoints, evaluation and export. Only stdlib and pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator

from curation.amounts import Amount, amount
from curation.fields import (
    SHARE,
    AmountIn,
    Flag,
    Number,
    PositiveCount,
    PositiveNumber,
    RecipePath,
    Section,
    Share,
    Span,
    Words,
    did_you_mean,
    one_of,
    refuse,
)
from training.presets import MODEL_PRESETS

BatchSize = Annotated[Amount, AmountIn("sequences", "tokens")]


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `above` over those of `below`, mapping by mapping."""
    result = dict(below)
    for key, value in above.items():
        base = below.get(key)
        result[key] = merged(base, value) if isinstance(base, Mapping) and isinstance(value, Mapping) else value
    return result


class Optimizer(Section):
    """AdamW and what limits its steps."""

    preset_words = ("adamw",)
    betas: Annotated[tuple[Share, Share], BeforeValidator(tuple), WithJsonSchema({"type": "array", "items": SHARE})] = (
        Field(default=(0.9, 0.95), description="Decay of the moments.")
    )
    weight_decay: Number = Field(default=0.1, ge=0, description="Decoupled weight decay; none on norms and biases.")
    clip: Number | None = Field(
        default=1.0, gt=0, description="Largest gradient norm, over all parameters; null: not clipped."
    )
    z_loss: Number = Field(
        default=0.0, ge=0, description="Weight of the squared log of the softmax's normaliser in the loss."
    )

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`adamw`."""
        one_of(word, cls.preset_words, "optimizer")
        return {}


class LearningRate(Section):
    """The learning rate over the run."""

    required_keys = ()

    peak: PositiveNumber = Field(description="Highest learning rate, reached after the warm-up.")
    final: Number = Field(default=0.0, ge=0, description="Learning rate at the end.")
    warmup: Span = Field(default=Amount(0, "tokens"), description="Span of the linear rise from 0.")
    shape: Literal["cosine", "linear", "wsd"] = Field(
        default="cosine", description="The way down; wsd: flat, then down over `decay`."
    )
    decay: Span | None = Field(default=None, description="wsd: the last span of the run, in which the rate falls.")

    @model_validator(mode="after")
    def _decay_of_wsd(self) -> Self:
        if (self.decay is None) == (self.shape == "wsd"):
            if self.decay is None:
                refuse((("decay",), None, "missing: shape wsd needs the span of its decay, such as decay: 300B"))
            refuse((("decay",), str(self.decay), f"counts for shape wsd only, and this is {self.shape}"))
        if self.final > self.peak:
            refuse((("final",), self.final, f"the final rate is above the peak {self.peak:g}"))
        return self


class BatchFrom(Section):
    """A batch size from a place of the run on."""

    start: Span = Field(description="Tokens trained before it holds.")
    size: BatchSize = Field(description="Sequences or tokens of a train step, over all devices.")


def _batches(value: object) -> tuple[BatchFrom, ...]:
    """An amount, or [[0, amount], [start, amount]]."""
    if not isinstance(value, list | tuple):
        return (BatchFrom(start=0, size=value),)  # type: ignore[arg-type]
    if value and all(isinstance(entry, BatchFrom) for entry in value):
        return tuple(value)
    problems, batches = [], []
    for place, entry in enumerate(value):
        try:
            start, size = entry
            batches.append(BatchFrom(start=amount(start, ("tokens", "sequences")), size=size))
        except (ValueError, TypeError) as error:
            problems.append(
                ((place,), entry, f"write [START, SIZE], such as [10B, 1024 sequences] ({_first_line(error)})")
            )
    if problems:
        refuse(*problems)
    # Tokens and sequences are compared where the context is known (recipes.checks.training).
    units = {batch.start.unit for batch in batches[1:]}
    starts = [batch.start.number for batch in batches]
    if not starts or starts[0] != 0 or 0 in starts[1:] or (len(units) < 2 and starts != sorted(set(starts))):
        raise ValueError("batch sizes begin at 0 and their starts rise")
    return tuple(batches)


def _first_line(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    return errors()[0]["msg"].removeprefix("Value error, ") if errors else str(error).splitlines()[0]


Batches = Annotated[
    tuple[BatchFrom, ...],
    BeforeValidator(_batches),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["1024 sequences"]},
                {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
            ]
        }
    ),
]


class TrainingValues(Section):
    """What a model preset brings beside its shape."""

    required_keys = ()

    batch: Batches = Field(description="A train step, over all devices: an amount, or [[0, amount], [10B, amount]].")
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Precision of activations; parameters stay fp32."
    )
    optimizer: Optimizer = Field(default=Optimizer(), description="adamw, or its values.")
    learning_rate: LearningRate = Field(description="{peak, final, warmup, shape, decay}.")


class Spikes(Section):
    """What happens when the loss or the gradient norm jumps."""

    preset_words = ("warn", "drop_update", "rollback")
    action: Literal["warn", "drop_update", "rollback"] = Field(
        default="warn", description="What is done on every rank."
    )
    sigma: PositiveNumber = Field(
        default=6.0, description="Standard deviations above the running mean that count as a spike."
    )
    back: Span = Field(default=Amount(2_000_000_000, "tokens"), description="rollback: how far back a run goes.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """The action."""
        return {"action": one_of(word, cls.preset_words, "action")}


class Amendment(Section):
    """A change to a running run from a place on."""

    at: Span = Field(description="Tokens trained when it takes effect; before it the run is still the same run.")
    skip_data: Span | None = Field(
        default=None,
        description="Span of the order that is passed over, in whole sequences, rounded up; this shortens the run.",
    )
    set: dict[str, Any] | None = Field(
        default=None, description="Training path -> value, such as {learning_rate.peak: 5e-4}."
    )
    why: str = Field(min_length=1, description="The reason, for whoever reads the run later.")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.skip_data is None) == (self.set is None):
            raise ValueError("an amendment has either skip_data or set")
        for path in self.set or {}:
            if not _is_training_path(path):
                known = ", ".join(sorted(_training_paths()))
                raise ValueError(
                    f"{path!r} is no training path{did_you_mean(path, _training_paths()) or f'; known: {known}'}"
                )
        return self


def _training_paths() -> list[str]:
    """Dotted paths that an amendment may set."""
    paths = ["batch", "precision"]
    paths += [f"optimizer.{key}" for key in Optimizer.known_keys()]
    paths += [f"learning_rate.{key}" for key in LearningRate.known_keys()]
    return paths + [f"spikes.{key}" for key in Spikes.known_keys()]


def _is_training_path(path: str) -> bool:
    return path in _training_paths()


def amended_values(values: TrainingValues, changes: Mapping[str, Any]) -> TrainingValues:
    """Training values with some paths set, such as {learning_rate.peak: 5e-4}.

    Raises:
        pydantic.ValidationError: for a value that its path cannot have.
    """
    sections: dict[str, dict[str, Any]] = {}
    updated: dict[str, Any] = {}
    for path, value in changes.items():
        section, _, key = path.partition(".")
        if key:
            sections.setdefault(section, {})[key] = value
        else:
            updated[section] = TypeAdapter(Batches).validate_python(value) if section == "batch" else value
    for name, given in sections.items():
        section_now: Section = getattr(values, name)
        updated[name] = type(section_now).model_validate({**section_now.model_dump(mode="json"), **given})
    return values.model_copy(update=updated)


class Training(TrainingValues):
    """How the target model is trained; what is not said is the model preset's."""

    from_: RecipePath | None = Field(
        default=None,
        alias="from",
        description="Weights to start from: a checkpoint of another run, or a Hugging Face folder.",
    )
    spikes: Spikes = Field(default=Spikes(), description="warn, drop_update, rollback, or {action, sigma, back}.")
    amendments: tuple[Amendment, ...] = Field(default=(), description="Changes to a running run, in order of `at`.")


class Model(Section):
    """A model: its shape, and the training values its preset brings."""

    preset_words: ClassVar[tuple[str, ...]] = tuple(MODEL_PRESETS)
    required_keys = ("preset",)

    preset: str = Field(description="Named shape and training values; the keys beside it change them.")
    family: Literal["llama", "gpt_neo", "mindllm"] = Field(description="Kind of network.")
    layers: PositiveCount = Field(description="Number of blocks.")
    width: PositiveCount = Field(description="Size of the residual stream.")
    heads: PositiveCount = Field(description="Query heads.")
    kv_heads: PositiveCount = Field(description="Key and value heads; fewer than heads: grouped queries.")
    feedforward: PositiveCount = Field(description="Inner size of the feed-forward layer.")
    context: PositiveCount = Field(description="Sequence length in tokens.")
    tied: Flag = Field(description="Input embedding and output head are one matrix.")
    rope_base: PositiveNumber = Field(default=10_000.0, description="Base of the rotary positions.")
    norm_epsilon: PositiveNumber = Field(default=1e-5, description="Added under the root of norms.")
    window: PositiveCount | None = Field(default=None, description="gpt_neo: tokens the local layers see.")
    training: TrainingValues = Field(description="Training values of proxies, ladder and confirmation runs.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """A preset."""
        return {"preset": one_of(word, MODEL_PRESETS, "model preset")}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """The preset's shape and training values under the given ones."""
        if "preset" not in mapping:
            refuse((("preset",), None, "missing: begin from a preset, such as {preset: llama_15m, layers: 4}"))
        preset = mapping["preset"]
        if not isinstance(preset, str) or preset not in MODEL_PRESETS:
            refuse((("preset",), preset, f"unknown model preset{did_you_mean(preset, MODEL_PRESETS)}"))
        return merged(MODEL_PRESETS[preset], mapping)

    @classmethod
    def unknown_key(cls, key: object) -> str:
        """The vocabulary follows from the tokenizer."""
        if key in ("vocabulary", "vocab", "vocab_size", "vocabulary_size"):
            return "unknown key; the vocabulary follows from the tokenizer"
        return super().unknown_key(key)

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            refuse((("heads",), self.heads, f"width {self.width} must be an even multiple of heads"))
        if self.heads % self.kv_heads:
            refuse((("kv_heads",), self.kv_heads, f"heads {self.heads} must be a multiple of kv_heads"))
        return self

    @property
    def head_width(self) -> int:
        """Size of one head."""
        return self.width // self.heads

    def parameters(self, vocabulary: int) -> tuple[int, int]:
        """Total and non-embedding parameters at a vocabulary.

        Non-embedding leaves out the input embedding, learned positions and an untied output head.
        """
        embeddings = vocabulary * self.width * (1 if self.tied else 2)
        if self.family == "gpt_neo":
            embeddings += self.context * self.width
        body = self.layers * _block_parameters(self) + _final_norm_parameters(self)
        return body + embeddings, body


def _block_parameters(model: Model) -> int:
    """Parameters of one block."""
    width, inner = model.width, model.feedforward
    keys_values = 2 * width * model.kv_heads * model.head_width
    if model.family == "gpt_neo":  # LayerNorms with bias; biases on the output projection and the MLP
        return 2 * width * width + keys_values + width + 2 * width * inner + inner + width + 4 * width
    return 2 * width * width + keys_values + 3 * width * inner + 2 * width


def _final_norm_parameters(model: Model) -> int:
    """DeepNorm normalises at the end of each block, so mindllm has no norm of its own before the head."""
    return {"llama": model.width, "gpt_neo": 2 * model.width, "mindllm": 0}[model.family]


class Kept(Section):
    """Which checkpoints stay."""

    preset_words = ("all",)
    all: Flag = Field(default=False, description="Every checkpoint; the word all.")
    last: PositiveCount = Field(default=2, description="Newest checkpoints that stay.")
    every: Span | None = Field(default=None, description="Checkpoints at multiples of this stay for ever.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`all`."""
        one_of(word, cls.preset_words, "value (or write {last: 3, every: 200B})")
        return {"all": True}


class Checkpoints(Section):
    """When the run is saved. Changes no result."""

    every: Span = Field(default=Amount(1000, "train steps"), description="Span between checkpoints.")
    early: Flag = Field(default=False, description="Also at train steps 1, 2, 4, … up to the first regular one.")
    keep: Kept = Field(default=Kept(), description="all, or {last: number, every: amount}.")
    background: Flag = Field(
        default=False,
        alias="async",
        description="Write them while the training goes on, at the cost of one more copy of weights and moments.",
    )


class Evaluation(Section):
    """When held-out loss is measured, and which suites run on kept checkpoints."""

    every: Span = Field(
        default=Amount(1000, "train steps"), description="Span between measurements of the held-out loss."
    )
    suites: Words = Field(default=(), description="Evaluation suites for each kept checkpoint (come later).")


class Average(Section):
    """Checkpoints that are averaged."""

    last: PositiveCount = Field(description="Number of checkpoints.")
    every: Span = Field(description="Span between them.")


class Export(Section):
    """The model in a form that others read."""

    preset_words = ("huggingface",)
    format: Literal["huggingface"] = Field(default="huggingface", description="Format of the folder.")
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Precision of the weights.")
    average: Average | None = Field(
        default=None, description="{last, every}: an average of checkpoints; null: the last one."
    )

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`huggingface`."""
        return {"format": one_of(word, cls.preset_words, "format")}
