"""The recipe's `ablation` and `scaling` sections: which proxies are trained, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from curation.amounts import Amount
from curation.fields import (
    SHARE,
    AmountIn,
    AnyKey,
    Count,
    Flag,
    Pattern,
    Patterns,
    PositiveCount,
    PositiveNumber,
    RecipePath,
    Section,
    Share,
    Tokens,
    Words,
    one_of,
    or_else,
)
from mixing.config import NUMBER, SHARES, Order, Weights

# A model section; training/config.py has the models, and nothing here imports it.
ModelT = TypeVar("ModelT")


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
