"""The folder of compiled kernels, told without importing numba."""

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
