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


def text_is_made(run: Run) -> bool:
    """Whether curation and tokens are there: what comes after them is known from then on."""
    return not any(stage.missing() for stage in planned_stages(run))


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


def later_parts(run: Run, last: str) -> list[tuple[str, str]]:
    """What comes after curation and tokens, up to the part `last`: (what it does, when), before anything runs."""
    from recipes.whole import parts_of

    parts = parts_of(run)
    wanted = parts[: parts.index(last) + 1] if last in parts else []
    is_made = text_is_made(run)
    waits = "" if is_made else "after the text"
    if "ablate" in parts and "ablate" in wanted:
        waits = waits or "reused where it is finished; ablate --dry-run counts and times it"
    found = [(_told(run, part), waits or "reused where nothing changed") for part in wanted if part in _LATER]
    if "ablate" in wanted or not is_made or not {"plan", "train"} & set(wanted):
        return found
    reused = _training_is_there(run)
    state = "reused" if reused else "to make"
    return [(told, state if told.startswith(("plan", "training")) else f"after training, {state}") for told, _ in found]


_LATER = {
    "ablate": "ablation: proxies for the weights",
    "scale": "scaling: a ladder of sizes",
    "plan": "plan",
    "train": "training",
    "evaluate": "evaluation",
    "export": "export",
    "finetune": "fine-tuning",
}


def _told(run: Run, part: str) -> str:
    """A part in a few words; of training its size."""
    if part != "train":
        return _LATER[part]
    from recipes.pretraining.shapes import phase_tokens, shape_of
    from recipes.pretraining.training_cost import num_steps, vocabulary_of
    from training.models.shape import num_parameters

    size = num_parameters(shape_of(run.recipe.model, vocabulary_of(run.recipe)))
    steps, tokens = num_steps(run.recipe), sum(phase_tokens(run.recipe))
    return f"training: {steps:,} train steps, {compact(tokens)} tokens, {compact(size)} parameters"


def _training_is_there(run: Run) -> bool:
    """Whether this very training was finished before; the text is made, and weights wait for no ablation."""
    from recipes.pretraining.train import finished_training, plan_training
    from recipes.tokenizing.tokens import plan_options, plan_plan, plan_tokens

    tokens = plan_tokens(run, plan_curation(run))
    plan = plan_plan(run, tokens, plan_options(run))
    return not plan.missing() and finished_training(run, plan_training(run, tokens, plan)) is not None
