"""From located YAML to a validated recipe, or to all errors at once.

pydantic reports every wrong field of one pass, but looks at no rule across fields while a field is wrong. So what is
wrong is cut out and the rest validated again, until a recipe stands on which the rules across sections are checked too.
A message about a place that something was cut out of is left out: it could be a consequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curation.fields import Problem, did_you_mean
from recipes.checks import all_problems
from recipes.later import later_problems
from recipes.located import NOTHING, Located, Node, Place, RecipeErrors, Segment, Segments
from recipes.recipe import Recipe

_MOST_PASSES = 12
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
}
_BOOLEANS = {"yes": "true", "on": "true", "True": "true", "no": "false", "off": "false", "False": "false"}
_EXAMPLES = {
    "language": "such as de",
    "path": "such as wiki/de-*.jsonl.zst",
    "tokens": "such as 300M",
    "name": "a word",
}


def validated(tree: Node, path: Path) -> Recipe:
    """The recipe of a located tree.

    Raises:
        RecipeErrors: all errors, in the order of files and lines.
    """
    raw = _with_default_folders(tree, path)
    recipe, lines, cut = _validate_in_passes(raw)
    errors = [located(tree, loc, *message) for loc, message in lines]
    if recipe is not None:
        found = all_problems(recipe, tree)
        errors += [_located_problem(tree, problem) for problem in found if not _touches(problem[0], cut)]
    if errors or recipe is None:
        unique = {str(error): error for error in errors}
        raise RecipeErrors(sorted(unique.values(), key=lambda error: _reading_order(error.place, path)))
    recipe._tree, recipe._path = tree, path
    return recipe


def not_yet(recipe: Recipe) -> list[Located]:
    """Keys of a valid recipe whose work gristmill does not do yet, with their lines."""
    tree = recipe.tree or Node({}, Place("recipe"))
    return [_located_problem(tree, problem) for problem in later_problems(recipe)]


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
    """Take out the deepest value that a location names, and tell its path; sources, steps and phases leave a stub."""
    parents: list[tuple[Any, Segment]] = []
    value: Any = raw
    for segment in loc:
        in_list = isinstance(value, list) and isinstance(segment, int) and segment < len(value)
        if in_list or (isinstance(value, dict) and segment in value):
            parents.append((value, segment))
            value = value[segment]
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


def _stub(path: Segments) -> object:
    """What stands in for a source, step or phase that cannot be read, so that the others keep their places."""
    match path:
        case ("sources", str()):
            return {"path": "stub.jsonl", "language": "und"}
        case ("steps", int(place)):
            return {"measure": {"signals": ["stub"], "name": f"stub-{place}"}}
        case ("schedule", int(place)):
            return {"name": f"stub-{place}", "tokens": "1000T"}
    return None


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
    return value, reason[:1].lower() + reason[1:], False


def located(tree: Node, loc: Segments, value: object, reason: str, of_key: bool = False) -> Located:
    """A message with the place and shown path of a location; segments that the file does not have are passed over."""
    node, shown, place = tree, "", tree.key_place or tree.place
    for depth, segment in enumerate(loc):
        child = node.get(segment)
        if child is None:
            if depth == len(loc) - 1 and isinstance(segment, str) and segment != "[key]" and shown[-1:] != "]":
                shown += f".{segment}" if shown else segment
            continue
        shown = _extended(shown, node, segment, child)
        node = child
        place = (child.key_place or child.place) if of_key else child.place
        if isinstance(child.value, dict | list) and child.key_place is not None:
            place = child.key_place
    return Located(place, shown, value, reason)


def _extended(shown: str, parent: Node, segment: Segment, child: Node) -> str:
    """`steps` + 3 -> `steps.gopher`, as --set takes it; the kind below a step is not shown."""
    from recipes.layered import entry_name

    if isinstance(segment, int):
        name = entry_name(child) if shown in ("steps", "schedule") else None
        return f"{shown}.{name}" if name else f"{shown}[{segment}]"
    if (
        shown.startswith("steps.")
        and shown.count(".") == 1
        and isinstance(parent.value, dict)
        and len(parent.value) == 1
    ):
        return shown
    return f"{shown}.{segment}" if shown else str(segment)


def _located_problem(tree: Node, problem: Problem) -> Located:
    path, value, reason = problem
    return located(tree, path, value, reason)
