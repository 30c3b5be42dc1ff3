"""Whose a run's name is: what lies in `runs/NAME` of a work directory belongs to one recipe.

The name is the recipe file's own, so two files of one name could take each other's ledger for theirs. `recipe.json`
in the folder tells whose it is. The name passes to another recipe once that file is gone, and a file that reads the
same over the same raw text shares it (another checkout); a work directory that was moved or copied belongs to whoever
uses it first. Processes of torchrun compare their recipes themselves and are not looked at here: nodes may hold copies.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.artifacts import to_json, write_atomically
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.schema.recipe import Recipe

OWNER = "recipe.json"
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # in the environment of its processes


def refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse a run's folder that belongs to another recipe.

    Args:
        folder: `runs/NAME` of the work directory.
        recipe: the recipe that goes by this name; one that was read from no file is never refused.

    Raises:
        RunError: naming both files and both ways out.
    """
    owner = _owner(folder, recipe)
    if owner is None or _TORCHRUN in os.environ:
        return
    raise RunError(
        f"{recipe.path}: runs/{folder.name} in {folder.parent.parent} belongs to {owner}, another recipe of the same "
        "file name; rename one of them, or give this one a work directory of its own with --set "
        f"execution.workdir=FOLDER (or remove {folder / OWNER} to hand the name over)"
    )


def claim_name(folder: Path, recipe: Recipe) -> None:
    """Note in a run's folder that it belongs to a recipe, unless a recipe that reads the same has it already."""
    if recipe.path is None or _TORCHRUN in os.environ or _is_shared(folder, recipe):
        return
    told = {"recipe": str(recipe.path.resolve()), **_places(folder, recipe)}
    if told != _told(folder):
        write_atomically(folder / OWNER, to_json(told))


def _owner(folder: Path, recipe: Recipe) -> Path | None:
    """The other recipe that a folder belongs to, if there is one that reads differently."""
    other = _other(folder, recipe)
    return None if other is None or _is_shared(folder, recipe) else other


def _other(folder: Path, recipe: Recipe) -> Path | None:
    """The other file that a folder belongs to, if it still exists and uses this very work directory."""
    told = _told(folder)
    if told is None or recipe.path is None or told["workdir"] != _places(folder, recipe)["workdir"]:
        return None
    other = Path(told["recipe"])
    return other if other != recipe.path.resolve() and other.exists() else None


def _is_shared(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder belongs to another file that reads the same, with what it extends, over the same raw text."""
    from recipes.schema.layered import load_located
    from recipes.schema.located import RecipeErrors

    other, told = _other(folder, recipe), _told(folder)
    if other is None or told is None or recipe.path is None or told["raw"] != _places(folder, recipe)["raw"]:
        return False
    try:
        return load_located(other, (), []).plain() == load_located(recipe.path, (), []).plain()
    except (RecipeErrors, OSError):
        return False


def _places(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Where a run works: its work directory and its raw text."""
    return {"workdir": str(folder.parent.parent.resolve()), "raw": str(Path(recipe.execution.raw).resolve())}


def _told(folder: Path) -> dict[str, str] | None:
    path = folder / OWNER
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
