"""The recipe's `sources` and `steps`: what to read and how to judge it. Standard library and pydantic only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from curation.amounts import Amount
from curation.fields import (
    Bytes,
    Name,
    Section,
    Share,
    Sql,
    Words,
    did_you_mean,
    file_path,
    looks_like_path,
    one_of,
    or_else,
    refuse,
)
from curation.global_step_config import Buckets, Dedup, Index, KeepRule, LanguageModel, Perplexity, Pieces, Shingle
from curation.language_codes import declared_code
from curation.step_config import (
    Classify,
    Clean,
    Decontaminate,
    Excerpt,
    Extract,
    Language,
    Lines,
    Measure,
    Pii,
    Rules,
    Step,
)

__all__ = [
    "BUCKETED_FORMATS",
    "COLUMN_FORMATS",
    "FORMATS",
    "LATER_FORMATS",
    "TOKEN_FORMATS",
    "STEP_KINDS",
    "AnyStep",
    "Buckets",
    "Bytes",
    "Classify",
    "Clean",
    "Decontaminate",
    "Dedup",
    "Excerpt",
    "Extract",
    "Index",
    "KeepRule",
    "Language",
    "LanguageModel",
    "Lines",
    "Measure",
    "Name",
    "Perplexity",
    "Pieces",
    "Pii",
    "Rules",
    "Shingle",
    "Source",
    "Step",
    "WordRules",
]

FORMATS = ("csv", "json", "jsonl", "parquet", "text")
LATER_FORMATS = ("hf", "redpajama-v2", "warc", "wet")
# Ready token shards: never curated, one tokenizer wrote them.
TOKEN_FORMATS = ("datasets", "ds", "litdata", "megatron", "tokens")
# Those that may hold columns beside the tokens, to split and to sort by.
COLUMN_FORMATS = ("datasets", "tokens")
# Formats that bring a perplexity bucket of their own.
BUCKETED_FORMATS = ("redpajama-v2",)


def _format(word: str) -> str:
    return one_of(word, FORMATS + TOKEN_FORMATS + LATER_FORMATS, "format")


LanguageCode = Annotated[str, AfterValidator(declared_code)]
LanguageCodes = Annotated[
    tuple[LanguageCode, ...],
    BeforeValidator(lambda v: (v,) if isinstance(v, str) else v),
    or_else({"type": "string"}, {"type": "array", "items": {"type": "string"}}),
]


def _han(value: object) -> str:
    """`characters`, `jieba` or the path of a dictionary."""
    if isinstance(value, str) and not looks_like_path(value):
        return one_of(value, ("characters", "jieba"), "way to cut Han text (a path has a / or a suffix)")
    return file_path(value)


class WordRules(Section):
    """What a word is, for all signals of words of documents."""

    han: Annotated[str, PlainValidator(_han), WithJsonSchema({"type": "string"})] = Field(
        default="characters",
        validate_default=False,
        description="Words of Han text. characters: each letter is one; jieba: those of the dictionary that the "
        "package jieba ships (pip install jieba); or a dictionary's file of lines `word frequency [tag]`.",
    )


class Source(Section):
    """Where text of one origin comes from; its name becomes a domain."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset({"broken", "steps", "path"})

    path: Words = Field(
        min_length=1,
        description="File, folder or glob below execution.raw, a URL, or catalogue:NAME (text that `gristmill fetch` "
        "brings or makes); one or several.",
    )
    format: Annotated[str, AfterValidator(_format)] | None = Field(
        default=None,
        description="How shards are read; default: by the suffix, which is one for all shards of a source. One of "
        f"{', '.join(FORMATS + TOKEN_FORMATS + LATER_FORMATS)}. datasets, ds, litdata, megatron and tokens are ready "
        "token shards, written by the recipe's tokenizer; no step looks at them. A file of json is a list of records, "
        "one record (an object with a text), or one object of id -> text or id -> record.",
    )
    fields: dict[Literal["text", "id", "url", "date", "licence", "tokens"], str] = Field(
        default_factory=dict,
        description="Column of the file for text, id, url, date, licence; of ready tokens for tokens, licence. "
        "Default: the format's.",
    )
    language: LanguageCodes = Field(
        min_length=1,
        description="Declared language code or codes; the step `language` enforces it, presets go by it.",
    )
    licence: str = Field(default="unknown", description="Licence of the text, carried to the token shards.")
    where: Sql | None = Field(
        default=None, description="SQL on what the source brings: rows where it is true are read, null is not."
    )
    sample: Share = Field(
        default=1.0, description="Share of rows to read, chosen by content hash; smaller samples are nested."
    )
    broken: Share = Field(
        default=0.0,
        description="Share of shards that may be set aside unreadable; above it the run stops. It also stops "
        "where more than 95% of the rows cannot be read, unless this share allows more.",
    )
    max_document: Bytes = Field(
        default=Amount(64 << 20, "bytes"),
        description="Longest record; longer ones are a row with a reason, never in memory.",
    )
    steps: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="This source's own values of a step below, by the step's name."
    )


STEP_KINDS: dict[str, type[Step]] = {
    "extract": Extract, "clean": Clean, "lines": Lines, "language": Language, "rules": Rules, "measure": Measure,
    "perplexity": Perplexity, "dedup": Dedup, "decontaminate": Decontaminate, "pii": Pii, "classify": Classify,
}  # fmt: skip


def _entry(value: object) -> object:
    """`- KIND: preset` or `- KIND: {options}` as options with their kind."""
    if isinstance(value, Step):
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping):
        raise ValueError("a step is written - KIND: preset, or - KIND: {options}")
    kinds = [key for key in value if key in STEP_KINDS]
    if len(value) != 1:
        fix = f"indent its options below {kinds[0]}:" if len(kinds) == 1 else "write each as - KIND: {options}"
        raise ValueError(f"a step is one kind with its options, this has {len(value)} keys; {fix}")
    ((kind, options),) = value.items()
    if kind not in STEP_KINDS:
        refuse(((), kind, f"unknown kind of step{did_you_mean(kind, STEP_KINDS)}"))
    if isinstance(options, str):
        options = {"preset": options}
    if options is not None and not isinstance(options, Mapping):
        refuse(((kind,), options, f"write - {kind}: preset, or - {kind}: {{options}}"))
    given = dict(options or {})
    if "kind" in given:
        refuse(((kind, "kind"), given["kind"], "unknown key"))
    return {"kind": kind, **given}


def _kind_of(value: Any) -> str:
    return value.kind if isinstance(value, Step) else value["kind"]


AnyStep = Annotated[
    Annotated[Extract, Tag("extract")]
    | Annotated[Clean, Tag("clean")]
    | Annotated[Lines, Tag("lines")]
    | Annotated[Language, Tag("language")]
    | Annotated[Rules, Tag("rules")]
    | Annotated[Measure, Tag("measure")]
    | Annotated[Perplexity, Tag("perplexity")]
    | Annotated[Dedup, Tag("dedup")]
    | Annotated[Decontaminate, Tag("decontaminate")]
    | Annotated[Pii, Tag("pii")]
    | Annotated[Classify, Tag("classify")],
    Discriminator(_kind_of),
    BeforeValidator(_entry),
]
