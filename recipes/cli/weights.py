"""`gristmill weights`: a phase's weights, for other trainers too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from mixing.plan_record import Plan
    from recipes.run import Run

_TRAINERS = ("json", "megatron", "tinyllama", "litdata", "nanotron", "olmo-core", "llm-foundry", "huggingface")


@click.command()
@shared_flags
@click.option("--to", "trainer", type=click.Choice(_TRAINERS), help="Write them as this trainer takes them.")
@click.option("--phase", help="Of this phase; default: the first.")
@click.option("--tokens", "folder", default="tokens", help="Folder that tokenize --to wrote; default: tokens.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def command(flags: Flags, trainer: str | None, phase: str | None, folder: str, out: Path | None) -> None:
    """Print the weights of a phase, natural or chosen by an ablation, for other trainers too.

    \b
    gristmill weights recipe.yaml
    gristmill weights recipe.yaml --to megatron --tokens /data/tokens
    gristmill weights recipe.yaml --to olmo-core --phase cooldown --out mix.yaml
    """
    from recipes.ablation.trainers import WITHOUT_COMMENTS, TrainersError, written_for
    from recipes.artifacts import write_atomically
    from recipes.errors import RunError
    from recipes.whole import show_plan

    with flags.open_run(quiet=trainer is not None and out is None, brief=True, trains=False) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "plan")
            return
        name, shares = _shares(run, phase)
    if trainer is None:
        _show(flags, name, shares)
        return
    try:
        text = written_for(trainer, [share for share in shares if share.weight > 0], folder)
    except TrainersError as error:
        raise RunError(str(error)) from error
    if trainer not in WITHOUT_COMMENTS:
        text = f"# {flags.recipe}, phase {name}: shares of tokens of this recipe's tokenizer\n{text}"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text)
        click.echo(str(out))


def _shares(run: Run, wanted: str | None) -> tuple[str, list[Any]]:
    """The phase's name, and share and passes of every domain as the plan has them."""
    from recipes.ablation.mixtures import domains_to_mix, supply_of
    from recipes.ablation.trainers import Share
    from recipes.errors import RunError

    phases = {phase.name: phase for phase in run.recipe.schedule}
    if not phases or wanted not in (None, *phases):
        raise RunError(f"{run.recipe.path}: no phase {wanted or 'at all'}; phases: {', '.join(phases) or 'none'}")
    phase = phases[wanted] if wanted is not None else run.recipe.schedule[0]
    weights, tokens = _planned(run, phase) if run.recipe.model is not None else _unplanned(run, phase)
    listed = sorted(domains_to_mix(run.tokens), key=lambda one: one.name)
    supply = supply_of(run, listed)
    return phase.name, [
        Share(
            domain.name, weights.get(domain.name, 0.0), domain.num_tokens, domain.num_documents,
            None if tokens is None else weights.get(domain.name, 0.0) * tokens / max(1, supply[domain.name]),
        )
        for domain in listed
    ]  # fmt: skip


def _planned(run: Run, phase: Any) -> tuple[dict[str, float], int]:
    """Weights of a phase as the plan has them, and its tokens."""
    planned = next(one for one in _plan_with(run, phase).phases if one.name == phase.name)
    total = sum(planned.weights.values())
    return {name: weight / total for name, weight in planned.weights.items()}, planned.num_tokens


def _unplanned(run: Run, phase: Any) -> tuple[dict[str, float], int | None]:
    """As `_planned`, of a recipe that trains no model: its weights over the domains there are."""
    from recipes.ablation.mixtures import domains_to_mix, mixture_of
    from recipes.errors import RunError

    tokens = int(phase.tokens.number) if phase.tokens.unit == "tokens" else None
    if tokens is None and phase.weights.kind == "unimax":
        raise RunError(f"{run.recipe.path}: phase {phase.name}: unimax over {phase.tokens} needs a `model:`")
    chosen = run.weights if phase.weights.kind == "ablation" else None
    return mixture_of(run, phase.weights, domains_to_mix(run.tokens), tokens or 0, chosen), tokens


def _plan_with(run: Run, phase: Any) -> Plan:
    """The run's plan. A phase with weights of its own is asked for also while an ablation still chooses another's."""
    from recipes.ablation.provisional import provisional_plan
    from recipes.errors import NotYet
    from recipes.pretraining.train import read_plan

    try:
        return read_plan(run.plan)
    except NotYet:
        if phase.weights.kind == "ablation":
            raise
        return provisional_plan(run)


def _show(flags: Flags, phase: str, shares: list[Any]) -> None:
    if flags.as_json:
        print_json({"phase": phase, "weights": {share.domain: share.weight for share in shares}})
        return
    click.echo(f"{'domain':<28} {'weight':>9} {'tokens there':>14} {'epochs':>7}")
    for share in shares:
        epochs = "" if share.epochs is None else f"{share.epochs:.2f}"
        click.echo(f"{share.domain:<28} {_percent(share.weight):>9} {share.num_tokens:>14,} {epochs:>7}")


def _percent(weight: float) -> str:
    """A weight in per cent; a small one keeps two digits that tell it from none."""
    return f"{weight:.2%}" if weight >= 1e-4 or not weight else f"{100 * weight:.1e}%"
