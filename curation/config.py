"""The recipe's `sources` and `steps`: what to read and how to judge it. Standard library and pydantic only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from curation.amounts import Amount
from curation.fields import (
    Count,
    Direction,
    Flag,
    Patterns,
    PositiveCount,
    RecipePath,
    Section,
    Share,
    Sql,
    Words,
    amount_of,
    did_you_mean,
    looks_like_path,
    one_of,
    refuse,
)

FORMATS = ("csv", "json", "jsonl", "parquet", "text")
LATER_FORMATS = ("ds", "hf", "megatron", "redpajama-v2", "tokens", "warc", "wet")
# Formats that bring a perplexity bucket of their own.
BUCKETED_FORMATS = ("redpajama-v2",)
# Three-letter and English names that people write for the codes our thresholds go by.
_LANGUAGE_SLIPS = {
    "deu": "de", "ger": "de", "german": "de", "deutsch": "de", "eng": "en", "english": "en", "zho": "zh", "chi": "zh",
    "cmn": "zh", "chinese": "zh", "zh-cn": "zh", "fra": "fr", "fre": "fr", "french": "fr", "spa": "es", "spanish": "es",
    "ita": "it", "italian": "it", "python": "code", "jpn": "ja", "japanese": "ja", "rus": "ru", "russian": "ru",
}  # fmt: skip


def _language(code: str) -> str:
    """A language code such as `de`, `zh`, or `code` for program text."""
    if not re.fullmatch(r"[a-z]{2,3}|code", code) or code in _LANGUAGE_SLIPS:
        meant = _LANGUAGE_SLIPS.get(code.lower()) or _LANGUAGE_SLIPS.get(code.lower().split("_")[0].split("-")[0])
        fix = f"; did you mean {meant}?" if meant else "; write a two-letter code such as de, zh, en, or code"
        raise ValueError(f"not a language code{fix}")
    return code


def _format(word: str) -> str:
    return one_of(word, FORMATS + LATER_FORMATS, "format")


def _name(name: str) -> str:
    """A name that can stand in a pattern, a column and a file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a name is letters, digits, _ and -; did you mean {re.sub('[^A-Za-z0-9_-]+', '_', name)}?")
    return name


