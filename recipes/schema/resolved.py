"""Every value of a recipe with where it came from, for `gristmill show --resolved`; and in which two recipes differ."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from curation.amounts import Amount
from curation.config import Step
from curation.fields import Section
from curation.rule_presets import load_preset, preset_names
from recipes.schema.located import Node
from recipes.schema.recipe import Recipe
from training.config import BatchFrom, Model
from training.presets import MODEL_PRESETS

DEFAULT = "default"
# How a section that was read from a word, list or free mapping is written again.
_INNER = ("kind",)


@dataclass(frozen=True)
class Resolved:
    """A value as the recipe would write it, and its origin: `default`, `preset NAME`, `file:line` or `--set …`.

    `read` is what it was understood as: `8sequences` and `8 sequences` are the same amount.
    """

    value: object
    origin: str
    read: object


Tree = dict[str, Any]


def resolved(recipe: Recipe) -> Tree:
    """A nested mapping that ends in `Resolved` values; steps are keyed by name, phases too.

    Origins need a recipe that was loaded from a file; of any other, all that was given reads `given`.
    """
    tree = recipe.tree or Node({}, _nowhere())
    origins = {"training": _preset_of(recipe.model)} if recipe.model else {}
    result: Tree = {}
    for key, value in _fields(recipe):
        node = tree.get(key)
        if key == "steps":
            result[key] = {step.name: _step(step, _entry(node, place)) for place, step in enumerate(recipe.steps)}
        elif key == "schedule":
            result[key] = {
                phase.name: _section(phase, node.get(place) if node else None, {})
                for place, phase in enumerate(recipe.schedule)
            }
        elif key == "sources":
            result[key] = {
                name: _section(source, node.get(name) if node else None, {}) for name, source in recipe.sources.items()
            }
        elif key != "extends":
            result[key] = _value(value, node, origins.get(key, {}))
    if isinstance(result["model"], dict):
        del result["model"]["training"]  # the target's are in `training`
    return result


def _nowhere() -> Any:
    from recipes.schema.located import Place

    return Place("given")


def _fields(section: BaseModel) -> list[tuple[str, object]]:
    """Keys as the recipe writes them, with their values."""
    return [(field.alias or name, getattr(section, name)) for name, field in type(section).model_fields.items()]


def _entry(steps: Node | None, place: int) -> Node | None:
    """The options of a step's entry; a preset word where it has no options."""
    entry = steps.get(place) if steps else None
    if entry is None or not isinstance(entry.value, dict):
        return entry
    return next(iter(entry.value.values()))


def _step(step: Step, node: Node | None) -> Tree:
    """A step's options, and the thresholds of its rule preset."""
    written = type(step).presets.get(str(step.preset), {})
    result = {
        key: _value(value, _below(node, key), {}, f"preset {step.preset}" if key in written else DEFAULT)
        for key, value in _fields(step)
    }
    if isinstance(node, Node) and isinstance(node.value, str):
        result["preset"] = Resolved(node.value, str(node.place), step.preset)
    if step.takes_thresholds and step.preset in preset_names(lines=step.kind == "lines"):
        own = step.thresholds()
        for option, value in load_preset(str(step.preset)).options.items():
            at = _below(node, option)
            chosen = own.get(option, value)
            result[option] = Resolved(chosen, str(at.place) if at else f"preset {step.preset}", chosen)
    return result


def _below(node: Node | None, key: str) -> Node | None:
    return node.get(key) if node is not None else None


def _preset_of(model: Model) -> dict[str, Any]:
    """The training values of a model's preset, each with its origin."""
    return {"preset": model.preset, "values": MODEL_PRESETS[model.preset]["training"]}


def _value(value: object, node: Node | None, preset: Mapping[str, Any], origin: str = DEFAULT) -> Any:
    """A section as a tree, anything else with its origin."""
    if isinstance(value, Section) and not _has_free_keys(value):
        if isinstance(value, Model):
            preset = {"preset": value.preset, "values": MODEL_PRESETS[value.preset]}
        return _section(value, node, preset, origin)
    if node is not None:
        return Resolved(node.plain(), str(node.place), value)
    if preset and preset.get("values") is not None:
        return Resolved(written(value), f"preset {preset['preset']}", value)
    return Resolved(written(value), origin, value)


