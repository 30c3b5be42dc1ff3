"""`gristmill train`: train the model, continuing from the newest whole checkpoint."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--preflight", is_flag=True, help="Only compare the processes and measure them; train nothing.")
def command(flags: Flags, preflight: bool) -> None:
    """Train the model, continuing from the newest whole checkpoint.

    \b
    gristmill train recipes/quickstart.yaml
    gristmill train recipes/quickstart.yaml --preflight
    gristmill train recipes/quickstart.yaml --set training.learning_rate.peak=3e-3
    """
    if preflight:
        _check_only(flags)
        return
    from recipes.whole import run_parts

    run_parts(flags, "train")


def _check_only(flags: Flags) -> None:
    """Make what the training reads, where it is missing, and run its preflight alone."""
    import json

    from recipes.pretraining.preflight import check_only
    from recipes.whole import refuse_later, refuse_starts, refuse_unasked, show_plan

    with flags.open_run() as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "train")
            return
        refuse_later(run)
        refuse_unasked(run, "train")
        refuse_starts(run, "train")
        log = check_only(run, run.training)
        if flags.as_json:
            print_json(json.loads((log / "preflight.json").read_text(encoding="utf-8")))
