"""What a recipe compiles to, without making anything: its stages and what is there, its domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.curating.curate import plan_curation
from recipes.errors import RunError
from recipes.progress import Narrator, compact

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


def later_parts(run: Run, last: str) -> list[dict[str, str]]:
    """What comes after curation and tokens, up to the part `last`: part, what it does, state, as far as it is known."""
    from recipes.whole import parts_of, parts_up_to

    parts, wanted = parts_of(run), [part for part in parts_up_to(run, last) if part in _LATER]
    if not wanted:
        return []
    if not text_is_made(run):
        return [{"part": part, "what": _told(run, part), "state": "after the text"} for part in wanted]
    run.narrator, run.remembers = Narrator(silent=True), False  # looking leaves no trace
    open_phases = "ablate" in parts and bool(run.recipe.open_phases())
    chosen, proxies = _chosen_weights(run) if "ablate" in parts else (None, "")
    states = {"ablate": "reused" if chosen else proxies, "scale": "reused where nothing changed"}
    if open_phases and chosen is None:
        after = dict.fromkeys(wanted, "after the ablation")
    else:
        plan, training = are_there(run, chosen) if {"plan", "train"} & set(wanted) else (False, False)
        state = {True: "reused", False: "to make"}
        # What comes after a training that is there may be new all the same; its own part looks.
        after = dict.fromkeys(wanted, "reused where nothing changed" if training else "after training, to make")
        after |= {"plan": state[plan], "train": state[training]}
    if run.recipe.finetuning is not None and run.recipe.finetuning.from_ is not None:
        states["finetune"] = "reused where nothing changed"  # other weights are tuned: no training is waited for
    return [{"part": part, "what": _told(run, part), "state": (after | states)[part]} for part in wanted]


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


def _chosen_weights(run: Run) -> tuple[dict[str, float] | None, str]:
    """Weights that the ablation has chosen, and how many of its proxies there are.

    None also where only the finished runs tell which others are trained, for to know that is to fit them.
    """
    from recipes.ablation.ablate import finished_analysis
    from recipes.ablation.standing import standing_of
    from recipes.ablation.study import prepare
    from recipes.curating.curate import ALL

    run.trains = False
    study: Any = run.recipe.ablation
    swarm = prepare(run)
    standing = standing_of(run, swarm, places=False)
    told = f"{standing.num_finished} of {standing.number} proxies are there"
    if standing.left.number or study.runs.sequential or study.runs.optimum or study.confirm:
        return None, told
    weights = finished_analysis(run, swarm)
    return (None, told) if weights is None else (dict(weights.read_json(ALL, ".analysis.json")["chosen"]), told)


def are_there(run: Run, chosen: dict[str, float] | None) -> tuple[bool, bool]:
    """Whether the plan is made, and this very training was finished before; the text and all weights are there."""
    from recipes.pretraining.train import finished_training, plan_training
    from recipes.tokenizing.tokens import plan_options, plan_plan, plan_tokens

    tokens = plan_tokens(run, plan_curation(run))
    plan = plan_plan(run, tokens, plan_options(run, chosen))
    if plan.missing():
        return False, False
    return True, finished_training(run, plan_training(run, tokens, plan)) is not None
