"""The recipe's steps that look at many documents: perplexity buckets and deduplication."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from curation.amounts import Amount
from curation.fields import (
    AmountIn,
    AnyKey,
    Count,
    Direction,
    Flag,
    Name,
    Patterns,
    PositiveCount,
    RecipePath,
    Section,
    Share,
    file_path,
    looks_like_path,
    one_of,
    refuse,
)
from curation.step_config import ON_SURVIVORS, SURVIVORS, Step


class LanguageModel(Section):
    """A Kneser-Ney language model trained from sources of this recipe, one for each language."""

    train_on: Patterns = Field(min_length=1, description="Sources whose text it is trained on.")
    order: Annotated[int, Field(strict=True, ge=1, le=6)] = Field(default=5, description="Longest n-gram.")
    prune: tuple[Count, ...] = Field(
        default=(),
        description="n-grams seen at most so often are dropped, by order from 1; the last number holds for the rest.",
    )
    with_: Literal["own", "lmplz"] = Field(
        default="own", alias="with", description="Our trainer, or KenLM's lmplz binary."
    )


class Pieces(Section):
    """What the language model counts: SentencePiece pieces, the recipe's tokens, or words."""

    preset_words = ("tokenizer", "words")
    required_keys = ()
    unigram: PositiveCount | None = Field(default=None, description="Size of a SentencePiece unigram vocabulary.")
    unit: Literal["unigram", "tokenizer", "words"] = Field(
        default="unigram", description="Follows from the word or the key."
    )

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`tokenizer` or `words`."""
        return {"unit": one_of(word, cls.preset_words, "pieces")}


class Buckets(Section):
    """Where head, middle and tail are cut by perplexity."""

    preset_words = ("ccnet",)
    cutoffs: Literal["ccnet"] | None = Field(default=None, description="CCNet's published cutoffs; the word ccnet.")
    values: tuple[float, ...] | None = Field(default=None, description="Perplexities to cut at, rising.")
    shares: tuple[Share, ...] | None = Field(default=None, description="Shares of documents below each cut, rising.")
    of: str = Field(
        default="run",
        description="What the shares are of: run, a source pattern, or the cutoffs file of another run (a reference).",
    )
    by: Literal["language", "source"] = Field(
        default="language", description="Cut for each language or for each source."
    )

    @field_validator("of", mode="before")
    @classmethod
    def _reference(cls, of: object) -> object:
        return file_path(of) if isinstance(of, str) and looks_like_path(of) else of

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`ccnet`: its cutoff.csv."""
        return {"cutoffs": one_of(word, cls.preset_words, "buckets (or write {shares: [0.3, 0.6], of: run})")}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [way for way in ("cutoffs", "values", "shares") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError("say where to cut in one way: ccnet, {values: [..]} or {shares: [..]}")
        cuts = list(self.values or self.shares or ())
        if ways != ["cutoffs"] and (not cuts or cuts != sorted(set(cuts))):
            refuse(((ways[0],), cuts, "cuts must rise, such as [0.3, 0.6]"))
        if self.shares is not None and not 0 < cuts[0] <= cuts[-1] < 1:
            refuse((("shares",), cuts, "a cut at 0 or 1 leaves a bucket empty: shares lie between them"))
        return self


def _language_model(value: object) -> object:
    """A path, or how to train one."""
    return file_path(value) if isinstance(value, str) else value


def _word_or_mapping(value: object) -> str:
    return "word" if isinstance(value, str) else "mapping"


class Perplexity(Step):
    """Perplexity under a language model, and the bucket it falls into; one model for each language."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "ccnet": {"pieces": {"unigram": 65536}, "scoring": "ccnet", "buckets": "ccnet"},
        "sound": {"pieces": {"unigram": 65536}, "scoring": "lines", "buckets": {"shares": (0.3, 0.6), "of": "run"}},
    }
    looks_at: ClassVar[tuple[str, ...]] = ("all", "survivors")
    kind: Literal["perplexity"] = "perplexity"
    preset: str | None = Field(
        default="ccnet", description="ccnet: comparable with CCNet's numbers; sound: line by line."
    )
    model: (
        Annotated[
            Annotated[RecipePath, Tag("word")] | Annotated[LanguageModel, Tag("mapping")],
            Discriminator(_word_or_mapping),
        ]
        | None
    ) = Field(
        default=None,
        description="A model with its pieces: a file, a folder of ours, or a folder of CCNet's files by language; "
        "or {train_on, order, prune, with}.",
    )
    pieces: Pieces = Field(default=Pieces(unigram=65536), description="{unigram: size}, tokenizer or words.")
    scoring: Literal["ccnet", "lines"] = Field(
        default="ccnet", description="The document as one line (CCNet), or line by line."
    )
    buckets: Buckets = Field(
        default=Buckets(cutoffs="ccnet"), description="ccnet, {values: [..]} or {shares: [..], of, by}."
    )
    on: Literal["all", "survivors"] = Field(
        default="all", description="Rows it looks at: all, or only those that no earlier step dropped."
    )
    per_line: Flag = Field(default=False, description="Keep the perplexity of each line as `line_perplexity`, a list.")
    line_cutoff: Annotated[float, Field(gt=1)] | None = Field(
        default=None, description="Adds `share_above`: the share of a document's lines with a higher perplexity."
    )

    @model_validator(mode="after")
    def _model_named(self, info: Any) -> Self:
        if self.scoring == "ccnet" and (self.per_line or self.line_cutoff is not None):
            key = "per_line" if self.per_line else "line_cutoff"
            refuse(((key,), getattr(self, key), "CCNet scores a document as one line; say scoring: lines"))
        if self.model is None and not (info.context or {}).get("defaults"):
            refuse((("model",), None, "missing: a path, or {train_on: [SOURCE], order: 5}"))
        return self


class Shingle(Section):
    """What is compared: runs of words or of characters."""

    words: PositiveCount | None = Field(default=None, description="Words in a shingle.")
    characters: PositiveCount | None = Field(default=None, description="Characters in a shingle.")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.words is None) == (self.characters is None):
            raise ValueError("write {words: n} or {characters: n}")
        return self


class KeepRule(Section):
    """One preference among duplicates: {source: PATTERN}, {SIGNAL: desc}, {COLUMN: [best, second]}, or a word."""

    preset_words = ("newest", "longest")
    written_schema = {  # noqa: RUF012
        "anyOf": [
            {"enum": ["newest", "longest"]},
            {"type": "object", "minProperties": 1, "maxProperties": 1},
        ]
    }
    by: Literal["source", "newest", "longest", "signal"] = Field(description="What is compared.")
    name: str | None = Field(default=None, description="Source pattern or signal.")
    direction: Direction | None = Field(default=None, description="desc: the larger signal is kept.")
    values: tuple[str, ...] = Field(default=(), description="Values of a column, the best first.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`newest` or `longest`."""
        return {"by": one_of(word, cls.preset_words, "preference (or write {source: PATTERN} or {SIGNAL: desc})")}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{source: pattern}`, `{SIGNAL: asc | desc}` or `{COLUMN: [best, second, …]}`."""
        if "by" in mapping:
            return mapping
        if len(mapping) != 1:
            raise ValueError("one preference in each list entry: {source: PATTERN}, newest, longest or {SIGNAL: desc}")
        ((key, value),) = mapping.items()
        if key == "source":
            return {"by": "source", "name": value}
        if isinstance(value, list | tuple) and value:
            return {"by": "signal", "name": key, "values": value}
        if value not in ("asc", "desc"):
            raise ValueError(f"{key}: asc, desc or a list is wanted; did you mean {{source: {key}}}?")
        return {"by": "signal", "name": key, "direction": value}

    @classmethod
    def known_keys(cls) -> list[str]:
        """Any signal may be the key."""
        return AnyKey()

    def entry(self) -> str | dict[str, Any]:
        """The preference as a recipe's list writes it."""
        if self.by == "source":
            return {"source": self.name}
        if self.by != "signal":
            return self.by
        return {str(self.name): list(self.values) or self.direction}


def _group(value: object) -> object:
    return None if value == "all" else value


def _as_written(value: object) -> object:
    """A part of a recipe as it is written there, without what stands at its default; other values as they are."""
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, Section) else value


def _published(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*@[0-9]+", name):
        raise ValueError(f"an index is NAME@VERSION; did you mean {name.split('@')[0]}@1?")
    return name


class Index(Section):
    """Indexes of what other runs kept."""

    against: tuple[Annotated[str, AfterValidator(_published)], ...] = Field(
        default=(), description="Versions whose documents are dropped here: NAME@1 (with all before it)."
    )
    publish: Name | None = Field(
        default=None, description="Name to publish what the step keeps under, as its next version."
    )


class Dedup(Step):
    """Drop duplicates: documents, paragraphs, near-duplicates or substrings."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "exact": {"normalize": "raw"},
        "paragraphs_keep_first": {"normalize": "raw", "min_words": 3, "false_positives": 1e-6},
        "paragraphs_keep_none": {"normalize": "ccnet"},
        "minhash": {"normalize": "words", "shingle": {"words": 5}, "bands": 14, "rows": 8},
        "substring": {"normalize": "raw", "shingle": {"words": 50}, "min_words": 10},
    }
    only: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "shingle": ("minhash", "substring"), "threshold": ("minhash",), "bands": ("minhash",), "rows": ("minhash",),
        "verify": ("minhash",), "cluster": ("minhash",), "max_cluster": ("minhash",),
        "min_words": ("paragraphs_keep_first", "paragraphs_keep_none", "substring"), "group": ("paragraphs_keep_none",),
        "false_positives": ("paragraphs_keep_first",),
        "keep": ("exact", "paragraphs_keep_first", "minhash", "substring"), "index": ("exact", "minhash"),
    }  # fmt: skip
    kind: Literal["dedup"] = "dedup"
    preset: str | None = Field(default="minhash", description="What counts as a duplicate.")
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS
    normalize: Literal["raw", "words", "numbers", "base", "ccnet"] = Field(
        default="words",
        description="Folding; by the preset: minhash words, paragraphs_keep_none ccnet (its lines), the others raw.",
    )
    shingle: Shingle | None = Field(
        default=None,
        description="{words: n} or {characters: n}; substring: the shortest span that is removed; by the preset.",
    )
    threshold: Share | None = Field(default=None, description="Jaccard similarity at which bands and rows are chosen.")
    bands: PositiveCount | None = Field(default=None, description="Bands of a signature, in place of a threshold.")
    rows: PositiveCount | None = Field(default=None, description="Hashes in a band, in place of a threshold.")
    verify: Share | None = Field(
        default=None, description="Least Jaccard similarity of the texts themselves; null: no check."
    )
    cluster: Literal["star", "components"] = Field(
        default="star", description="Duplicates of the kept document only, or also duplicates of duplicates."
    )
    max_cluster: PositiveCount | None = Field(
        default=None, description="Clusters above this many documents stop the run."
    )
    min_words: Count = Field(
        default=0,
        description="Paragraphs of fewer words are never dropped; substring: fewer words left by a cut go too.",
    )
    group: Annotated[
        Annotated[Amount, AmountIn("shards")] | None,
        BeforeValidator(_group),
        WithJsonSchema({"type": ["string", "null"]}),
    ] = Field(
        default=None,
        description="keep-none: compared in groups of so many shards (CCNet: 50), or `all`.",
    )
    false_positives: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="keep-first: share of wrong drops that its Bloom filter may cause; null: exact."
    )
    keep: tuple[KeepRule, ...] = Field(
        default=(), description="Which of several duplicates stays, such as [{source: a}, longest]; ties by place."
    )
    index: Index | None = Field(default=None, description="{against: [NAME@1], publish: NAME}: indexes across runs.")

    @model_validator(mode="after")
    def _fits_preset(self, info: Any) -> Self:
        defaults = self.option_defaults() if not (info.context or {}).get("defaults") else {}
        wrong: list[tuple[tuple[str | int, ...], Any, str]] = [
            (
                (key,),
                _as_written(getattr(self, key)),
                f"counts for {' and '.join(kinds)} only, and this is {self.preset}",
            )
            for key, kinds in self.only.items()
            if defaults and self.preset not in kinds and getattr(self, key) != defaults[key]
        ]
        if (self.bands is None) != (self.rows is None):
            wrong.append((("bands",), self.bands, "bands and rows go together, such as bands: 14, rows: 8"))
        if self.bands is not None and self.threshold is not None:
            wrong.append((("threshold",), self.threshold, "write a threshold or bands and rows, not both"))
        wrong += self._edits()
        if wrong:
            refuse(*wrong)
        return self

    def _edits(self) -> list[tuple[tuple[str | int, ...], Any, str]]:
        """What only goes with presets that drop whole documents."""
        wrong: list[tuple[tuple[str | int, ...], Any, str]] = []
        if str(self.preset).startswith("paragraphs") and self.normalize not in ("raw", "ccnet"):
            wrong.append((("normalize",), self.normalize, "paragraphs are compared raw (their bytes) or as ccnet does"))
        if self.preset in ("paragraphs_keep_first", "substring"):
            wrong += [
                (("keep", rank), rule.entry(), "pieces of documents are preferred by {source: PATTERN} only")
                for rank, rule in enumerate(self.keep)
                if rule.by != "source"
            ]
        if self.preset == "substring":
            if self.normalize == "ccnet":
                wrong.append((("normalize",), self.normalize, "a normalisation of lines; write raw or words"))
            elif self.normalize != "raw" and self.shingle is not None and self.shingle.characters is not None:
                wrong.append((("normalize",), self.normalize, "spans of characters are compared raw; use {words: n}"))
            if self.shingle is not None and 1 in (self.shingle.words, self.shingle.characters):
                wrong.append((("shingle",), 1, "a span needs two units or more"))
        return wrong
