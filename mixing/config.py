"""The recipe's domains, tokenizer, sequences and schedule. Standard library and pydantic only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from curation.amounts import Amount
from curation.fields import (
    SHARE,
    AnyKey,
    Bytes,
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


# Special tokens of each algorithm by their roles.
_SENTENCEPIECE = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
SPECIAL_TOKENS = {
    "byte_bpe": {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|padding|>"},
    "bpe": _SENTENCEPIECE,
    "unigram": _SENTENCEPIECE,
}


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
        least = 256 + len({*SPECIAL_TOKENS[self.algorithm].values(), *self.special}) + 1
        if self.base is None and self.vocabulary is not None and self.vocabulary < least:
            reason = f"special and byte tokens leave no room; {least} at least, such as 32000"
            refuse((("vocabulary",), self.vocabulary, reason))
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
