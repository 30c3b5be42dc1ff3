"""Rules of a recipe's `finetuning` with its other sections, and with the model it names.

Each check yields (path, value, reason).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from curation.fields import Problem, did_you_mean
from recipes.checks.starts import shape_of_start, tokenizer_beside
from recipes.pretraining.shapes import shape_of
from recipes.schema.located import NOTHING
from recipes.schema.names import Names
from recipes.schema.recipe import Recipe
from training.huggingface import ImportFailed, is_huggingface
from training.models.shape import ModelShape, ShapeError, linear_layers


def finetuning_problems(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """All checks of this file."""
    wanted = recipe.finetuning
    if wanted is None:
        return
    own = wanted.from_ is None
    if own and not {"model", "schedule"} <= names.given:
        reason = "tuning of what? Name weights (from: a checkpoint or a Hugging Face folder), or train a model here"
        yield ("finetuning",), {}, reason
    for name in wanted.examples:
        if not any(fnmatchcase(name, pattern) for pattern in wanted.epochs):
            yield ("finetuning", "epochs"), dict(wanted.epochs), f'says none for {name!r}; add it, or "*" for the rest'
    for pattern in wanted.epochs:
        if not any(fnmatchcase(name, pattern) for name in wanted.examples):
            hint = did_you_mean(pattern, wanted.examples, limit=20)
            yield ("finetuning", "epochs", pattern), wanted.epochs[pattern], f"no set is called so{hint}"
    if wanted.selection is not None and wanted.selection.model_entropy is None and not own:
        reason = "missing: the loss of the model that `from` names on its own text, in nats a token"
        yield ("finetuning", "selection", "model_entropy"), NOTHING, reason
    context = wanted.context or (recipe.model.context if own and recipe.model is not None else None)
    size = wanted.batch
    if context is not None and size.unit == "tokens" and size.number < context:
        yield ("finetuning", "batch"), str(size), f"less than one sequence of {context} tokens"
    if own and recipe.model is not None:
        with suppress(ShapeError):  # told where the model is checked
            yield from _lora_problems(recipe, shape_of(recipe.model, 1))


def tuned_problems(recipe: Recipe) -> Iterator[Problem]:
    """What `finetuning.from` names and cannot be tuned as asked; its config.json or manifest.json is read."""
    wanted = recipe.finetuning
    if wanted is None or wanted.from_ is None:
        return
    path, place = Path(str(wanted.from_)), ("finetuning", "from")
    try:
        shape = shape_of_start(path)
    except ImportFailed as error:
        yield place, str(path), str(error).removeprefix(f"{path}: ")
        return
    if not is_huggingface(path) and recipe.tokenizer is None and tokenizer_beside(path) is None:
        reason = "a checkpoint without its tokenizer; say tokenizer: PATH, or start from its Hugging Face export"
        yield place, str(path), reason
    if is_huggingface(path) and not (path / "tokenizer.json").is_file():
        yield place, str(path), "this folder holds no tokenizer.json; save the tokenizer with save_pretrained"
    if shape.family == "gpt_neo" and (wanted.context or 0) > shape.context:
        reason = f"more than the {shape.context} positions that the model knows"
        yield ("finetuning", "context"), wanted.context, reason
    yield from _lora_problems(recipe, shape)


def _lora_problems(recipe: Recipe, shape: ModelShape) -> Iterator[Problem]:
    """Layers that the model does not have, and a rank above their width."""
    lora = None if recipe.finetuning is None else recipe.finetuning.lora
    if lora is None:
        return
    layers = linear_layers(shape)
    for name in lora.targets:
        if name not in (*layers, "all"):
            reason = f"a {shape.family} model has no layer {name}; it has {', '.join(layers)}"
            yield ("finetuning", "lora", "targets"), name, reason
    adapted = layers if "all" in lora.targets else {name: layers[name] for name in lora.targets if name in layers}
    narrow, name = min(((min(sizes), name) for name, sizes in adapted.items()), default=(lora.rank, ""))
    if lora.rank > narrow:
        reason = f"more than the width of {name} ({narrow}); choose a smaller one, or tune all weights (lora: null)"
        yield ("finetuning", "lora", "rank"), lora.rank, reason
