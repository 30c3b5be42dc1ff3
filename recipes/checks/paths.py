"""Files that a recipe names and that must be there: tokenizers, weights, models that are started from, examples.

`gristmill validate` looks for all of them; a run looks for the tokenizer and for what it tunes before it reads
anything. Nothing that a run makes is named by a path, so what is missing stays missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.fields import Problem
from recipes.checks.finetuning import tuned_problems
from recipes.checks.starts import trained_problems
from recipes.schema.located import Located, Segments
from recipes.schema.recipe import Recipe
from recipes.schema.validation import located_problems
from training.tuning.config import TEMPLATES
from training.tuning.examples import ExamplesError, find_files


def path_problems(recipe: Recipe) -> list[Located]:
    """Paths of a recipe where nothing lies, each with its place."""
    found = [*_of_tokenizer(recipe), *_of_weights(recipe), *_of_training(recipe), *_of_finetuning(recipe)]
    return located_problems(recipe, found)


def tokenizer_problems(recipe: Recipe) -> list[Located]:
    """A tokenizer that is not there, with its place."""
    return located_problems(recipe, list(_of_tokenizer(recipe)))


def training_problems(recipe: Recipe) -> list[Located]:
    """What a training starts from, where it is not there or does not fit the model."""
    return located_problems(recipe, list(_of_training(recipe)))


def finetuning_path_problems(recipe: Recipe) -> list[Located]:
    """What a fine-tuning starts from, its template and its examples, where they are not there or do not fit."""
    return located_problems(recipe, list(_of_finetuning(recipe)))


def _of_tokenizer(recipe: Recipe) -> Iterator[Problem]:
    """A tokenizer is a tokenizer.json, or a folder that holds one."""
    wanted = recipe.tokenizer
    for key in ("path", "base") if wanted is not None else ():
        named = getattr(wanted, key)
        if named is None:
            continue
        place, path = ("tokenizer", "base") if key == "base" else ("tokenizer",), Path(str(named))
        if not path.exists():
            yield place, str(named), f"no such file or folder{_beside(path)}; name a tokenizer.json or its folder"
        elif path.is_dir() and not (path / "tokenizer.json").is_file():
            yield place, str(named), "this folder holds no tokenizer.json; save the tokenizer with save_pretrained"


def _beside(path: Path) -> str:
    """The nearest folder above a missing path that is there, so that a slip in the middle shows."""
    path = path.absolute()
    there = next((folder for folder in path.parents if folder.is_dir()), path.parent)
    return "" if there == path.parent else f" (there is {there}, nothing of {path.relative_to(there)})"


def _of_weights(recipe: Recipe) -> Iterator[Problem]:
    """Files of weights, of phases and of baselines."""
    places: list[tuple[Segments, Any]] = [
        (("schedule", place, "weights"), phase.weights) for place, phase in enumerate(recipe.schedule)
    ]
    if recipe.ablation is not None:
        places += [(("ablation", "baselines", n), one) for n, one in enumerate(recipe.ablation.baselines)]
    for place, weights in places:
        if weights.kind == "file" and not Path(str(weights.path)).is_file():
            yield place, str(weights.path), "no such file"


def _of_training(recipe: Recipe) -> Iterator[Problem]:
    """The checkpoint or model that training starts from."""
    start = None if recipe.training is None else recipe.training.from_
    if start is not None and not Path(str(start)).exists():
        yield ("training", "from"), str(start), "no such file or folder"
    else:
        yield from trained_problems(recipe)


def _of_finetuning(recipe: Recipe) -> Iterator[Problem]:
    """The model that is tuned, the template's file and the files of examples."""
    wanted = recipe.finetuning
    if wanted is None:
        return
    start = None if wanted.from_ is None else Path(str(wanted.from_))
    if start is not None and not start.exists():
        yield ("finetuning", "from"), str(start), f"no such file or folder{_beside(start)}"
    elif start is not None:
        yield from tuned_problems(recipe)
    if wanted.template not in TEMPLATES and not Path(wanted.template).is_file():
        yield ("finetuning", "template"), wanted.template, f"no such file{_beside(Path(wanted.template))}"
    for name, examples in wanted.examples.items():
        for path in examples.path:
            try:
                find_files([path], name)
            except ExamplesError as error:
                reason = str(error).removeprefix(f"finetuning.examples.{name}: ")
                yield ("finetuning", "examples", name, "path"), path, reason