Name = Annotated[str, AfterValidator(_name)]
LanguageCode = Annotated[str, AfterValidator(_language)]
LanguageCodes = Annotated[tuple[LanguageCode, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]
Bytes = amount_of("bytes")
OptionValue = bool | int | float | str | list[str] | None


class Source(Section):
    """Where text of one origin comes from; its name becomes a domain."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset({"broken", "steps", "path"})

    path: Words = Field(
        min_length=1,
        description="File, folder or glob below execution.raw, a URL, or catalogue:NAME (text that `gristmill fetch` "
        "brings or makes); one or several.",
    )
    format: Annotated[str, AfterValidator(_format)] | None = Field(
        None,
        description=f"How shards are read; told by the suffix where absent. One of {', '.join(FORMATS + LATER_FORMATS)}.",
    )
    fields: dict[Literal["text", "id", "url", "date", "licence"], str] = Field(
        default_factory=dict, description="Column of the file for text, id, url, date, licence; default: the format's."
    )
    language: LanguageCodes = Field(
        min_length=1,
        description="Declared language code or codes; the step `language` enforces it, presets choose thresholds by it.",
    )
    licence: str = Field("unknown", description="Licence of the text, carried to the token shards.")
    where: Sql | None = Field(
        None, description="SQL on what the source brings: rows where it is true are read, null is not."
    )
    sample: Share = Field(1.0, description="Share of rows to read, chosen by content hash; smaller samples are nested.")
    broken: Share = Field(0.0, description="Share of shards that may be set aside unreadable; above it the run stops.")
    max_document: Bytes = Field(
        Amount(64 << 20, "bytes"), description="Longest record; longer ones are a row with a reason, never in memory."
    )
    steps: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="This source's own values of a step below, by the step's name."
    )


class Step(Section):
    """What all kinds of step share."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset({"sources", "max_drop"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Where thresholds of the preset may be written beside the kind's own options.
    takes_thresholds: ClassVar[bool] = False

    kind: str
    preset: str | None = Field(None, description="Named set of values; the keys beside it change them.")
    name: Name = Field("", description="Unique name; default: the preset or the kind. It names columns and reasons.")
    sources: Patterns = Field(("*",), min_length=1, description="Sources the step is applied to: names or patterns.")
    on: Literal["all", "survivors"] = Field(
        "all", description="Rows it looks at: all, or only those that no earlier step dropped."
    )
    max_drop: Share = Field(0.95, description="Share of its rows it may drop before the run stops and asks.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """A word is the step's preset."""
        return {"preset": word}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fill in the preset's values and the default name."""
        kind = cls.model_fields["kind"].default
        preset = mapping.get("preset", cls.model_fields["preset"].default)
        if cls.presets and preset is not None and not (isinstance(preset, str) and preset in cls.presets):
            refuse((("preset",), preset, f"unknown preset of {kind}{did_you_mean(preset, cls.presets)}"))
        values = cls.presets.get(preset, {})
        return {**_without(values, mapping), "name": mapping.get("preset") or kind, **mapping}

    @classmethod
    def unknown_key(cls, key: object) -> str:
        """Name the kind, and answer `- KIND:` options that other kinds have."""
        keys = [known for known in cls.known_keys() if known != "kind"]
        others = [kind for kind, step in STEP_KINDS.items() if key in step.known_keys() and step is not cls]
        hint = did_you_mean(key, keys, limit=20)
        if others and "mean" not in hint:
            hint = f"; it is an option of {', '.join(others)}{hint}"
        return f"unknown option of {cls.model_fields['kind'].default}{hint}"

    def option_defaults(self) -> Mapping[str, object]:
        """Values when only the preset is named. The name and the preset always count: they are what was chosen."""
        return {key: value for key, value in _preset_defaults(type(self), self.preset).items() if key != "name"}

    @property
    def prefix(self) -> str:
        """What the step's signals begin with: its name where the recipe gives it one, else nothing."""
        return "" if self.name in (self.preset, self.kind) else f"{self.name}_"

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The step with some options changed, validated again; its name, preset and sources stay."""
        current = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        return type(self).model_validate({**_without(current, options), **self.thresholds(), **options})

    def thresholds(self) -> dict[str, Any]:
        """The preset's options that the recipe writes beside the kind's own."""
        return dict(self.model_extra or {})

    def options_that_count(
        self,
        content_hash: Callable[[str], str] | None = None,
        preset_options: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """As for every section; a threshold equal to `preset_options` (the preset's own value) is absent too."""
        options = super().options_that_count(content_hash)
        same = [key for key in self.thresholds() if key in (preset_options or {})]
        return {
            key: value for key, value in options.items() if key not in same or value != (preset_options or {})[key]
        } | {key: value for key, value in (("kind", self.kind), ("preset", self.preset)) if value is not None}


def _without(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values, less those that a given option takes the place of: a threshold, or bands with rows."""
    rivals = ({"threshold"}, {"bands", "rows"})
    gone = {key for mine, other in (rivals, rivals[::-1]) if mine & given.keys() for key in other}
    return {key: value for key, value in values.items() if key not in gone}


@cache
def _preset_defaults(kind: type[Step], preset: str | None) -> dict[str, object]:
    """Every option's value where a step says its preset and nothing else."""
    word = {} if preset is None else {"preset": preset}
    return dict(kind.model_validate({"kind": kind.model_fields["kind"].default, **word}, context={"defaults": True}))


_ON_SURVIVORS = Field("survivors", description="Text edits and global steps look at survivors by default.")


class Extract(Step):
    """Text out of HTML (comes later)."""

    presets = {"trafilatura": {}}
    kind: Literal["extract"] = "extract"
    preset: str | None = Field("trafilatura", description="The extractor.")
    on: Literal["all", "survivors"] = _ON_SURVIVORS


class Clean(Step):
    """Edit characters: encoding repair, Unicode form, whitespace."""

    presets = {"web": {}, "plain": {"repair": False, "whitespace": False}}
    kind: Literal["clean"] = "clean"
    preset: str | None = Field("web", description="web: all of it; plain: the Unicode form only.")
    on: Literal["all", "survivors"] = _ON_SURVIVORS
    repair: Flag = Field(True, description="Undo wrongly decoded UTF-8 (Ã¼ -> ü) and control characters.")
    unicode: Literal["NFC", "NFKC"] | None = Field("NFC", description="Unicode normal form, or null for none.")
    whitespace: Flag = Field(True, description="Trim lines, and make runs of blanks and of empty lines one.")


class Lines(Step):
    """Drop single lines or paragraphs by rules."""

    takes_thresholds = True
    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, OptionValue]
    kind: Literal["lines"] = "lines"
    on: Literal["all", "survivors"] = _ON_SURVIVORS
    drop: dict[Name, Sql] = Field(
        default_factory=dict, description="Reason -> SQL; a line where it is true is dropped."
    )
    unit: Literal["line", "paragraph"] = Field("line", description="What is judged and dropped.")
    tokenizer: RecipePath | None = Field(None, description="Tokenizer that `tokens_per_word` counts with.")


class Excerpt(Section):
    """Which part of a long document is looked at."""

    pieces: PositiveCount = Field(3, description="Number of pieces, evenly spread.")
    characters: PositiveCount = Field(2000, description="Characters of each piece.")


def _lid_model(value: object) -> object:
    """A model file, or the word lid176."""
    from curation.fields import file_path

    if isinstance(value, str) and not looks_like_path(value):
        return one_of(value, ("lid176",), "model (a path has a / or a suffix)")
    return file_path(value)


def _scores(value: object) -> object:
    """A share, or a share for each language code, where "*" stands for the others."""
    return value if isinstance(value, Mapping) else {"*": value}


class Language(Step):
    """Measure the language of each document and drop what is not the declared one."""

    kind: Literal["language"] = "language"
    model: Annotated[RecipePath, BeforeValidator(_lid_model)] = Field(
        "lid176", validate_default=False, description="fastText identification model: lid176 (installed) or a path."
    )
    min_score: Annotated[dict[str, Share], BeforeValidator(_scores)] = Field(
        {"*": 0.65}, description='Least probability of the declared language; one share, or {CODE: share, "*": share}.'
    )
    excerpt: Excerpt | None = Field(None, description="Look at some pieces of long documents only; null: all of it.")


class Rules(Step):
    """Drop documents by conditions on signals."""

    takes_thresholds = True
    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, OptionValue]
    kind: Literal["rules"] = "rules"
    drop: dict[Name, Sql] = Field(
        default_factory=dict, description="Reason -> SQL on signals; a row where it is true is dropped, null keeps it."
    )


class Measure(Step):
    """Measure signals that no rule asks for."""

    kind: Literal["measure"] = "measure"
    signals: Words = Field((), description="Names of signals.")
    per_line: Flag = Field(False, description="Keep the value of each line beside the document's.")

    @model_validator(mode="after")
    def _signals_named(self, info: Any) -> Self:
        if not self.signals and not (info.context or {}).get("defaults"):
            refuse((("signals",), [], "name at least one signal"))
        return self


class LanguageModel(Section):
    """A Kneser-Ney language model trained from sources of this recipe, one for each language."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset()

    train_on: Patterns = Field(min_length=1, description="Sources whose text it is trained on.")
    order: Annotated[int, Field(strict=True, ge=1, le=8)] = Field(5, description="Longest n-gram.")
    prune: tuple[Count, ...] = Field(
        (),
        description="n-grams seen at most so often are dropped, by order from 1; the last number holds for the rest.",
    )
    with_: Literal["own", "lmplz"] = Field("own", alias="with", description="Our trainer, or KenLM's lmplz binary.")


class Pieces(Section):
    """What the language model counts: SentencePiece pieces, the recipe's tokens, or words."""

    preset_words = ("tokenizer", "words")
    unigram: PositiveCount | None = Field(None, description="Size of a SentencePiece unigram vocabulary.")
    unit: Literal["unigram", "tokenizer", "words"] = Field("unigram", description="Follows from the word or the key.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`tokenizer` or `words`."""
        return {"unit": one_of(word, cls.preset_words, "pieces")}


class Buckets(Section):
    """Where head, middle and tail are cut by perplexity."""

    preset_words = ("ccnet",)
    cutoffs: Literal["ccnet"] | None = Field(None, description="CCNet's published cutoffs; the word ccnet.")
    values: tuple[float, ...] | None = Field(None, description="Perplexities to cut at, rising.")
    shares: tuple[Share, ...] | None = Field(None, description="Shares of documents below each cut, rising.")
    of: str = Field("run", description="What the shares are of: run, a path (a reference), or a source pattern.")
    by: Literal["language", "source"] = Field("language", description="Cut for each language or for each source.")

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
        return self


def _language_model(value: object) -> object:
    """A path, or how to train one."""
    from curation.fields import file_path

    return file_path(value) if isinstance(value, str) else value


def _word_or_mapping(value: object) -> str:
    return "word" if isinstance(value, str) else "mapping"


class Perplexity(Step):
    """Perplexity under a language model, and the bucket it falls into; one model for each language."""

    presets = {
        "ccnet": {"pieces": {"unigram": 65536}, "scoring": "ccnet", "buckets": "ccnet"},
        "sound": {"pieces": {"unigram": 65536}, "scoring": "lines", "buckets": {"shares": (0.3, 0.6), "of": "run"}},
    }
    kind: Literal["perplexity"] = "perplexity"
    preset: str | None = Field("ccnet", description="ccnet: comparable with CCNet's numbers; sound: line by line.")
    model: (
        Annotated[
            Annotated[RecipePath, Tag("word")] | Annotated[LanguageModel, Tag("mapping")],
            Discriminator(_word_or_mapping),
        ]
        | None
    ) = Field(None, description="Folder or file of a model (with its pieces), or {train_on, order, prune, with}.")
    pieces: Pieces = Field(Pieces(unigram=65536), description="{unigram: size}, tokenizer or words.")
    scoring: Literal["ccnet", "lines"] = Field(
        "ccnet", description="The document as one line (CCNet), or line by line."
    )
    buckets: Buckets = Field(Buckets(cutoffs="ccnet"), description="ccnet, {values: [..]} or {shares: [..], of, by}.")

    @model_validator(mode="after")
    def _model_named(self, info: Any) -> Self:
        if self.model is None and not (info.context or {}).get("defaults"):
            refuse((("model",), None, "missing: a path, or {train_on: [SOURCE], order: 5}"))
        return self


class Shingle(Section):
    """What is compared: runs of words or of characters."""

    words: PositiveCount | None = Field(None, description="Words in a shingle.")
    characters: PositiveCount | None = Field(None, description="Characters in a shingle.")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.words is None) == (self.characters is None):
            raise ValueError("write {words: n} or {characters: n}")
        return self


class KeepRule(Section):
    """One preference among duplicates: by source, by age, by length or by a signal."""

    preset_words = ("newest", "longest")
    by: Literal["source", "newest", "longest", "signal"] = Field(description="What is compared.")
    name: str | None = Field(None, description="Source pattern or signal.")
    direction: Direction = Field("desc", description="desc: the larger signal is kept.")

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """`newest` or `longest`."""
        return {"by": one_of(word, cls.preset_words, "preference (or write {source: PATTERN} or {SIGNAL: desc})")}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{source: pattern}` or `{SIGNAL: asc | desc}`."""
        if "by" in mapping:
            return mapping
        if len(mapping) != 1:
            raise ValueError("one preference in each list entry: {source: PATTERN}, newest, longest or {SIGNAL: desc}")
        ((key, value),) = mapping.items()
        if key == "source":
            return {"by": "source", "name": value}
        if value not in ("asc", "desc"):
            raise ValueError(f"{key}: asc or desc is wanted; did you mean {{source: {key}}}?")
        return {"by": "signal", "name": key, "direction": value}

    @classmethod
    def known_keys(cls) -> list[str]:
        """Any signal may be the key."""
        return _AnyKey()


class _AnyKey(list[str]):
    """A list of keys that holds every key."""

    def __contains__(self, key: object) -> bool:
        return True


def _group(value: object) -> object:
    return None if value == "all" else value


def _published(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*@[0-9]+", name):
        raise ValueError(f"an index is NAME@VERSION; did you mean {name.split('@')[0]}@1?")
    return name


class Index(Section):
    """Duplicate indexes of other runs."""

    against: tuple[Annotated[str, AfterValidator(_published)], ...] = Field((), description="Indexes to drop against.")
    publish: Name | None = Field(None, description="Name to publish this run's signatures under.")


class Dedup(Step):
    """Drop duplicates: documents, paragraphs, near-duplicates or substrings."""

    presets = {
        "exact": {"normalize": "raw"},
        "paragraphs_keep_first": {"normalize": "numbers"},
        "paragraphs_keep_none": {"normalize": "numbers"},
        "minhash": {"normalize": "words", "shingle": {"words": 5}, "bands": 14, "rows": 8},
        "substring": {"normalize": "raw"},
    }
    only: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "shingle": ("minhash",), "threshold": ("minhash",), "bands": ("minhash",), "rows": ("minhash",),
        "verify": ("minhash",), "cluster": ("minhash",), "max_cluster": ("minhash",),
        "min_words": ("paragraphs_keep_first", "paragraphs_keep_none"), "group": ("paragraphs_keep_none",),
        "false_positives": ("exact", "paragraphs_keep_first", "paragraphs_keep_none"),
        "keep": ("exact", "paragraphs_keep_first", "minhash"), "index": ("exact", "minhash"),
    }  # fmt: skip
    kind: Literal["dedup"] = "dedup"
    preset: str | None = Field("minhash", description="What counts as a duplicate.")
    on: Literal["all", "survivors"] = _ON_SURVIVORS
    normalize: Literal["raw", "words", "numbers", "base"] = Field(
        "words", description="Text as it is, folded to words, with digits alike, or without marks too; by the preset."
    )
    shingle: Shingle | None = Field(None, description="{words: n} or {characters: n}; by the preset.")
    threshold: Share | None = Field(None, description="Jaccard similarity at which bands and rows are chosen.")
    bands: PositiveCount | None = Field(None, description="Bands of a signature, in place of a threshold.")
    rows: PositiveCount | None = Field(None, description="Hashes in a band, in place of a threshold.")
    verify: Share | None = Field(None, description="Least Jaccard similarity of the texts themselves; null: no check.")
    cluster: Literal["star", "components"] = Field(
        "star", description="Duplicates of the kept document only, or also duplicates of duplicates."
    )
    max_cluster: PositiveCount | None = Field(None, description="Clusters above this many documents stop the run.")
    min_words: Count = Field(0, description="Paragraphs of fewer words are never dropped.")
    group: Annotated[amount_of("shards") | None, BeforeValidator(_group)] = Field(
        None, description="keep-none: paragraphs are compared inside groups of so many shards, or `all`."
    )
    false_positives: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of wrong drops that a Bloom filter may cause; null: exact."
    )
    keep: tuple[KeepRule, ...] = Field(
        (), description="Which of several duplicates stays; ties by (source, shard, row)."
    )
    index: Index | None = Field(None, description="{against: [NAME@1], publish: NAME}: indexes across runs.")

    @model_validator(mode="after")
    def _fits_preset(self, info: Any) -> Self:
        defaults = self.option_defaults() if not (info.context or {}).get("defaults") else {}
        wrong = [
            ((key,), getattr(self, key), f"counts for {' and '.join(kinds)} only, and this is {self.preset}")
            for key, kinds in self.only.items()
            if defaults and self.preset not in kinds and getattr(self, key) != defaults[key]
        ]
        if (self.bands is None) != (self.rows is None):
            wrong.append((("bands",), self.bands, "bands and rows go together, such as bands: 14, rows: 8"))
        if self.bands is not None and self.threshold is not None:
            wrong.append((("threshold",), self.threshold, "write a threshold or bands and rows, not both"))
        if wrong:
            refuse(*wrong)
        return self


class Decontaminate(Step):
    """Drop or cut what stands in evaluation texts (comes later)."""

    kind: Literal["decontaminate"] = "decontaminate"
    on: Literal["all", "survivors"] = _ON_SURVIVORS
    against: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = Field(
        (), description="Files, globs or sources that hold evaluation texts."
    )
    ngram: PositiveCount = Field(13, description="Words in a row that count as a match.")
    cut: Literal["document", "span"] = Field("document", description="Drop the document, or cut the span.")


class Pii(Step):
    """Mask personal data (comes later)."""

    kind: Literal["pii"] = "pii"
    on: Literal["all", "survivors"] = _ON_SURVIVORS


class Classify(Step):
    """Scores of a classifier as signals (comes later)."""

    kind: Literal["classify"] = "classify"
    model: RecipePath | None = Field(None, description="fastText classifier.")


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
        fix = f"indent its options below {kinds[0]}:" if len(kinds) == 1 else "begin each step with its own dash"
        raise ValueError(f"a step is one kind with its options, this has {len(value)} keys; {fix}")
    ((kind, options),) = value.items()
    if kind not in STEP_KINDS:
        refuse(((kind,), options, f"unknown kind of step{did_you_mean(kind, STEP_KINDS)}"))
    if isinstance(options, str):
        options = {"preset": options}
    if options is not None and not isinstance(options, Mapping):
        refuse(((kind,), options, f"write - {kind}: preset, or - {kind}: {{options}}"))
    if "kind" in (options or {}):
        refuse(((kind, "kind"), options["kind"], "unknown key"))
    return {"kind": kind, **(options or {})}


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
