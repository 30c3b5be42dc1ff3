"""YAML with a file and line for every key and value.

YAML 1.2, so `no` is Norwegian; duplicate keys and tags are refused. Nothing here knows the recipe's schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from curation.fields import WrittenText, did_you_mean

Segment = str | int
Segments = tuple[Segment, ...]


@dataclass(frozen=True)
class Place:
    """Where a key or value was written: a file and line, or `--set`."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """`de_web.yaml:14`, the path as short as it can be said from the working folder."""
        if not self.line:
            return self.file
        return f"{shown_path(self.file)}:{self.line}"


@dataclass(frozen=True)
class Node:
    """A value of the recipe with its place; `key_place` is where its key stands."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    place: Place
    key_place: Place | None = None

    def plain(self) -> object:
        """Mappings, lists and scalars; texts know the folder of the file that wrote them."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        if isinstance(self.value, str):
            text = WrittenText(self.value)
            text.folder = str(Path(self.place.file).parent) if self.place.line else ""
            return text
        return self.value

    def children(self) -> Iterator[tuple[Segment, Node]]:
        """Keys or places with their nodes."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def get(self, segment: Segment) -> Node | None:
        """The child of that key or place."""
        if isinstance(self.value, dict):
            return self.value.get(str(segment))
        if isinstance(self.value, list) and isinstance(segment, int) and segment < len(self.value):
            return self.value[segment]
        return None


@dataclass(frozen=True)
class Located:
    """A message about a value of the recipe."""

    place: Place
    path: str
    value: object
    reason: str

    def __str__(self) -> str:
        """`file:line: path: value …: reason`."""
        return f"{self.place}: {self.path + ': ' if self.path else ''}{_shown_value(self.value)}{self.reason}"


class _Nothing:
    """No value to show."""


NOTHING = _Nothing()


def _shown_value(value: object) -> str:
    """A short form of the value, as the recipe would write it."""
    if value is NOTHING or isinstance(value, Mapping | list | tuple):
        return ""
    text = repr(str(value)) if isinstance(value, str) else json.dumps(value, default=str)
    whole = 1000 if isinstance(value, str) and "/" in value and " " not in value else 80  # a path is no use when cut
    return f"value {text if len(text) <= whole else text[: whole - 3] + '...'}: "


class RecipeErrors(ValueError):  # noqa: N818  (it carries many)
    """All that is wrong with a recipe; `errors` holds each with its place."""

    def __init__(self, errors: Sequence[Located]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def shown_path(file: str) -> str:
    """A file relative to the working folder where that is shorter."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return relative if len(relative) < len(file) and not relative.startswith("..") else file


def dotted(path: Segments) -> str:
    """`steps[3].rules`, `domains.max_epochs`."""
    text = ""
    for segment in path:
        text += f"[{segment}]" if isinstance(segment, int) else f"{'.' if text else ''}{segment}"
    return text


def read_file(file: Path, noticed: list[Located], asked: Located | None = None) -> Node:
    """One file as a tree; an empty file is an empty mapping."""
    place = Place(str(file), 1)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (error.strerror or str(error)).lower()
        )
        message = f"{shown_path(str(file))}: {reason}{_near_file(file)}"
        raise RecipeErrors(
            [replace(asked, reason=message) if asked else Located(place, "", NOTHING, message)]
        ) from None
    tree = parse(text, str(file), noticed)
    if tree.value is None:
        return Node({}, place)
    if not isinstance(tree.value, dict):
        raise RecipeErrors([Located(tree.place, "", NOTHING, "a recipe is a mapping of sections, such as `sources:`")])
    return tree


def _near_file(file: Path) -> str:
    """Other recipes beside a missing one."""
    names = [other.name for other in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
    return did_you_mean(file.name, names, limit=6)


def parse(text: str, file: str, noticed: list[Located]) -> Node:
    """YAML text as a tree of located nodes; keys that stand twice or are no words are noticed and left out."""
    yaml = YAML(typ="rt", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        raise RecipeErrors([_syntax_error(error, text, file)]) from None
    except (YAMLError, ValueError) as error:
        raise RecipeErrors([Located(Place(file, 1), "", NOTHING, f"not YAML: {str(error).splitlines()[0]}")]) from None
    if root is None:
        return Node(None, Place(file, 1))
    return _located(root, file, (), noticed)


def _syntax_error(error: MarkedYAMLError, text: str, file: str) -> Located:
    """The place and, for tabs, quotes and colons, the fix."""
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    lines = text.splitlines()
    written = lines[number] if number < len(lines) else ""
    what = error.problem or "not YAML"
    if "\t" in written[: len(written) - len(written.lstrip())] or "\\t" in what:
        what = "a tab indents this line; YAML wants spaces"
    elif "mapping values are not allowed" in what:
        what = "a second `: ` on this line, or a line above that is not closed; quote text that holds `: `"
    elif "undefined alias" in what or "alphabetic or numeric" in what:
        what = f'{what}; quote text that begins with * or &, such as "*"'
    elif "<block end>" in what:
        what = "the indent of this line fits none of the lines above it"
    elif ("<stream end>" in what or "end of stream" in what) and error.context_mark:
        number = error.context_mark.line
        written, what = lines[number], "a bracket or quote opens here and is never closed"
    elif error.context_mark and error.context_mark.line != number:
        what = (
            f"{what} ({error.context} that begins in line {error.context_mark.line + 1}); check the indent and brackets"
        )
    return Located(Place(file, number + 1), "", NOTHING, f"{written.strip()!r}: {what}")


def _located(node: YamlNode, file: str, path: Segments, problems: list[Located]) -> Node:
    """A YAML node as ours; collects keys that stand twice and keys that are no words."""
    place = Place(file, node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        return Node([_located(child, file, (*path, i), problems) for i, child in enumerate(node.value)], place)
    if not isinstance(node, MappingNode):
        assert isinstance(node, ScalarNode)
        return Node(_scalar(node, place, path, problems), place)
    mapping: dict[str, Node] = {}
    for key_node, value_node in node.value:
        key_place = Place(file, key_node.start_mark.line + 1)
        if not isinstance(key_node, ScalarNode):
            problems.append(Located(key_place, dotted(path), NOTHING, "a key is a word; quote it if it has brackets"))
            continue
        key = str(key_node.value)
        if key in mapping:
            first = mapping[key].key_place
            problems.append(Located(key_place, dotted((*path, key)), NOTHING, f"stands twice, first in {first}"))
            continue
        mapping[key] = replace(_located(value_node, file, (*path, key), problems), key_place=key_place)
    return Node(mapping, place)


def _scalar(node: ScalarNode, place: Place, path: Segments, problems: list[Located]) -> str | int | float | bool | None:
    """A scalar by its YAML 1.2 type; dates stay text."""
    tag, written = str(node.tag).rpartition(":")[2], str(node.value)
    if tag == "null":
        return None
    if tag == "bool":
        return written.lower() == "true"
    if tag == "int":
        digits = written.replace("_", "")
        return int(digits, 0) if digits.lstrip("+-").lower().startswith(("0x", "0o", "0b")) else int(digits)
    if tag == "float":
        return float(written.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    if tag not in ("str", "timestamp"):
        problems.append(Located(place, dotted(path), NOTHING, f"YAML tags such as {node.tag} are not used in recipes"))
    return written
