"""`gristmill finetune`: tune the model on conversations."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Tune the trained model, or the one that `finetuning.from` names, on conversations; export it with its template.

    \b
    gristmill finetune my.yaml --dry-run                         conversations, tokens, train steps; trains nothing
    gristmill finetune my.yaml
    gristmill finetune my.yaml --set finetuning.lora.rank=16
    """
    from recipes.errors import RunError
    from recipes.whole import run_parts

    if not flags.dry_run:
        run_parts(flags, "finetune")
        return
    with flags.open_run(quiet=True) as run:
        if run.recipe.finetuning is None:
            raise RunError(f"{run.recipe.path}: it has no finetuning section")
        from recipes.finetuning.finetune import show_examples

        found = show_examples(run)
    if flags.as_json:
        print_json({"sets": found["sets"], "train_steps": found["train_steps"]})
        return
    for line in found["lines"]:
        click.echo(line)
