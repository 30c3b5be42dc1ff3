"""What a recipe compiles to: its stages with what is there already, without making anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.run import Run


def compiled_stages(run: Run) -> list[dict[str, Any]]:
    """Every stage that is known before anything runs: its title, folder, tasks, and how many are missing."""
    from recipes.curate import plan_curation
    from recipes.tokens import plan_tokens

    curation = plan_curation(run)
    stages = list(curation.stages)
    if run.recipe.tokenizer is not None:
        stages += plan_tokens(run, curation).stages
    return [
        {
            "stage": stage.title,
            "verb": stage.verb,
            "folder": stage.folder.name,
            "tasks": len(stage.tasks),
            "missing": len(stage.missing()),
        }
        for stage in stages
    ]
