"""The recipe's steps: what all kinds share, and the kinds that look at one document at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from curation.fields import (
    SHARE,
    Flag,
    Name,
    Patterns,
    PositiveCount,
    RecipePath,
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
from curation.language_codes import declared_code

MIN_SCORE = 0.65  # least probability of a declared language, as FineWeb's
OptionValue = bool | int | float | str | list[str] | None


class Step(Section):
    """What all kinds of step share."""

    not_in_keys: ClassVar[frozenset[str]] = frozenset({"sources", "max_drop"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # Where thresholds of the preset may be written beside the kind's own options.
    takes_thresholds: ClassVar[bool] = False
    # What `on` may say: a value that a kind does not follow is refused.
    looks_at: ClassVar[tuple[str, ...]] = ("all",)

    kind: str
    preset: str | None = Field(default=None, description="Named set of values; the keys beside it change them.")
    name: Name = Field(
        default="", description="Unique name; default: the preset or the kind. It names columns and reasons."
    )
    sources: Patterns = Field(
        default=("*",), min_length=1, description="Sources the step is applied to: names or patterns."
    )
    on: Literal["all", "survivors"] = Field(
        default="all", description="Rows it looks at: all, also those that an earlier step dropped."
    )
    max_drop: Share = Field(default=0.95, description="Share of its rows it may drop before the run stops and asks.")

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
        if (on := mapping.get("on")) in ("all", "survivors") and on not in cls.looks_at:
            rows = "survivors only" if cls.looks_at == SURVIVORS else "all rows, also dropped ones"
            refuse((("on",), on, f"{kind} looks at {rows}; leave `on` out"))
        values = cls.presets.get(preset, {})
        return {**_without(values, mapping), "name": mapping.get("preset") or kind, **mapping}

    @classmethod
    def unknown_key(cls, key: object) -> str:
        """Name the kind, and answer `- KIND:` options that other kinds have."""
        keys = [known for known in cls.known_keys() if known != "kind"]
        others = [kind for kind, step in _kinds() if key in step.known_keys() and step is not cls]
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


SURVIVORS = ("survivors",)
ON_SURVIVORS: Any = Field(
    default="survivors", description="Rows it looks at: survivors, those that no earlier step dropped."
)


def _kinds() -> list[tuple[str, type[Step]]]:
    """All kinds of step that have been defined."""
    return [(kind.model_fields["kind"].default, kind) for kind in Step.__subclasses__()]


class Extract(Step):
    """Text out of HTML (comes later)."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"trafilatura": {}}
    kind: Literal["extract"] = "extract"
    preset: str | None = Field(default="trafilatura", description="The extractor.")
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS


class Clean(Step):
    """Edit characters: encoding repair, Unicode form, whitespace."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"web": {}, "plain": {"repair": False, "whitespace": False}}
    kind: Literal["clean"] = "clean"
    preset: str | None = Field(default="web", description="web: all of it; plain: the Unicode form only.")
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS
    repair: Flag = Field(default=True, description="Undo wrongly decoded UTF-8 (Ã¼ -> ü) and control characters.")
    unicode: Literal["NFC", "NFKC"] | None = Field(default="NFC", description="Unicode normal form, or null for none.")
    whitespace: Flag = Field(default=True, description="Trim lines, and make runs of blanks and of empty lines one.")


def _lid_model(value: object) -> str:
    """A model file, or the word lid176."""
    if isinstance(value, str) and not looks_like_path(value):
        return one_of(value, ("lid176",), "model (a path has a / or a suffix)")
    return file_path(value)


_LanguageModel = Annotated[str, PlainValidator(_lid_model), WithJsonSchema({"type": "string"})]


class Lines(Step):
    """Drop single lines or paragraphs by rules."""

    takes_thresholds = True
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValue]
    kind: Literal["lines"] = "lines"
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS
    drop: dict[Name, Sql] = Field(
        default_factory=dict, description="Reason -> SQL; a line where it is true is dropped."
    )
    unit: Literal["line", "paragraph"] | None = Field(
        default=None, description="What is judged and dropped; null: what the preset says, else lines."
    )
    tokenizer: RecipePath | None = Field(default=None, description="Tokenizer that `tokens_per_word` counts with.")
    model: _LanguageModel = Field(
        default="lid176", validate_default=False, description="Identification model of conditions on `language`."
    )


class Excerpt(Section):
    """Which part of a long document is looked at."""

    pieces: PositiveCount = Field(default=5, description="Number of pieces, evenly spread.")
    characters: PositiveCount = Field(default=200, description="Characters of each piece.")


def _scores(value: object) -> object:
    """A share, or a share for each language code, where "*" stands for the others."""
    return {"*": MIN_SCORE} | dict(value) if isinstance(value, Mapping) else {"*": value}


def _score_code(code: str) -> str:
    return code if code == "*" else declared_code(code)


class Language(Step):
    """Measure the language of each document and drop what is not the declared one."""

    kind: Literal["language"] = "language"
    model: _LanguageModel = Field(
        default="lid176",
        validate_default=False,
        description="fastText identification model: lid176 (installed) or a path.",
    )
    min_score: Annotated[
        dict[Annotated[str, AfterValidator(_score_code)], Share],
        BeforeValidator(_scores),
        or_else(SHARE, {"type": "object"}),
    ] = Field(
        default={"*": MIN_SCORE},
        description='Least probability of the declared language; one share, or {CODE: share, "*": share}, where "*" '
        f"is {MIN_SCORE} if it is left out.",
    )
    excerpt: Excerpt | None = Field(
        default=None, description="Look at some pieces of long documents only; null: all of it."
    )


class Rules(Step):
    """Drop documents by conditions on signals."""

    takes_thresholds = True
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValue]
    kind: Literal["rules"] = "rules"
    drop: dict[Name, Sql] = Field(
        default_factory=dict, description="Reason -> SQL on signals; a row where it is true is dropped, null keeps it."
    )


class Measure(Step):
    """Measure signals that no rule asks for."""

    kind: Literal["measure"] = "measure"
    signals: Words = Field(default=(), description="Names of signals.")
    per_line: Flag = Field(
        default=False, description="Keep the value of each line beside the document's, for signals of lines."
    )
    files: dict[Name, RecipePath] = Field(
        default_factory=dict,
        description="Signal -> its file, for those that need one: lists of words or domains, weights, classifiers.",
    )

    @model_validator(mode="after")
    def _signals_named(self, info: Any) -> Self:
        if not self.signals and not self.files and not (info.context or {}).get("defaults"):
            refuse((("signals",), [], "name at least one signal"))
        return self


class Decontaminate(Step):
    """Drop or cut what stands in evaluation texts (comes later)."""

    kind: Literal["decontaminate"] = "decontaminate"
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS
    against: Words = Field(default=(), description="Files, globs or sources that hold evaluation texts.")
    ngram: PositiveCount = Field(default=13, description="Words in a row that count as a match.")
    cut: Literal["document", "span"] = Field(default="document", description="Drop the document, or cut the span.")


class Pii(Step):
    """Mask personal data (comes later)."""

    kind: Literal["pii"] = "pii"
    looks_at: ClassVar[tuple[str, ...]] = SURVIVORS
    on: Literal["all", "survivors"] = ON_SURVIVORS


class Classify(Step):
    """Scores of a classifier as signals (comes later)."""

    kind: Literal["classify"] = "classify"
    model: RecipePath | None = Field(default=None, description="fastText classifier.")
