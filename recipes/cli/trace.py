"""`gristmill trace`: documents of a train step, train steps of a document."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from recipes.ledger.tracing import Opened
    from recipes.run import Run

_MOST_DOMAINS = 12
_MOST_SIGNALS = 40


@click.command()
@shared_flags
@click.option("--train-step", "step", type=int, help="List the documents of this train step, counted from 0.")
@click.option("--sequence", type=int, help="With --train-step: only this sequence of the step, counted from 0.")
@click.option("--document", help="List the train steps of a document: its id, URL or a piece of its text.")
@click.option("--signals", is_flag=True, help="With --train-step: also the signals each document carries.")
@click.option("--whole", is_flag=True, help="With --train-step: whole documents, not the stretch that is trained on.")
@click.option("--characters", default=100, show_default=True, help="Characters of text to show.")
def command(
    flags: Flags,
    step: int | None,
    sequence: int | None,
    document: str | None,
    signals: bool,
    whole: bool,
    characters: int,
) -> None:
    """List the documents of a train step, or the train steps of a document.

    The text shown is what the step trains on, read from its tokens. Nothing was logged for this: it follows from the
    plan, trained or not.

    \b
    gristmill trace recipes/quickstart.yaml --train-step 120
    gristmill trace recipes/quickstart.yaml --train-step 120 --sequence 3 --signals --characters 2000
    gristmill trace recipes/quickstart.yaml --document 3fa91c0b
    """
    from recipes.errors import RunError
    from recipes.ledger.tracing import open_plan, steps_of_document
    from recipes.whole import show_plan

    if (step is None) == (document is None):
        raise RunError("trace needs either --train-step N or --document ID")
    with flags.open_run(quiet=True, trains=False) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "train")
            return
        opened = open_plan(run)
        if opened.pinned:
            told = "the recipe gives other text by now; this is what the unfinished training was trained on"
            click.echo(f"{flags.recipe}: {told}", err=True)
        if document is not None:
            found = steps_of_document(run, opened, document)
        else:
            assert step is not None
            found = _documents(run, opened, step, sequence, signals, None if whole else characters)
    if flags.as_json:
        print_json(found)
    elif document is not None:
        _show_steps(opened, found)
    else:
        _show_documents(opened, step or 0, found, characters)


def _documents(
    run: Run, opened: Opened, step: int, sequence: int | None, signals: bool, characters: int | None
) -> list[dict[str, Any]]:
    """Documents of a step with the stretch of text that is trained on, or whole ones where `characters` is None."""
    from recipes.ledger.tracing import documents_of_step, with_signals, with_stretches, with_texts

    traced = list(documents_of_step(opened, step, sequence))
    found = with_texts(run, traced) if characters is None else with_stretches(run, opened, traced, characters)
    return with_signals(run, found) if signals else found


def _show_documents(opened: Opened, step: int, found: list[dict[str, Any]], characters: int) -> None:
    """A head line with the domains' shares, then each sequence with its documents."""
    from recipes.ledger.tracing import positions_of_step

    first, span = positions_of_step(opened, step)
    phase = next(phase for phase in opened.plan.phases if first < phase.stop)
    tokens: Counter[str] = Counter()
    for one in found:
        tokens[one["domain"]] += one["num_tokens"]
    total = sum(tokens.values()) or 1
    click.echo(
        f"train step {step:,} of {opened.course.num_steps:,} (phase {phase.name}): positions {first:,} to "
        f"{first + span.sequences - 1:,}, {span.sequences:,} sequences of {span.context:,} tokens"
    )
    if len({one["sequence_of_step"] for one in found}) < span.sequences:
        tokens.clear()  # the shares of one sequence are not the step's
    shares = [f"{name} {count / total:.1%}" for name, count in tokens.most_common(_MOST_DOMAINS)]
    more = len(tokens) - len(shares)
    if shares:
        click.echo("  " + ", ".join(shares) + (f", and {more:,} more domains" if more > 0 else ""))
    before = None
    for one in found:
        if one["sequence_of_step"] != before:
            before = one["sequence_of_step"]
            click.echo(f"\nsequence {before}: {one['domain']}, epoch {one['epoch']}, its sequence {one['sequence']:,}")
        who = f"{(one.get('content_id') or '')[:12]:<12}"
        click.echo(f"  {one['num_tokens']:>6,} tokens  {who}  {one['shard']} row {one['row']}")
        click.echo(f"      “{' '.join((one['text'] or '').split())[:characters]}”")
        if one.get("signals"):
            click.echo(f"      {_signals(one['signals'])}")


def _signals(signals: dict[str, Any]) -> str:
    told = [f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in signals.items() if n not in _WHO]
    return ", ".join(told[:_MOST_SIGNALS]) + (" …" if len(told) > _MOST_SIGNALS else "")


_WHO = frozenset({"row", "source", "shard", "kept"})


def _show_steps(opened: Opened, found: list[dict[str, Any]]) -> None:
    """A line for each train step that holds tokens of the document."""
    if not found:
        click.echo("in no train step: the document is held out, or the plan ends before it comes")
        return
    steps = len({one["train_step"] for one in found} - {None})
    click.echo(f"{steps:,} train steps of {opened.course.num_steps:,}\n")
    for one in found:
        step = "passed over" if one["train_step"] is None else f"{one['train_step']:,}"
        click.echo(
            f"train step {step:>11}  position {one['position']:>13,}  {one['domain']}, "
            f"epoch {one['epoch']}, sequence {one['sequence']:,}: {one['num_tokens']:,} tokens"
        )
