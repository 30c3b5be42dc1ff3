"""Rule presets: named SQL conditions over signals with thresholds, one YAML file each in `curation/presets/`.

    source: where the rules and values were published
    options: {name: default}              thresholds; null switches a rule off
    languages: {code: {name: value}}      other defaults for a language
    dictionary: {code: {name: value}}     instead of those, where a dictionary cuts Han text into words
    drop: {reason: "SQL with {name}"}     a row is dropped where it is true

Loading a preset needs no polars: recipes are validated by it.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).with_name("presets")
OptionValue = int | float | bool | None


@dataclass(frozen=True)
class RulePreset:
    """One preset as its file says it; `languages` holds the options that differ in a language."""

    name: str
    source: str
    options: Mapping[str, OptionValue]
    languages: Mapping[str, Mapping[str, OptionValue]]
    drop: Mapping[str, str]
    dictionary: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=dict)
    unit: str | None = None  # line or paragraph: a preset of the `lines` step
    clean: bool = False  # of a `lines` preset: kept lines are stripped and joined by line feeds


@dataclass(frozen=True)
class Option:
    """A resolved option: its value and where it came from (`preset`, `preset, language de`, `recipe`)."""

    value: OptionValue
    origin: str


def preset_names(*, lines: bool = False) -> list[str]:
    """Names of the shipped presets: of rules over documents, or of those over lines."""
    return [
        name for name in sorted(p.stem for p in FOLDER.glob("*.yaml")) if (load_preset(name).unit is not None) == lines
    ]


@lru_cache(maxsize=64)
def load_preset(name: str) -> RulePreset:
    """Read a preset.

    Raises:
        ValueError: for an unknown name, with a suggestion.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in FOLDER.glob("*.yaml"))
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
        raise ValueError(f"no rule preset is called '{name}'; {hint}")
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(path)
    languages, dictionary = (
        {code: options or {} for code, options in (content.get(key) or {}).items()}
        for key in ("languages", "dictionary")
    )
    return RulePreset(
        name,
        content["source"],
        content.get("options") or {},
        languages,
        content["drop"],
        dictionary,
        content.get("unit"),
        bool(content.get("clean")),
    )


def preset_options(preset: str, language: str | None = None) -> dict[str, OptionValue]:
    """The thresholds of a preset and their defaults, in `language` where one is given."""
    loaded = load_preset(preset)
    return {**loaded.options, **(loaded.languages.get(language, {}) if language else {})}


def resolve_options(
    preset: str, language: str, options: Mapping[str, object], dictionary: bool = False
) -> dict[str, Option]:
    """Every option's value: the preset's, its language's (for words of a `dictionary`), then the recipe's.

    Raises:
        ValueError: for an option that the preset lacks or a value that is not a number or null.
    """
    loaded = load_preset(preset)
    resolved = {name: Option(value, "preset") for name, value in loaded.options.items()}
    if dictionary and language in loaded.dictionary:
        own, origin = loaded.dictionary[language], f"preset, language {language} with a dictionary"
    else:
        own, origin = loaded.languages.get(language, {}), f"preset, language {language}"
    resolved |= {name: Option(value, origin) for name, value in own.items()}
    for name, given in options.items():
        if name not in resolved:
            close = difflib.get_close_matches(name, resolved, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(resolved)}"
            raise ValueError(f"preset '{preset}' has no option '{name}'; {hint}")
        if given is not None and not isinstance(given, int | float):
            raise ValueError(f"{preset}.{name}: {given!r} is not a number or null (null switches its rule off)")
        resolved[name] = Option(given, "recipe")
    return resolved


def filled_conditions(preset: str, options: Mapping[str, Option]) -> dict[str, str]:
    """Reason to SQL with the options' values put in; a rule that uses an option of null is left out."""
    conditions: dict[str, str] = {}
    for reason, sql in load_preset(preset).drop.items():
        used = [field for _, field, _, _ in string.Formatter().parse(sql) if field]
        if all(options[name].value is not None for name in used):
            conditions[reason] = sql.format_map({name: _sql_number(options[name].value) for name in used})
    return conditions


def _sql_number(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
