"""Whether this machine has the kernel of attention that a recipe asks for."""

from __future__ import annotations

from collections.abc import Collection

from recipes.pretraining.gpus import visible_gpus
from recipes.schema.located import RecipeErrors
from recipes.schema.recipe import Recipe
from recipes.schema.validation import located_problems
from training.spec import attention_problem


def refuse_unserved_attention(recipe: Recipe, parts: Collection[str]) -> None:
    """Stop before anything is made where attention asks for a kernel that this machine does not have.

    Args:
        recipe: what is run.
        parts: of it that are made here; one that trains nothing may run anywhere.

    Raises:
        RecipeErrors: with its line.
    """
    sections = {"train": recipe.training, "finetune": recipe.finetuning}
    wanted, device = recipe.execution.training.attention, "cuda" if visible_gpus() else "cpu"
    for part, section in sections.items():
        if part not in parts or section is None:
            continue
        problem = attention_problem(wanted, device, section.precision)
        if problem is not None:
            found = [(("execution", "training", "attention"), wanted, problem)]
            raise RecipeErrors(located_problems(recipe, found))
