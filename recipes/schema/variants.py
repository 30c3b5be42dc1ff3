"""A recipe run with `--set` or `--sample` is a run of its own: its ledger never takes the place of the recipe's.

Artifacts are shared by key as always; only what lies in `runs/NAME` is kept apart, as `runs/NAME@KEY`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.run import FLAGS
from recipes.schema.resolved import differing, values_of

if TYPE_CHECKING:
    from recipes.schema.recipe import Recipe

# Where and how often a run works changes nothing of what it makes.
_SAME_RUN = ("execution", "checkpoints")


def variant_key(written: Recipe, changed: Recipe) -> str:
    """Eight hexadecimal digits of the values in which a recipe differs from its file; empty for the same run."""
    values = values_of(changed)
    found = [path for path in differing(values_of(written), values) if path.split(".")[0] not in _SAME_RUN]
    made = [(path, values.get(path, [None])[0]) for path in found]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8] if made else ""


def variants(workdir: Path, name: str) -> list[str]:
    """The flags of the variants of a recipe that were run in a work directory, as they were written."""
    found = sorted((workdir / "runs").glob(f"{name}@????????/{FLAGS}.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]
