"""Rules of a recipe's `finetuning` with its other sections. Each check yields (path, value, reason)."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from curation.fields import Problem, did_you_mean
from recipes.schema.located import NOTHING
from recipes.schema.names import Names
from recipes.schema.recipe import Recipe
from training.tuning.config import layers_of


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
    if wanted.lora is None or recipe.model is None or not own:
        return
    model, layers = recipe.model, layers_of(recipe.model.family)
    for name in wanted.lora.targets:
        if name not in (*layers, "all"):
            reason = f"a {model.family} model has no layer {name}; it has {', '.join(layers)}"
            yield ("finetuning", "lora", "targets"), name, reason
    narrow = min(model.width, model.kv_heads * model.head_width)
    if wanted.lora.rank > narrow:
        reason = f"more than the width of the layers ({narrow}); choose a smaller one, or tune all weights (lora: null)"
        yield ("finetuning", "lora", "rank"), wanted.lora.rank, reason
