"""What the recipe's sections are made of: the frozen section and the types of its fields.

A section is a pydantic model that refuses unknown keys with "did you mean", takes a word where a mapping may stand
(its preset), and knows which of its options count for artifact keys. Only the standard library and pydantic.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from curation.amounts import Amount, Unit, amount

Problem = tuple[tuple[str | int, ...], object, str]


def did_you_mean(word: object, known: Iterable[str], *, limit: int = 12) -> str:
    """`; did you mean X?` for a near miss, else the known words (at most `limit`), else nothing."""
    names = sorted(known)
    folded = {name.lower().replace("-", "_"): name for name in names}
    near = difflib.get_close_matches(str(word).lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {folded[near[0]]}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= limit else ""


def refuse(*problems: Problem) -> NoReturn:
    """Raise one validation error for several problems, each (path below this section, value, reason)."""
    raise ValidationError.from_exception_data("recipe", [_line_error(*problem) for problem in problems])


def _line_error(path: tuple[str | int, ...], value: object, reason: str, kind: str = "gristmill") -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{reason}", {"reason": reason}), loc=path, input=value)


class Section(BaseModel):
    """A mapping of the recipe: frozen, unknown keys refused, a word where its preset may stand."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # Options that change no result and so never enter an artifact key.
    not_in_keys: ClassVar[frozenset[str]] = frozenset()
    # Words that may stand for the whole mapping (for the documents and editors).
    preset_words: ClassVar[tuple[str, ...]] = ()
    # Keys a recipe must give where that differs from the fields: presets fill in others.
    required_keys: ClassVar[tuple[str, ...] | None] = None
    # How the mapping is written, for editors, where its keys are free.
    written_schema: ClassVar[Mapping[str, Any] | None] = None

    @classmethod
    def from_word(cls, word: str) -> Mapping[str, Any]:
        """The mapping a word stands for; sections that take a word override it."""
        keys = ", ".join(cls.known_keys()[:4])
        raise ValueError(f"a mapping is wanted, such as {{{keys}: …}}")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sections whose preset fills in values override it."""
        return mapping

    @classmethod
    def known_keys(cls) -> list[str]:
        """The keys this section has in a recipe."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: Callable[[Any], Self]) -> Self:
        """Word to mapping, preset values below the given ones; unknown keys are reported beside all other errors."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = cls.from_word(value)
        if not isinstance(value, Mapping):
            kind = "nothing" if value is None else "a list" if isinstance(value, list | tuple) else "a value"
            raise ValueError(f"a mapping is wanted here, not {kind}")
        unknown = [key for key in value if key not in cls.known_keys() and cls.model_config.get("extra") != "allow"]
        problems = [_line_error((key,), value[key], cls.unknown_key(key), "unknown_key") for key in unknown]
        known = {key: value[key] for key in value if key not in unknown}
        try:
            section = handler(cls.from_mapping(known))
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, problems + _kept(error)) from None
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return section

    @classmethod
    def unknown_key(cls, key: object) -> str:
        """Why a key is refused, with the nearest known one."""
        return f"unknown key{did_you_mean(key, cls.known_keys(), limit=30)}"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Let editors offer the words that may stand for the mapping."""
        written = handler(schema)
        shape = handler.resolve_ref_schema(written)
        if cls.required_keys is not None:
            shape["required"] = list(cls.required_keys)
        if cls.written_schema is not None:
            for key in list(shape):
                del shape[key]
            shape.update(cls.written_schema)
        if not cls.preset_words or cls.written_schema is not None:
            return written
        return {"anyOf": [{"type": "string", "examples": list(cls.preset_words)}, written]}

    def option_defaults(self) -> Mapping[str, object]:
        """The value of each option when the recipe does not say it; sections with presets override it."""
        return {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}

    def options_that_count(self, content_hash: Callable[[str], str] | None = None) -> dict[str, Any]:
        """Options that change the result and differ from their default, as plain JSON values for an artifact key.

        An option equal to its default is absent, so that a new option hashes like its absence. Files count by
        `content_hash(path)`, or are absent without it: where a file lies never enters a key.
        """
        defaults, options = self.option_defaults(), dict(self)
        return {
            name: counted
            for name, value in sorted(options.items())
            if name not in self.not_in_keys and value != defaults.get(name)
            if (counted := _plain(value, content_hash)) is not _ABSENT
        }


def _kept(error: ValidationError) -> list[InitErrorDetails]:
    """The errors of a nested validation, to be raised again beside others."""
    lines = []
    for line in error.errors(include_url=False):
        context = {"reason": line["msg"].removeprefix("Value error, "), **line.get("ctx", {})}
        custom = PydanticCustomError(line["type"], "{reason}", context)
        lines.append(InitErrorDetails(type=custom, loc=line["loc"], input=line["input"]))
    return lines


_ABSENT = object()  # a file, where no content is asked for


def _plain(value: object, content_hash: Callable[[str], str] | None) -> Any:
    """A JSON value for an artifact key; amounts by number and unit, files by content."""
    if isinstance(value, Section):
        return value.options_that_count(content_hash)
    if isinstance(value, Amount):
        return [value.number, value.unit]
    if isinstance(value, FilePath):
        return content_hash(value) if content_hash else _ABSENT
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key], content_hash) for key in sorted(value)}
    if isinstance(value, list | tuple):
        plain = [_plain(element, content_hash) for element in value]
        return [element for element in plain if element is not _ABSENT]
    return value


