"""The recipe's page and JSON Schema, made from its models: `python -m recipes.document` writes both.

`docs/recipe.md` lists every key with its default and what it counts; `recipes/schema.json` is for editors
(`# yaml-language-server: $schema=…`). A test fails when either is not what the models say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import PydanticUndefined

from curation.config import STEP_KINDS, Source, Step
from curation.fields import AmountIn, FilePath, Section
from mixing.config import Phase
from recipes.schema.recipe import Recipe

_ROOT = Path(__file__).resolve().parent.parent
PAGE = _ROOT / "docs" / "recipe.md"
SCHEMA = _ROOT / "recipes" / "schema.json"

_HEAD = """# The recipe

One YAML 1.2 file configures a run. This page is made from the models (`python -m recipes.document`); examples are in
`recipes/examples/`. `gristmill validate RECIPE` shows all errors at once, `gristmill show --resolved RECIPE` every
value with where it came from.

## Rules

1. `execution` and `checkpoints` never change a result beyond rounding; every other key may. Keys marked † enter no
   artifact key either.
2. Where a mapping may stand, a word may stand: its preset; `{preset: word, …}` changes it. A model preset carries shape
   and training values; `training:` applies to the target model, proxies use their preset's (or `proxy: {preset: …,
   training: {…}}`).
3. Amounts are numbers with a unit: `3T`, `300M` (tokens; K M B T are 1e3 1e6 1e9 1e12), `2000 train steps`,
   `1024 sequences`, `60 GiB`, `15 min`. A number without a unit is refused, but 0. What is not whole train steps is
   rounded down. Shares are 0 to 1.
4. Wherever a domain is named, `source`, `source/part` or a pattern (`zh_*`) may stand. A name covers its parts in
   natural proportion, the most specific wins, `"*"` is the rest; a trained domain that nothing names is an error.
5. Lists are in order of work; mappings have no order.
6. `seed` is the only source of chance for order, initialisation and designs; it never touches curation.

`extends:` names a recipe that this one changes: mappings merge key by key; lists, values, `domains.max_epochs`,
`tokenizer.text.shares`, `ablation.bounds` and `ablation.objective` are replaced whole. Paths are relative to the file
that names them, except `sources.NAME.path` (below `execution.raw`). `--set path=value` lays one value over the file:
`--set steps.gopher.min_words=30` addresses a step by its name, `--set schedule.main.tokens=1B` a phase,
`--set 'sources.*.sample=0.001'` every source.
"""


class _WithoutDefaults(GenerateJsonSchema):
    """Defaults are left out of the schema, so that one that is a path needs no warning."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file."""
    schema = Recipe.model_json_schema(by_alias=True, schema_generator=_WithoutDefaults)
    definitions = schema["$defs"]
    kinds = {kind: {"anyOf": [{"type": "string"}, {"type": "null"}, _ref(step)]} for kind, step in STEP_KINDS.items()}
    for step in STEP_KINDS.values():
        definitions[step.__name__]["properties"].pop("kind", None)
    definitions["Step"] = {
        "anyOf": [
            {"type": "string", "enum": sorted(STEP_KINDS)},
            {
                "type": "object",
                "properties": kinds,
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }
    schema["properties"]["steps"] = {
        "type": "array",
        "items": {"$ref": "#/$defs/Step"},
        "description": schema["properties"]["steps"]["description"],
    }
    schema["required"] = []  # a recipe that extends another may say as little as it likes
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gristmill recipe",
        **_without_titles(schema),
    }


def _ref(section: type[Section]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{section.__name__}"}


def _without_titles(schema: Any) -> Any:
    """Generated titles and absolute defaults only make the file longer."""
    if isinstance(schema, dict):
        return {
            key: {name: _without_titles(inner) for name, inner in value.items()}
            if key == "properties"
            else _without_titles(value)
            for key, value in schema.items()
            if key not in ("title", "default")
        }
    if isinstance(schema, list):
        return [_without_titles(value) for value in schema]
    return schema


def recipe_page() -> str:
    """Markdown of all sections."""
    parts = [_HEAD, "## All keys\n"]
    seen: set[type[Section]] = set()
    for title, section in _sections(Recipe, "recipe", seen):
        parts.append(_section_page(title, section))
    return "\n".join(parts)


def _sections(section: type[Section], title: str, seen: set[type[Section]]) -> Iterator[tuple[str, type[Section]]]:
    """Every section once, in the recipe's order, under the path it is first met at."""
    if section in seen:
        return
    seen.add(section)
    yield title, section
    for name, field in section.model_fields.items():
        key = field.alias or name
        path = key if title == "recipe" else f"{title}.{key}"
        if section is Recipe and name == "steps":
            yield "steps: all kinds", Step
            for kind, step in STEP_KINDS.items():
                yield from _sections(step, f"steps: - {kind}", seen)
            continue
        for inner in _section_types(field.annotation):
            where = {Source: "sources.NAME", Phase: "schedule: - phase"}.get(inner, path)
            yield from _sections(inner, where, seen)


def _section_types(annotation: Any) -> Iterator[type[Section]]:
    """Sections inside an annotation: through unions, lists, mappings and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        if not isinstance(argument, str):
            yield from _section_types(argument)


def _section_page(title: str, section: type[Section]) -> str:
    """A heading, what the section is, and a table of its keys."""
    lines = [f"### `{title}`\n", f"{(section.__doc__ or '').strip()}\n"]
    if section.preset_words:
        lines.append(f"Words: {', '.join(f'`{word}`' for word in section.preset_words)}.\n")
    presets = getattr(section, "presets", {})
    if presets and issubclass(section, Step):
        lines.append(f"Presets: {', '.join(f'`{name}`' for name in presets)}.\n")
    if section.written_schema is None:
        lines += ["| key | value | default | what it is |", "|---|---|---|---|"]
        lines += [_row(section, name, section.model_fields[name]) for name in _own_keys(section)]
        lines.append("")
    return "\n".join(lines)


def _own_keys(section: type[Section]) -> list[str]:
    """Keys of a section; of a kind of step those that it does not share with all kinds."""
    if not issubclass(section, Step) or section is Step:
        return [name for name in section.model_fields if name != "kind"]
    return [
        name
        for name, field in section.model_fields.items()
        if name != "kind" and (name not in Step.model_fields or field.default != Step.model_fields[name].default)
    ]


def _row(section: type[Section], name: str, field: FieldInfo) -> str:
    mark = " †" if name in section.not_in_keys else ""
    cells = (
        f"`{field.alias or name}`{mark}",
        _type_words(field),
        _default_words(section, name, field),
        field.description or "",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type_words(field: FieldInfo) -> str:
    """A few words for a field's type."""
    units = [unit for part in field.metadata if isinstance(part, AmountIn) for unit in part.units]
    return f"amount ({' or '.join(units)})" if units else " or ".join(dict.fromkeys(_words_of(field.annotation)))


def _words_of(annotation: Any) -> Iterator[str]:
    origin = get_origin(annotation)
    if origin is Annotated:
        units = [unit for part in annotation.__metadata__ if isinstance(part, AmountIn) for unit in part.units]
        yield from [f"amount ({' or '.join(units)})"] if units else _words_of(get_args(annotation)[0])
    elif origin is Literal:
        yield " or ".join(f"`{word}`" for word in get_args(annotation))
    elif origin in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _words_of(argument)
    elif origin is tuple:
        yield "list"
    elif origin is dict:
        yield "mapping"
    elif isinstance(annotation, type):
        yield _class_words(annotation)


def _class_words(kind: type) -> str:
    if issubclass(kind, Section):
        return "word or mapping" if kind.preset_words else "mapping"
    if issubclass(kind, FilePath):
        return "path"
    return {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}.get(
        kind, kind.__name__.lower()
    )


def _default_words(section: type[Section], name: str, field: FieldInfo) -> str:
    """The default as a recipe writes it; empty where the key is required or follows."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        from_preset = section.required_keys is not None and (field.alias or name) not in section.required_keys
        return "the preset's" if from_preset else "required"
    if isinstance(default, Section):
        return "" if section is Recipe else f"`{_plain(default)}`" if section.preset_words else ""
    if default is None:
        return "null"
    if default in ("", (), {}):
        return ""
    return f"`{_plain(default)}`"


def _plain(value: object) -> str:
    from recipes.schema.resolved import written

    plain = written(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def write() -> None:
    """Write the page and the schema."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(recipe_page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
