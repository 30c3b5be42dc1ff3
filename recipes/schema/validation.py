"""From located YAML to a validated recipe, or to all errors at once.

pydantic reports every wrong field of one pass, but looks at no rule across fields while a field is wrong. So what is
wrong is cut out and the rest validated again, until a recipe stands on which the rules across sections are checked too.
A message about a place that something was cut out of is left out: it could be a consequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curation.fields import Problem, did_you_mean
from recipes.checks.data import all_problems
from recipes.schema.later import later_problems
from recipes.schema.layered import entry_name
from recipes.schema.located import NOTHING, Located, Node, Place, RecipeErrors, Segment, Segments
from recipes.schema.recipe import Recipe

_MOST_PASSES = 12
_KIND_DEPTH = 2  # steps, place, kind: the kind is not shown
_WANTED = {
    "int_type": "a whole number is wanted",
    "int_parsing": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "float_type": "a number is wanted",
    "string_type": "text is wanted; quote it",
    "tuple_type": "a list is wanted",
    "list_type": "a list is wanted",
    "dict_type": "a mapping is wanted",
    "mapping_type": "a mapping is wanted",
    "finite_number": "a finite number is wanted",
    "too_short": "more entries are wanted",
}
_BOOLEANS = {"yes": "true", "on": "true", "True": "true", "no": "false", "off": "false", "False": "false"}
_EXAMPLES = {
    "sources": "such as sources: {wiki: {path: wiki/*.jsonl, language: de}}",
    "dirichlet": "such as 64",
    "language": "such as de",
    "path": "such as wiki/de-*.jsonl.zst",
    "tokens": "such as 300M",
    "name": "a word",
}


def validated(tree: Node, path: Path, noticed: Sequence[Located] = ()) -> Recipe:
    """The recipe of a located tree; `noticed` are errors that were found while it was read.

    Raises:
        RecipeErrors: all errors, in the order of files and lines.
    """
    raw = _with_default_folders(tree, path)
    recipe, lines, cut = _validate_in_passes(raw)
    errors = [*noticed, *(located(tree, loc, *message) for loc, message in lines)]
    if recipe is not None:
        found = all_problems(recipe, tree)
        errors += [_located_problem(tree, problem) for problem in found if not _follows(problem[0], cut)]
    if errors or recipe is None:
        unique = {str(error): error for error in errors}
        raise RecipeErrors(sorted(unique.values(), key=lambda error: _reading_order(error.place, path)))
    recipe._tree, recipe._path = tree, path
    return recipe


def _follows(path: Segments, cut: list[Segments]) -> bool:
    """Whether a problem may follow from what was cut out: at its place, or in training values of a preset cut out."""
    model = any(other[:1] == ("model",) for other in cut)
    return _touches(path, cut) or (model and path[:1] == ("training",))


def not_yet(recipe: Recipe) -> list[Located]:
    """Keys of a valid recipe whose work gristmill does not do yet, with their lines."""
    tree = recipe.tree or Node({}, Place("recipe"))
    return [_located_problem(tree, problem) for problem in later_problems(recipe)]


def located_problems(recipe: Recipe, problems: Sequence[Problem]) -> list[Located]:
    """Problems of a valid recipe with their places."""
    tree = recipe.tree or Node({}, Place("recipe"))
    return [_located_problem(tree, problem) for problem in problems]


def _reading_order(place: Place, path: Path) -> tuple[bool, bool, str, int]:
    """The recipe itself first, then what it extends, then --set."""
    return not place.line, place.file != str(path.expanduser().resolve()), place.file, place.line


def _with_default_folders(tree: Node, path: Path) -> dict[str, Any]:
    """Plain values, with the two default folders beside the recipe."""
    raw = tree.plain()
    assert isinstance(raw, dict)
    execution = raw.get("execution")
    if execution is None or isinstance(execution, Mapping):
        folder = path.expanduser().resolve().parent
        raw["execution"] = {"raw": str(folder), "workdir": str(folder / "work"), **(execution or {})}
    return raw


Message = tuple[object, str, bool]  # value, reason, whether the place is the key's


def _validate_in_passes(raw: dict[str, Any]) -> tuple[Recipe | None, list[tuple[Segments, Message]], list[Segments]]:
    """Validate, cut out what is wrong, validate again: (recipe, messages, what was cut)."""
    messages: list[tuple[Segments, Message]] = []
    cut: list[Segments] = []
    for _ in range(_MOST_PASSES):
        try:
            return Recipe.model_validate(raw), messages, cut
        except ValidationError as error:
            lines = error.errors(include_url=False)
        cut_now = []
        for line in lines:
            loc = line["loc"]
            if line["type"] == "too_short" and any(other["loc"][: len(loc)] == loc != other["loc"] for other in lines):
                continue  # pydantic counts the entries that are right
            if not _touches(loc, cut):
                messages.append((loc, _message(line)))
            cut_now.append(_cut(raw, loc))
        cut += [loc for loc in cut_now if loc]
        if not all(cut_now):
            break
    return None, messages, cut


def _touches(path: Segments, cut: list[Segments]) -> bool:
    """Whether something was cut out at, above or below a path."""
    return any(path[: len(other)] == other[: len(path)] for other in cut)


def _cut(raw: dict[str, Any], loc: Segments) -> Segments:
    """Take out the deepest value that a location names, and tell its path; what is required leaves a stub."""
    if len(loc) > 1 and _stub(loc) is not None and _put(raw, loc, _stub(loc)):
        return loc
    parents: list[tuple[Any, Segment]] = []
    value: Any = raw
    for segment in loc:
        in_list = isinstance(value, list) and isinstance(segment, int) and segment < len(value)
        if in_list or (isinstance(value, dict) and segment in value):
            parents.append((value, segment))
            value = value[segment]  # type: ignore[index]
    path = tuple(segment for _, segment in parents)
    if not parents:
        return ()
    stub = _stub(path)
    if stub is not None and value != stub:
        parents[-1][0][parents[-1][1]] = stub
    elif isinstance(parents[-1][0], dict):
        del parents[-1][0][parents[-1][1]]
    else:
        return _cut(raw, path[:-1])
    return path


def _put(raw: Any, path: Segments, stub: object) -> bool:
    """Put a stub in the place of a required value, unless it stands there already."""
    value = raw
    for segment in path[:-1]:
        try:
            value = value[segment]
        except (KeyError, IndexError, TypeError):
            return False
    if not isinstance(value, dict) or value.get(path[-1]) == stub:
        return False
    value[path[-1]] = stub
    return True


def _stub(path: Segments) -> object:
    """What stands in for a source, step or phase (or what one must have), so that the others keep their places."""
    number = path[1] if len(path) > 1 else 0
    stubs: dict[tuple[object, ...], object] = {
        ("sources",): {"path": "stub.jsonl", "language": "und"},
        ("sources", "language"): "und",
        ("sources", "path"): "stub.jsonl",
        ("steps",): {"measure": {"signals": ["stub"], "name": f"stub-{number}"}},
        ("schedule",): {"name": f"stub-{number}", "tokens": "1000T"},
        ("schedule", "tokens"): "1000T",
        ("schedule", "name"): f"stub-{number}",
    }
    return stubs.get((path[0], *path[2:])) if len(path) > 1 else None


def _message(line: Mapping[str, Any]) -> Message:
    """Our words for a pydantic error: (value, reason, whether it is about the key)."""
    kind, value, context = line["type"], line["input"], line.get("ctx", {})
    if kind == "missing":
        example = _EXAMPLES.get(str(line["loc"][-1]))
        return NOTHING, f"missing{', ' + example if example else ''}", False
    if kind in ("unknown_key", "extra_forbidden"):
        return value, str(context.get("reason", "unknown key")), True
    if kind.startswith("bool"):
        meant = _BOOLEANS.get(str(value))
        return value, f"true or false is wanted{f'; did you mean {meant}?' if meant else ''}", False
    if kind == "literal_error":
        words = [word.strip(" '") for word in context["expected"].replace(" or ", ", ").split(",")]
        hint = did_you_mean(value, words)
        return value, f"one of {', '.join(words)} is wanted{hint if 'mean' in hint else ''}", False
    if kind in _WANTED:
        return value, _WANTED[kind], False
    reason = str(line["msg"]).removeprefix("Value error, ")
    if value is None and reason.startswith("missing"):
        value = NOTHING
    return value, reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:], False


def located(tree: Node, loc: Segments, value: object, reason: str, of_key: bool = False) -> Located:
    """A message with the place and shown path of a location; segments that the file does not have are passed over."""
    node, shown, place = tree, "", tree.key_place or tree.place
    for depth, segment in enumerate(loc):
        child = node.get(segment)
        if child is None:
            if depth == len(loc) - 1 and reason.startswith("missing"):
                shown += f".{segment}" if shown else str(segment)
            continue
        is_kind = depth == _KIND_DEPTH and loc[0] == "steps"
        shown = shown if is_kind else _extended(shown, segment, child)
        node = child
        place = (child.key_place or child.place) if of_key else child.place
        if isinstance(child.value, dict | list) and child.key_place is not None:
            place = child.key_place
    return Located(place, shown, value, reason)


def _extended(shown: str, segment: Segment, child: Node) -> str:
    """`steps` + 3 -> `steps.gopher`, as --set takes it."""
    if isinstance(segment, int):
        name = entry_name(child) if shown in ("steps", "schedule") else None
        return f"{shown}.{name}" if name else f"{shown}[{segment}]"
    return f"{shown}.{segment}" if shown else str(segment)


def _located_problem(tree: Node, problem: Problem) -> Located:
    """A problem's place; keys that the file leaves to a preset or a default are named too, but a step's kind is not."""
    path, value, reason = problem
    found = located(tree, path, value, reason)
    if path[:1] == ("steps",) or reason.startswith("missing"):
        return found
    node, rest = tree, list(path)
    while rest and (child := node.get(rest[0])) is not None:
        node = child
        rest.pop(0)
    if not all(isinstance(segment, str) for segment in rest):
        return found
    return replace(found, path=".".join([*filter(None, [found.path]), *map(str, rest)]))
