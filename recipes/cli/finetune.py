"""`gristmill finetune`: tune the model on conversations."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option(
    "--look",
    type=click.IntRange(1),
    metavar="N",
    help="Show N sequences of each set with what is learnt; train nothing.",
)
def command(flags: Flags, look: int | None) -> None:
    """Tune the trained model, or the one that `finetuning.from` names, on conversations; export it with its template.

    \b
    gristmill finetune my.yaml --dry-run                         conversations, tokens, train steps; trains nothing
    gristmill finetune my.yaml --look 2                          what is learnt and what is only read, what is dropped
    gristmill finetune my.yaml
    gristmill finetune my.yaml --set finetuning.lora.rank=16
    """
    from recipes.errors import RunError
    from recipes.whole import run_parts

    if not flags.dry_run and look is None:
        run_parts(flags, "finetune")
        return
    with flags.open_run(quiet=True) as run:
        if run.recipe.finetuning is None:
            raise RunError(f"{run.recipe.path}: it has no finetuning section")
        from recipes.finetuning.finetune import show_examples

        found = show_examples(run, look or 0)
    if flags.as_json:
        told = {"sets": found["sets"], "train_steps": found["train_steps"]}
        shown = {"sequences": [vars(one) for one in found["sequences"]], "dropped": found["dropped"]}
        print_json({**told, **shown} if look else told)
        return
    if look is not None:
        from recipes.finetuning.look import look_lines

        for text, learnt in look_lines(found["sequences"], found["dropped"]):
            click.secho(text, nl=False, fg="green" if learnt else None)
        return
    for line in found["lines"]:
        click.echo(line)