class AnyKey(list[str]):
    """The known keys of a mapping whose keys are free, such as patterns."""

    def __contains__(self, key: object) -> bool:
        """Every key is known."""
        return True


class FilePath(str):
    """A path that the recipe names, absolute or a URL once a recipe was loaded from a file."""


class WrittenText(str):
    """Text as a recipe's file writes it; `folder` is that file's folder, which relative paths start from."""

    folder: str = ""


def looks_like_path(word: str) -> bool:
    """Whether a word that could also be a name is a path: it has a slash, a suffix or a leading dot or tilde."""
    return "/" in word or word.startswith(("~", ".")) or bool(posixpath.splitext(word)[1])


def file_path(value: object) -> FilePath:
    """A path relative to the file that names it; URLs and absolute paths stay."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a path is wanted")
    if isinstance(value, FilePath) or "://" in value:
        return FilePath(value)
    path = Path(value).expanduser()
    folder = getattr(value, "folder", "")
    return FilePath(posixpath.normpath((Path(folder) / path).as_posix()) if folder else path.as_posix())


def one_of(word: object, known: Iterable[str], what: str) -> str:
    """A word out of `known`, or an error with the nearest one."""
    names = tuple(known)
    if isinstance(word, str) and word in names:
        return str(word)
    raise ValueError(f"unknown {what}{did_you_mean(word, names)}")


def _share(value: object) -> float:
    """A share, 0 to 1; 30 and `30%` are answered with 0.3."""
    if isinstance(value, str) and value.strip().endswith("%"):
        number = value.strip()[:-1].strip()
        meant = f"; did you mean {float(number) / 100:g}?" if number.replace(".", "", 1).isdigit() else ""
        raise ValueError(f"shares are written 0 to 1{meant}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a share is wanted: a number from 0 to 1")
    if not 0 <= value <= 1:
        meant = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise ValueError(f"a share is between 0 and 1{meant}")
    return float(value)


def _words(value: object) -> object:
    """One word where a list of words may stand."""
    return (value,) if isinstance(value, str) else value


def allowed_name(name: str) -> str:
    """The nearest name that is allowed: anything but letters, digits, _ and - becomes _."""
    return re.sub("[^A-Za-z0-9_-]+", "_", name).lstrip("_-") or "name"


def _name(name: str) -> str:
    """A name that can stand in a pattern, a column and a file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a name is letters, digits, _ and -; did you mean {allowed_name(name)}?")
    return name


def _sql(value: str) -> str:
    """Refuse what no SQL parser could read; the columns are checked when the signals are known."""
    bare = value.split("'")
    if not value.strip():
        raise ValueError('an SQL condition is wanted, such as "num_words < 50"')
    if len(bare) % 2 == 0:
        raise ValueError("a quote ' is never closed (write '' for a quote inside text)")
    outside = "".join(bare[::2])
    if outside.count("(") != outside.count(")"):
        raise ValueError("the parentheses do not pair up")
    if "==" in outside or "&&" in outside:
        raise ValueError("this is SQL: write = AND OR instead of == &&")
    return value


def or_else(other: Mapping[str, Any], usual: Mapping[str, Any]) -> WithJsonSchema:
    """For editors: a field that takes a short form beside its usual one."""
    return WithJsonSchema({"anyOf": [dict(other), dict(usual)]})


class AmountIn:
    """The unit or units that an amount field takes: `Annotated[Amount, AmountIn("tokens")]`."""

    def __init__(self, *units: Unit) -> None:
        self.units = units

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Amounts are read by `curation.amounts.amount` and written as text."""
        return core_schema.no_info_plain_validator_function(
            partial(amount, units=self.units), serialization=core_schema.to_string_ser_schema()
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """For editors: text with a unit; a bare 0 needs none."""
        examples = {"tokens": "300M", "bytes": "60 GiB", "seconds": "15 min"}
        shown = [examples.get(unit, f"20 {unit}") for unit in self.units]
        return {"anyOf": [{"type": "string", "examples": shown}, {"const": 0}]}


SHARE = {"type": "number", "minimum": 0, "maximum": 1}
Count = Annotated[int, Strict(), Field(ge=0)]
PositiveCount = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
Share = Annotated[float, BeforeValidator(_share), WithJsonSchema(SHARE)]
_ONE_OR_SEVERAL = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
Words = Annotated[tuple[str, ...], BeforeValidator(_words), _ONE_OR_SEVERAL]
Name = Annotated[str, AfterValidator(_name)]
Pattern = str
Patterns = Words
Sql = Annotated[str, AfterValidator(_sql)]
RecipePath = Annotated[
    FilePath,
    PlainValidator(file_path),
    WithJsonSchema({"type": "string", "format": "path"}),
]
Paths = Annotated[tuple[RecipePath, ...], BeforeValidator(_words), _ONE_OR_SEVERAL]
Direction = Literal["asc", "desc"]
Bytes = Annotated[Amount, AmountIn("bytes")]
Seconds = Annotated[Amount, AmountIn("seconds")]
Tokens = Annotated[Amount, AmountIn("tokens")]
Span = Annotated[Amount, AmountIn("tokens", "train steps", "sequences")]
