"""Imports point upstream only: curation <- mixing <- training <- recipes; torch belongs to training alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("curation", "mixing", "training", "recipes")


def imported_modules(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            names.append(node.module or "")
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_imports_nothing_downstream(layer):
    below = LAYERS[LAYERS.index(layer) + 1 :]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / layer).rglob("*.py")
        for name in imported_modules(path)
        if name.split(".")[0] in below
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", ["curation", "mixing"])
def test_layer_without_torch_names_neither_torch_nor_lightning(layer):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / layer).rglob("*.py")
        for name in imported_modules(path)
        if name.split(".")[0] in {"torch", "lightning", "transformers"}
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", ["recipes.schema.recipe", "recipes.cli.main"])
def test_schema_and_command_line_import_light(module):
    heavy = "{'numpy', 'polars', 'numba', 'datatrove', 'torch', 'lightning', 'pyarrow', 'transformers'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert seen.stdout.strip() == "[]"


def test_no_module_is_named_for_nothing():
    names = {"utils", "util", "helpers", "common", "misc", "base", "manager"}
    assert not [p for layer in LAYERS for p in (ROOT / layer).rglob("*.py") if p.stem in names]
