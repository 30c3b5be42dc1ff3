"""`gristmill weights`: a phase's weights, for other trainers too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
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
    from recipes.ablation.trainers import COMMENTS, TrainersError, written_for
    from recipes.artifacts import write_atomically
    from recipes.errors import RunError
    from recipes.whole import show_plan

    with flags.open_run(quiet=trainer is not None and out is None, brief=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json)
            return
        name, shares = _shares(run, phase)
    if trainer is None:
        _show(flags, name, shares)
        return
    try:
        text = written_for(trainer, [share for share in shares if share.weight > 0], folder)
    except TrainersError as error:
        raise RunError(str(error)) from error
    if trainer not in COMMENTS:
        text = f"# {flags.recipe}, phase {name}: shares of tokens of this recipe's tokenizer\n{text}"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text)
        click.echo(str(out))


def _shares(run: Run, wanted: str | None) -> tuple[str, list[Any]]:
    """The phase's name and every domain's share, rounded so that they sum to 1."""
    from recipes.ablation.mixtures import domains_to_mix, mixture_of, target_tokens
    from recipes.ablation.trainers import Share
    from recipes.cli.pin import rounded
    from recipes.errors import RunError

    phases = {phase.name: phase for phase in run.recipe.schedule}
    if not phases or wanted not in (None, *phases):
        raise RunError(f"{run.recipe.path}: no phase {wanted or 'at all'}; phases: {', '.join(phases) or 'none'}")
    phase = phases[wanted] if wanted is not None else run.recipe.schedule[0]
    chosen = run.weights if phase.weights.kind == "ablation" else None
    listed = domains_to_mix(run.tokens)
    budget = target_tokens(run)
    mixture = rounded(mixture_of(run, phase.weights, listed, budget, chosen))
    return phase.name, [
        Share(
            domain.name, mixture[domain.name], domain.num_tokens, domain.num_documents,
            mixture[domain.name] * budget / domain.num_tokens,
        )
        for domain in sorted(listed, key=lambda one: one.name)
    ]  # fmt: skip


def _show(flags: Flags, phase: str, shares: list[Any]) -> None:
    if flags.as_json:
        print_json({"phase": phase, "weights": {share.domain: share.weight for share in shares}})
        return
    click.echo(f"{'domain':<28} {'weight':>8} {'tokens there':>14} {'epochs':>7}")
    for share in shares:
        click.echo(f"{share.domain:<28} {share.weight:>8.4f} {share.num_tokens:>14,} {share.epochs:>7.2f}")
