"""What a recipe compiles to, without making anything: its stages and what is there, its domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curating.curate import plan_curation
from recipes.errors import RunError
from recipes.progress import compact

if TYPE_CHECKING:
    from recipes.pipeline import PlannedStage
    from recipes.run import Run


def compiled_stages(run: Run) -> list[dict[str, Any]]:
    """Every stage that is known before anything runs: its title, folder, tasks, and how many are missing."""
    return [
        {
            "stage": stage.title,
            "verb": stage.verb,
            "folder": stage.folder.name,
            "tasks": len(stage.tasks),
            "missing": len(stage.missing()),
        }
        for stage in planned_stages(run)
    ]


def planned_stages(run: Run) -> list[PlannedStage]:
    """Stages of curation and tokens, as far as they are known before anything runs."""
    from recipes.tokenizing.tokens import plan_tokens

    if not run.recipe.sources:
        return []
    curation = plan_curation(run)
    if run.recipe.tokenizer is None:
        return list(curation.stages)
    return [*curation.stages, *plan_tokens(run, curation).stages]


def domain_tree(run: Run) -> list[str]:
    """Sources and their parts with documents and tokens, where token shards are there; else nothing."""
    from mixing.domain_stage import read_domains
    from recipes.tokenizing.tokens import plan_tokens

    if run.recipe.tokenizer is None:
        return []
    path = Path(plan_tokens(run, plan_curation(run)).domains_path)
    if not path.exists():
        return []
    lines: list[str] = []
    last = ""
    for domain in read_domains(path):
        source, _, part = domain.name.partition("/")
        if part and source != last:
            lines.append(source)
        last = source
        name = f"  └ {part}" if part else source
        trained = f"{compact(domain.num_documents)} documents, {compact(domain.num_tokens)} tokens"
        lines.append(f"{name:<28} {trained:<36} held out {compact(domain.held_out_tokens)} tokens")
    return lines


def refuse_missing(run: Run, stages: list[PlannedStage], verb: str) -> None:
    """Stop where a verb that only reads needs what was not made yet."""
    missing = [stage.title for stage in stages if stage.missing()]
    if missing:
        raise RunError(f"{verb}: {missing[0]} was not made yet; `gristmill run {run.recipe.called}` makes it")
