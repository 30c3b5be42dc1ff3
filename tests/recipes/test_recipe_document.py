"""The page and the schema are what the models say, and the schema takes the examples."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from recipes.document import PAGE, SCHEMA, recipe_page, recipe_schema
from recipes.schema.recipe import Recipe

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "recipes" / "examples").glob("*.yaml"))
TYPES = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
    "null": type(None),
}  # fmt: skip


def complaints(value, schema, root, path="$"):
    """A small validator of the JSON Schema words that the recipe's schema uses."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return complaints(value, root["$defs"][name], root, path)
    for word in ("anyOf", "oneOf"):
        if word in schema and all(complaints(value, choice, root, path) for choice in schema[word]):
            return [f"{path}: none of {len(schema[word])} forms fits {value!r}"]
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = any(
            isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
        )
        if not fits:
            return [f"{path}: {value!r} is no {names}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is not in {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{path}: {value!r} is not {schema['const']!r}")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{path}: {value} is out of bounds")
    if isinstance(value, list):
        for place, element in enumerate(value):
            found += complaints(element, schema.get("items", {}), root, f"{path}[{place}]")
    if isinstance(value, dict):
        found += [f"{path}: {key} is missing" for key in schema.get("required", []) if key not in value]
        for key, inner in value.items():
            known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
            if key in known:
                found += complaints(inner, known[key], root, f"{path}.{key}")
            elif other is False:
                found.append(f"{path}: {key} is unknown")
            elif isinstance(other, dict):
                found += complaints(inner, other, root, f"{path}.{key}")
    return found


def read(path):
    return YAML(typ="safe", pure=True).load(path)


def test_page_and_schema_are_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == recipe_page(), "run python -m recipes.document"
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == recipe_schema(), "run python -m recipes.document"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_schema_takes_the_examples(path):
    schema = recipe_schema()
    assert complaints(read(path), schema, schema) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": 1},
        {"seed": "one"},
        {"steps": [{"rulez": "gopher"}]},
        {"steps": [{"dedup": {"treshold": 1}}]},
        {"sources": {"a": {"path": "x"}}},
        {"sources": {"a": {"path": "x", "language": "de", "sample": 30}}},
        {"schedule": [{"name": "main", "tokens": 5000}]},
        {"execution": {"engine": "slrum"}},
        {"model": {"layers": 3}},
    ],
    ids=str,
)
def test_schema_refuses_what_the_models_refuse(wrong):
    schema = recipe_schema()
    assert complaints(wrong, schema, schema)


def test_page_describes_every_key():
    page = recipe_page()
    for key in Recipe.known_keys():
        assert f"| `{key}`" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    undescribed = [row for row in rows if re.split(r"(?<!\\)\|", row)[4].strip() == ""]
    assert undescribed == []