def _section(section: Section, node: Node | None, preset: Mapping[str, Any], origin: str = DEFAULT) -> Tree:
    """The fields of a section, each from the file, the preset or the default."""
    values = preset.get("values") if preset else None
    result: Tree = {}
    for key, value in _fields(section):
        inner = values.get(key) if isinstance(values, Mapping) else None
        child = {"preset": preset["preset"], "values": inner} if inner is not None else {}
        result[key] = _value(value, _below(node, key), child, origin)
    if node is not None and isinstance(node.value, str) and "preset" in result:
        result["preset"] = Resolved(node.value, str(node.place), result["preset"].read)
    return result


def _has_free_keys(section: Section) -> bool:
    """Whether a section is written as a word or as a mapping with free keys, such as weights and orders."""
    return any(name in _INNER for name in type(section).model_fields) and not isinstance(section, Step)


def written(value: object) -> object:
    """A plain value: amounts and sections as text a recipe could hold."""
    if isinstance(value, tuple) and value and all(isinstance(batch, BatchFrom) for batch in value):
        return str(value[0].size) if len(value) == 1 else [[str(batch.start), str(batch.size)] for batch in value]
    if isinstance(value, Amount):
        return str(value)
    if isinstance(value, Section):
        plain = {key: written(inner) for key, inner in _fields(value) if inner not in (None, (), {})}
        return plain.get("kind") if set(plain) <= {"kind", "power", "direction"} else plain
    if isinstance(value, Mapping):
        return {key: written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [written(inner) for inner in value]
    return value


def flat(tree: Tree, path: str = "") -> list[tuple[str, Resolved]]:
    """(dotted path, value) in the recipe's order, as `show --resolved` prints them."""
    lines: list[tuple[str, Resolved]] = []
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        lines += flat(value, here) if isinstance(value, dict) else [(here, value)]
    return lines


# ---------------------------------------------------------------- two recipes


Values = Mapping[str, Sequence[Any]]


def values_of(recipe: Recipe) -> dict[str, list[Any]]:
    """Every value by its dotted path, for `differing`: what it was read as, and how it was written.

    Both are plain, as JSON holds them. Steps and phases are named in their paths, so their order is a value of its own.
    """
    orders = {"steps": [step.name for step in recipe.steps], "schedule": [phase.name for phase in recipe.schedule]}
    values = {path: [_as_read(found.read), plain(found.value)] for path, found in flat(resolved(recipe))}
    return values | {path: [names, names] for path, names in orders.items()}


def differing(one: Values, other: Values) -> dict[str, tuple[str | None, str | None]]:
    """Values in which two recipes differ, however they are written: path -> both as written, None where one has none.

    Args:
        one: a recipe's `values_of`, or some of them.
        other: those of another.
    """
    found = {}
    for path in sorted(one.keys() | other.keys()):
        read = [json.dumps(values[path][0], sort_keys=True) if path in values else None for values in (one, other)]
        if read[0] != read[1]:
            first, second = (as_yaml(values[path][1]) if path in values else None for values in (one, other))
            found[path] = (first, second)
    return found


def _as_read(value: object) -> Any:
    """A value as it was understood, with nothing left out; numbers without a fraction are integers."""
    if isinstance(value, BaseModel):
        return {key: _as_read(inner) for key, inner in value}
    if isinstance(value, Mapping):
        return {str(key): _as_read(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_read(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else plain(value)


def as_yaml(value: object) -> str:
    """A value on one line as a recipe, or --set, would write it."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, 1 << 30
    stream = io.StringIO()
    yaml.dump(plain(value), stream)
    return stream.getvalue().removesuffix("...\n").strip()


def plain(value: object) -> Any:
    """Mappings, lists, numbers and text of a value, as YAML and JSON hold them."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
