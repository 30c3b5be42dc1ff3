"""`gristmill trace`: documents of a train step, train steps of a document."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--train-step", "step", type=int, help="List the documents of this train step, counted from 0.")
@click.option("--document", help="List the train steps of a document: its id, URL or a piece of its text.")
@click.option("--signals", is_flag=True, help="With --train-step: also the signals each document carries.")
@click.option("--characters", default=100, show_default=True, help="Characters of text to show.")
def command(flags: Flags, step: int | None, document: str | None, signals: bool, characters: int) -> None:
    """List the documents of a train step, or the train steps of a document.

    \b
    gristmill trace recipes/quickstart.yaml --train-step 120
    gristmill trace recipes/quickstart.yaml --document 3fa91c0b
    """
    from recipes.errors import RunError
    from recipes.tracing import documents_of_step, open_plan, steps_of_document, with_texts
    from recipes.whole import show_plan

    if (step is None) == (document is None):
        raise RunError("trace needs either --train-step N or --document ID")
    with flags.open_run(quiet=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json)
            return
        opened = open_plan(run)
        if document is not None:
            found = steps_of_document(run, opened, document)
        else:
            assert step is not None
            found = with_texts(run, list(documents_of_step(opened, step)), signals)
    if flags.as_json:
        print_json(found)
        return
    for one in found:
        if document is not None:
            click.echo(f"train step {one['train_step']:>7,}  position {one['position']:>9,}  {one['domain']}")
            continue
        text = " ".join((one["text"] or "").split())[:characters]
        click.echo(
            f"{one['sequence_of_step']:>4}  {one['domain']:<20} epoch {one['epoch']}  {one['num_tokens']:>5} tokens  "
            f"{one['shard']} row {one['row']}\n      “{text}”"
        )
        if one.get("signals"):
            click.echo(
                "      "
                + ", ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in one["signals"].items())
            )
