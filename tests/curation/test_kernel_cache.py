"""The folder of compiled kernels, told without importing numba."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from curation.kernel_cache import compiled_kernels

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from curation.kernel_cache import compiled_kernels, kernels_folder
folder = kernels_folder()
before, without = compiled_kernels(folder), "numba" not in sys.modules
import numba, numpy
from curation.text.spans import count_byte
count_byte(numpy.zeros(9, numpy.uint8), 0, 9, 0)
print(before, without, numba.config.CACHE_DIR == str(folder), compiled_kernels(folder) > 0)
"""


def test_kernels_folder_is_numbas_and_counts_what_is_compiled(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "True", "True", "True"]
    (folder,) = (tmp_path / "gristmill").glob("kernels-*")
    assert compiled_kernels(folder) >= 1


def _named_in_kernels(tree):
    """Names that the kernels of a file use."""
    kernels = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any("kernel" in ast.unparse(one) for one in node.decorator_list)
    ]
    return {node.id for kernel in kernels for node in ast.walk(kernel) if isinstance(node, ast.Name)}


def test_files_whose_values_kernels_compile_in_count_for_their_cache():
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path
             for folder in ("curation", "mixing", "training") for path in (ROOT / folder).rglob("*.py")}  # fmt: skip
    texts = {module: path.read_text() for module, path in files.items()}
    marked = {module for module, text in texts.items() if "@" + "kernel" in text}
    stale = []
    for module in sorted(marked):
        tree = ast.parse(texts[module])
        used = _named_in_kernels(tree)
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module in texts and node.module not in marked:
                stale += [f"{module}: {one.name} of {node.module}" for one in node.names if one.name in used]
    assert len(marked) > 30
    assert not stale, "mention the decorator where these stand, or an edit there leaves compiled kernels as they were"
