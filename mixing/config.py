"""The recipe's domains, tokenizer, sequences, schedule, ablation and scaling. Standard library and pydantic only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from curation.amounts import Amount
from curation.fields import (
    SHARE,
    AmountIn,
    AnyKey,
    Bytes,
    Count,
    Direction,
    Flag,
    Name,
    Number,
    Pattern,
    Patterns,
    PositiveCount,
    PositiveNumber,
    RecipePath,
    Section,
    Share,
    Span,
    Tokens,
    Words,
    did_you_mean,
    file_path,
    looks_like_path,
    one_of,
    or_else,
    refuse,
)

# A model section; training/config.py has the models, and nothing here imports it.
ModelT = TypeVar("ModelT")


NUMBER = {"type": "number", "exclusiveMinimum": 0}
NUMBERS = {"type": "object", "additionalProperties": NUMBER}
SHARES = {"type": "object", "additionalProperties": SHARE}


class HeldOut(Section):
    """Text of each domain that is measured, never trained on: the smaller of the two, in whole duplicate clusters."""

    tokens: Tokens = Field(
        default=Amount(1_000_000, "tokens"), description="Tokens held out of each domain; fewer where `share` is fewer."
    )
    share: Share = Field(default=0.01, description="Share of each domain held out; less where `tokens` is less.")


def _epochs(value: object) -> object:
    return value if isinstance(value, Mapping) else {"*": value}


class Domains(Section):
    """What gets a weight, what is held out, and how often text may repeat."""

    split: dict[Pattern, str] = Field(
        default_factory=dict,
        description="Source pattern -> categorical signal (bucket, language, topic, year) it is split by.",
    )
    held_out: HeldOut = Field(default=HeldOut(), description="Held-out text of each domain.")
    validate_only: Words = Field(
        default=(), description="Sources that are measured and never trained on; no pattern means them."
    )
    max_epochs: Annotated[dict[Pattern, PositiveNumber], BeforeValidator(_epochs), or_else(NUMBER, NUMBERS)] = Field(
        default={"*": 4.0},
        description="Most passes over a domain in the whole run: a number, or a number for each pattern.",
    )
    shortage: Literal["error", "spread"] = Field(
        default="error",
        description="A weight that max_epochs cannot meet: stop with both remedies, or spread it over the others.",
    )


class TokenizerText(Section):
    """Text a tokenizer is trained on."""

    size: Bytes = Field(default=Amount(10 << 30, "bytes"), description="Bytes of text; less where there is less.")
    shares: dict[Pattern, Share] = Field(
        default={"*": 1.0}, description="Share of bytes for each pattern; they sum to 1."
    )


class Tokenizer(Section):
    """A tokenizer: a file, or how one is trained."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "byte_bpe_32k": {"algorithm": "byte_bpe", "vocabulary": 32000},
        "byte_bpe_64k": {"algorithm": "byte_bpe", "vocabulary": 64000},
        # LLäMmlein: BPE of characters with byte fallback, 32,000 ids (arXiv:2411.11171, section 2.2).
        "llammlein": {"algorithm": "bpe", "vocabulary": 32000},
        # MindLLM-3B: SentencePiece BPE of Chinese and English, 125,700 ids (arXiv:2310.15777).
        "mindllm": {"algorithm": "bpe", "vocabulary": 125_700},
    }
    preset_words = tuple(presets)

    path: RecipePath | None = Field(default=None, description="A ready tokenizer (the word form): nothing is trained.")
    preset: str | None = Field(default=None, description="Named algorithm and vocabulary.")
    algorithm: Literal["byte_bpe", "bpe", "unigram"] = Field(default="byte_bpe", description="How pieces are learnt.")
    vocabulary: PositiveCount | None = Field(
        default=None, description="Number of token ids, special tokens among them."
    )
    base: RecipePath | None = Field(
        default=None, description="Tokenizer extended by new ids up to `vocabulary`; its ids stay."
    )
    text: TokenizerText = Field(default=TokenizerText(), description="What it is trained on.")
    digits: Literal["single", "three", "free"] = Field(
        default="single", description="Digits one by one, in threes, or as learnt."
    )
    special: tuple[str, ...] = Field(default=(), description="Special tokens beside begin and end of document.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """A preset, else a path."""
        if word in cls.presets:
            return {"preset": word}
        if not looks_like_path(word):
            raise ValueError(
                f"neither a preset nor a path (a path has a / or a suffix){did_you_mean(word, cls.presets)}"
            )
        return {"path": word}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fill in a preset's values."""
        preset = mapping.get("preset")
        if preset is None:
            return mapping
        return {**cls.presets[one_of(preset, cls.presets, "tokenizer preset")], **mapping}

    @model_validator(mode="after")
    def _file_or_training(self) -> Self:
        if self.path is None and self.vocabulary is None:
            refuse((("vocabulary",), None, "missing: the number of token ids, such as 32000"))
        if self.path is not None and self.model_fields_set - {"path"}:
            refuse(
                (("path",), self.path, "a ready tokenizer is not trained: give the path alone, or `base` to extend it")
            )
        return self


class Sequences(Section):
    """How documents become training sequences."""

    packing: Literal["contiguous", "best_fit"] = Field(
        default="contiguous",
        description="Windows over the domain's text laid end to end, or whole documents fitted into windows.",
    )
    document_masks: Flag = Field(default=False, description="Attention stays inside a document.")
    stretch: Tokens = Field(
        default=Amount(0, "tokens"),
        description="Text of a domain that stays together when it is shuffled, for shards that are read from far away; "
        "0: every sequence goes anywhere.",
    )
    bos: Flag = Field(default=False, description="A begin token before each document.")
    eos: Flag = Field(default=True, description="An end token after each document.")


_NATURAL_POWER = re.compile(r"natural\^(?P<power>[0-9]*\.?[0-9]+)")
WEIGHT_WORDS = ("natural", "natural^0.5", "unimax", "ablation")


class Weights(Section):
    """Shares of tokens: a word, a file, or a share for each pattern."""

    preset_words = WEIGHT_WORDS
    written_schema = {"anyOf": [{"type": "string", "examples": list(WEIGHT_WORDS)}, SHARES]}  # noqa: RUF012
    kind: Literal["natural", "unimax", "ablation", "file", "shares"] = Field(description="Which of them it is.")
    power: Number = Field(default=1.0, ge=0, description="natural^T: supply to this power; 0 is equal weights.")
    path: RecipePath | None = Field(default=None, description="A file of weights.")
    shares: dict[Pattern, Share] = Field(default_factory=dict, description="Share of tokens for each pattern; sum 1.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """natural, natural^T, unimax, ablation or a path."""
        if word in ("natural", "unimax", "ablation"):
            return {"kind": word}
        if power := _NATURAL_POWER.fullmatch(word):
            return {"kind": "natural", "power": float(power["power"])}
        if word in ("uniform", "equal"):
            raise ValueError("equal weights are natural^0 (uniform is an order)")
        if not looks_like_path(word):
            raise ValueError(f"neither weights nor a path{did_you_mean(word, cls.preset_words)}")
        return {"kind": "file", "path": file_path(word)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{pattern: share}`."""
        return mapping if "kind" in mapping else {"kind": "shares", "shares": mapping}

    @classmethod
    def known_keys(cls) -> list[str]:
        """Any pattern may be a key."""
        return AnyKey()


class Order(Section):
    """In which order the sequences of a phase come."""

    preset_words = ("uniform",)
    written_schema = {  # noqa: RUF012
        "anyOf": [
            {"const": "uniform"},
            {"type": "object", "properties": {"blocked": {}}, "required": ["blocked"], "additionalProperties": False},
            {"type": "object", "properties": {"by": {}}, "required": ["by"], "additionalProperties": False},
        ]
    }
    kind: Literal["uniform", "blocked", "by"] = Field(
        description="Mixed throughout, domain after domain, or by a signal."
    )
    domains: Patterns = Field(default=(), description="blocked: domains, each whole, one after the other.")
    signal: str | None = Field(default=None, description="by: the signal sequences are sorted by.")
    direction: Direction = Field(default="asc", description="by: asc or desc.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`uniform`."""
        return {"kind": one_of(word, cls.preset_words, "order (or write {blocked: [..]} or {by: {SIGNAL: asc}})")}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{blocked: [..]}` or `{by: {SIGNAL: asc | desc}}`."""
        if "kind" in mapping:
            return mapping
        if set(mapping) == {"blocked"}:
            return {"kind": "blocked", "domains": mapping["blocked"]}
        by = mapping.get("by")
        if set(mapping) != {"by"} or not isinstance(by, Mapping) or len(by) != 1:
            raise ValueError("write uniform, {blocked: [DOMAIN, ..]} or {by: {SIGNAL: asc}}")
        ((signal, direction),) = by.items()
        return {"kind": "by", "signal": signal, "direction": direction}

    @classmethod
    def known_keys(cls) -> list[str]:
        """The keys are checked with their values."""
        return AnyKey()


class Phase(Section):
    """A span of tokens with its weights."""

    name: Name = Field(description="Unique name of the phase.")
    tokens: Span = Field(description="How long it is: tokens, or train steps; rounded down to whole train steps.")
    weights: Weights = Field(default=Weights(kind="natural"), description="Shares of tokens of the domains.")
    ramp: Span = Field(
        default=Amount(0, "tokens"), description="Span in which weights go linearly from those before to these."
    )
    order: Order = Field(
        default=Order(kind="uniform"), description="uniform, {blocked: [..]} or {by: {SIGNAL: asc | desc}}."
    )
    context: PositiveCount | None = Field(
        default=None,
        description="Sequence length in tokens of this phase, at constant tokens a train step; default: the model's.",
    )


class Runs(Section):
    """How many proxies are trained with which weights."""

    one_domain: Count = Field(
        default=1, description="Runs on each single domain (their losses make the cross-domain matrix)."
    )
    one_pass: Count = Field(
        default=0,
        description="Seeds of a run of one pass over each domain, all scaled by one factor, as MindLLM did it; shown "
        "beside the runs of equal tokens.",
    )
    dirichlet: Count = Field(description="Runs with weights drawn around the natural weights.")
    leave_one_out: Count = Field(default=0, description="Runs without each domain.")
    space_filling: Count = Field(default=0, description="Runs spread evenly over the allowed weights.")
    d_optimal: Count = Field(default=0, description="Runs where a linear model learns most.")
    sequential: Count = Field(default=0, description="Runs placed one after another where the surrogates expect most.")
    optimum: Count = Field(
        default=0,
        description="Seeds at the surrogate's optimum, beside those of natural weights; then it is fitted anew.",
    )
    repeats: Count = Field(
        default=3, description="Seeds at natural weights, of baselines and of orders; they measure the noise."
    )


class Objective(Section):
    """What is made small: of log(loss / loss at natural weights)."""

    preset_words = ("worst",)
    written_schema = {  # noqa: RUF012
        "anyOf": [
            {"const": "worst"},
            {"type": "object", "properties": {"pareto": {"type": "array"}}, "required": ["pareto"]},
            SHARES,
        ]
    }
    kind: Literal["shares", "worst", "pareto"] = Field(description="A weighted sum, the worst domain, or a front.")
    shares: dict[Pattern, Share] = Field(default_factory=dict, description="Share of each held-out domain; sum 1.")
    pareto: Patterns = Field(default=(), description="Domains whose losses are traded off.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`worst`."""
        return {"kind": one_of(word, cls.preset_words, "objective (or write {PATTERN: share})")}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{pattern: share}` or `{pareto: [..]}`."""
        if "kind" in mapping:
            return mapping
        if set(mapping) == {"pareto"}:
            return {"kind": "pareto", **mapping}
        return {"kind": "shares", "shares": mapping}

    @classmethod
    def known_keys(cls) -> list[str]:
        """Any pattern may be a key."""
        return AnyKey()


class EarlierRuns(Section):
    """Runs of an earlier swarm of the same proxy, whose domains may have been split, merged or renamed since."""

    written_schema = {"anyOf": [{"type": "string"}, {"type": "object"}]}  # noqa: RUF012
    runs: RecipePath = Field(description="Its table of runs (runs.csv), or the weights-… folder that holds it.")
    became: dict[str, Words] = Field(
        default_factory=dict, description="{OLD: [NEW, ..]}: what became of its domains, where names do not say it."
    )

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """A path."""
        return {"runs": word}


class Stop(Section):
    """Proxies that are far behind are stopped early."""

    at: Share = Field(description="Share of a run after which runs are compared.")
    keep: Share = Field(description="Share of the runs that go on.")


class Confirm(Section, Generic[ModelT]):
    """Winner and baselines trained again, one size up."""

    model: ModelT = Field(description="A larger model.")
    tokens: Tokens = Field(description="Tokens of each run.")
    seeds: PositiveCount = Field(default=3, description="Seeds, the same ones for every arm.")


def _bounds(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("bounds are [least, most], such as [0.3, 0.6]")
    return tuple(value)


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"least is above most; did you mean [{bounds[1]:g}, {bounds[0]:g}]?")
    return bounds


Bounds = Annotated[
    tuple[Share, Share],
    BeforeValidator(_bounds),
    AfterValidator(_rising),
    WithJsonSchema({"type": "array", "items": SHARE, "minItems": 2, "maxItems": 2}),
]


def _surrogates(value: object) -> object:
    return () if value == "all" else (value,) if isinstance(value, str) else value


class Ablation(Section, Generic[ModelT]):
    """The study that chooses weights from many small proxies."""

    proxy: ModelT = Field(
        default="llama_15m", validate_default=True, description="Model of the proxies, with its training values."
    )
    tokens: Tokens = Field(description="Tokens of one proxy run.")
    runs: Runs = Field(description="How many proxies, with which weights.")
    bounds: dict[Pattern, Bounds] = Field(
        default_factory=dict, description="Least and most of the sum a pattern names."
    )
    objective: Objective | None = Field(
        default=None, description="{PATTERN: share}, worst or {pareto: [..]}; default: every held-out domain alike."
    )
    baselines: tuple[Weights, ...] = Field(
        default=(Weights(kind="natural"),), description="Weights that are trained too and stand in the final table."
    )
    orders: tuple[Order, ...] = Field(default=(), description="Orders tried beside uniform on the same sequences.")
    evaluate: Annotated[Amount, AmountIn("points")] = Field(
        # type: ignore[valid-type]
        default=Amount(20, "points"),
        description="Times the held-out loss is measured in a run.",
    )
    evidence: tuple[EarlierRuns, ...] = Field(
        default=(), description="Runs of earlier swarms of this proxy that still count: PATH or {runs, became}."
    )
    stop: Stop | None = Field(default=None, description="{at: share, keep: share}: stop runs that are far behind.")
    surrogates: Annotated[
        tuple[str, ...], BeforeValidator(_surrogates), or_else({"const": "all"}, {"type": "array"})
    ] = Field(default=(), description="Surrogate models that are compared; all: every one.")
    effective_tokens: Flag = Field(default=False, description="Repeated tokens count less in the surrogates.")
    threads: PositiveCount = Field(
        default=1, description="Threads of a proxy run; losses differ bitwise between numbers."
    )
    confirm: Confirm[ModelT] | None = Field(
        default=None, description="{model, tokens, seeds}: winner and baselines, larger."
    )


def _several(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class Scaling(Section, Generic[ModelT]):
    """A scaling law over model sizes."""

    sizes: tuple[ModelT, ...] = Field(min_length=2, description="Models of the ladder.")
    tokens_per_parameter: Annotated[
        tuple[PositiveNumber, ...], BeforeValidator(_several), or_else(NUMBER, {"type": "array", "items": NUMBER})
    ] = Field(
        default=(20.0,),
        min_length=1,
        description="Tokens for each of a model's total parameters; a list trains every size at each, as laws of size "
        "and tokens need.",
    )
