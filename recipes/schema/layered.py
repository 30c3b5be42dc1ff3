"""`extends:` and `--set path=value`: trees of located values laid over each other.

Mappings merge key by key; lists, values and mappings of shares, bounds and caps are replaced whole. The few places of
the schema that merging must know stand in the constants below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curation.fields import did_you_mean
from recipes.schema.located import NOTHING, Located, Node, Place, RecipeErrors, Segments, dotted, parse, read_file

# Mappings of shares, bounds and caps: a recipe that extends another replaces them whole. "*" is any key or place.
_WHOLE = (
    ("domains", "max_epochs"),
    ("tokenizer", "text", "shares"),
    ("ablation", "bounds"),
    ("ablation", "objective"),
)
# Where a word is the preset of a mapping: a mapping over the word, or --set below it, changes the preset's values.
_PRESET_WORDS = (("model",), ("ablation", "proxy"), ("ablation", "confirm", "model"), ("tokenizer",), ("export",))
_STEP_OPTIONS_DEPTH = 3  # steps, place, kind
_MAX_EXTENDS = 20


def load_located(path: str | Path, overrides: Sequence[str], noticed: list[Located]) -> Node:
    """Read a recipe with all it extends, and apply `path=value` overrides.

    Errors that leave a tree to look at, such as keys that stand twice, are added to `noticed`.

    Raises:
        RecipeErrors: what is no YAML, files that are missing, overrides that name nothing.
    """
    file = Path(path).expanduser()
    tree = _with_extended(file.resolve(), (), noticed)
    for override in overrides:
        tree = apply_override(tree, override)
    return tree


def _with_extended(file: Path, seen: tuple[Path, ...], noticed: list[Located], asked: Located | None = None) -> Node:
    """A file's tree over the trees of what it extends."""
    if file in seen or len(seen) > _MAX_EXTENDS:
        raise RecipeErrors([replace(asked, reason="a recipe cannot extend itself")] if asked else [])
    tree = read_file(file, noticed, asked)
    assert isinstance(tree.value, dict)
    extends = tree.value.get("extends")
    if extends is None or extends.value is None:
        return tree
    message = Located(extends.place, "extends", extends.plain(), "a path is wanted")
    if not isinstance(extends.value, str):
        raise RecipeErrors([message])
    other = Path(extends.value).expanduser()
    below = _with_extended((file.parent / other).resolve(), (*seen, file), noticed, message)
    return merge(below, tree)


def merge(below: Node, above: Node, path: Segments = ()) -> Node:
    """`above` over `below`: mappings key by key; lists, values and mappings of shares, bounds and caps whole."""
    base = below
    if isinstance(above.value, dict) and isinstance(below.value, str) and path in _PRESET_WORDS:
        base = _as_preset(below, path)
    if not (isinstance(base.value, dict) and isinstance(above.value, dict)) or path in _WHOLE:
        return above
    merged = dict(base.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node, (*path, key)) if key in merged else node
    return Node(merged, above.place, above.key_place)


def _as_preset(word: Node, path: Segments) -> Node:
    return Node(
        {"format" if path == ("export",) else "preset": replace(word, key_place=word.place)}, word.place, word.key_place
    )


def apply_override(tree: Node, override: str) -> Node:
    """Set one value by `path=value`; steps and phases are addressed by name, `*` is every key of a mapping."""
    path, equals, written = override.partition("=")
    place = Place(f"--set {override}")
    if not equals or not path.strip():
        raise RecipeErrors([Located(place, "", NOTHING, "write --set path=value, such as steps.gopher.min_words=30")])
    if path.strip().split(".")[0] == "extends":
        reason = "what a recipe extends stands in its file; write a file with `extends:` and the values it changes"
        raise RecipeErrors([Located(place, "extends", written, reason)])
    noticed: list[Located] = []
    value = _relocated(parse(written, "--set", noticed), place)
    if noticed:
        raise RecipeErrors([replace(error, place=place) for error in noticed])
    return _set(tree, tuple(path.strip().split(".")), value, ())


def _relocated(node: Node, place: Place) -> Node:
    """A parsed value as if written at `place`."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _relocated(child, place) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_relocated(child, place) for child in value]
    return Node(value, place, place)


def _set(node: Node, path: tuple[str, ...], value: Node, done: Segments) -> Node:
    """A copy of the tree with one value replaced."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(node.value, list):
        index = _entry_of(node, head, done, value.place)
        entries = list(node.value)
        entries[index] = _set_entry(entries[index], rest, value, (*done, index))
        return replace(node, value=entries)
    if node.value is not None and not isinstance(node.value, dict):
        if done not in _PRESET_WORDS and not (len(done) == _STEP_OPTIONS_DEPTH and done[0] == "steps"):
            raise RecipeErrors([Located(value.place, dotted(done), node.value, "is a value, nothing stands below it")])
        node = _as_preset(node, done)
    mapping = dict(node.value or {})  # type: ignore[arg-type]
    for key in list(mapping) if head == "*" and rest else [head]:
        child = mapping.get(key, Node(None, value.place, value.place))
        mapping[key] = replace(_set(child, rest, value, (*done, key)), key_place=child.key_place or value.place)
    return replace(node, value=mapping)


def _set_entry(entry: Node, rest: tuple[str, ...], value: Node, done: Segments) -> Node:
    """Inside `steps`, pass the kind: `steps.gopher.min_words` sets an option of `- rules: gopher`."""
    if done[0] == "steps" and len(done) == 2 and rest:
        if isinstance(entry.value, str):
            entry = Node({entry.value: Node({}, entry.place, entry.place)}, entry.place, entry.key_place)
        if isinstance(entry.value, dict) and len(entry.value) == 1:
            ((kind, options),) = entry.value.items()
            rest = rest[1:] if rest[0] == kind and len(rest) > 1 else rest
            changed = _set(options, rest, value, (*done, kind))
            return replace(entry, value={kind: replace(changed, key_place=options.key_place)})
    return _set(entry, rest, value, done)


def _entry_of(node: Node, head: str, done: Segments, place: Place) -> int:
    """The place in a list that a name or number means."""
    assert isinstance(node.value, list)
    names = [entry_name(entry) for entry in node.value]
    if head in names:
        return names.index(head)
    if head.isdigit() and int(head) < len(names):
        return int(head)
    reason = f"no {dotted(done)} entry is called {head!r}{did_you_mean(head, [n for n in names if n])}"
    raise RecipeErrors([Located(place, dotted(done), NOTHING, reason)])


def entry_name(entry: Node) -> str | None:
    """The name of a list entry: its `name`, or for a step its name, preset or kind."""
    if isinstance(entry.value, str):
        return entry.value
    if not isinstance(entry.value, dict):
        return None
    if "name" in entry.value:
        return str(entry.value["name"].value)
    if len(entry.value) != 1:
        return None
    ((kind, options),) = entry.value.items()
    given = options.value if isinstance(options.value, dict) else {"preset": options}
    named = given.get("name") or given.get("preset")
    return named.value if named is not None and isinstance(named.value, str) else kind
