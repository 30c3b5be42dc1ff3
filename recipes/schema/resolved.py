"""Every value of a recipe with where it came from, for `gristmill show --resolved`."""

from __future__ import annotations

from collections.abc import Mapping
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
    """A value as the recipe would write it, and its origin: `default`, `preset NAME`, `file:line` or `--set …`."""

    value: object
    origin: str


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
        result["preset"] = Resolved(node.value, str(node.place))
    if step.takes_thresholds and step.preset in preset_names(lines=step.kind == "lines"):
        own = step.thresholds()
        for option, value in load_preset(str(step.preset)).options.items():
            at = _below(node, option)
            chosen = own.get(option, value)
            result[option] = Resolved(chosen, str(at.place) if at else f"preset {step.preset}")
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
        return Resolved(node.plain(), str(node.place))
    if preset and preset.get("values") is not None:
        return Resolved(written(value), f"preset {preset['preset']}")
    return Resolved(written(value), origin)


def _section(section: Section, node: Node | None, preset: Mapping[str, Any], origin: str = DEFAULT) -> Tree:
    """The fields of a section, each from the file, the preset or the default."""
    values = preset.get("values") if preset else None
    result: Tree = {}
    for key, value in _fields(section):
        inner = values.get(key) if isinstance(values, Mapping) else None
        child = {"preset": preset["preset"], "values": inner} if inner is not None else {}
        result[key] = _value(value, _below(node, key), child, origin)
    if node is not None and isinstance(node.value, str) and "preset" in result:
        result["preset"] = Resolved(node.value, str(node.place))
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
