"""`gristmill whatif`: what a changed threshold would keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact

if TYPE_CHECKING:
    from recipes.ledger.whatif import Change


@click.command()
@shared_flags
def command(flags: Flags) -> None:
    """Say what changed thresholds would keep, from the signals that are there, without running anything.

    Exact up to the next step that looks at other documents, edits text or measures survivors only (dedup, perplexity,
    lines …); beyond it the numbers are an estimate with an interval.

    \b
    gristmill whatif recipes/quickstart.yaml --set steps.gopher.min_words=30
    """
    from recipes.errors import RunError
    from recipes.ledger.whatif import whatif

    if not flags.overrides:
        raise RunError("whatif needs a change, such as --set steps.gopher.min_words=30")
    changed = flags.load()
    with flags.open_run_as_written() as run:
        changes = whatif(run, changed)
    if flags.as_json:
        print_json([asdict(change) for change in changes])
        return
    for line in table(changes):
        click.echo(line)


_COLUMNS = (
    ("kept now", 10), ("kept then", 10), ("change", 9), ("% of documents", 15),
    ("tokens now", 11), ("tokens then", 12), ("change", 9),
)  # fmt: skip


def table(changes: Sequence[Change]) -> Iterator[str]:
    """Lines of a table of documents and (estimated) tokens by source, with the rules and rows that make the change."""
    yield f"{'source':<20}" + "".join(f"{name:>{wide}}" for name, wide in _COLUMNS)
    for change in changes:
        yield from _lines(change)


def _lines(change: Change) -> Iterator[str]:
    more, before = change.kept_after - change.kept_before, change.kept_before
    tokens = change.tokens_after - change.tokens_before
    cells = (
        f"{before:,}", f"{change.kept_after:,}", f"{more:+,}", f"{more / before:+.2%}" if before else "–",
        compact(change.tokens_before), compact(change.tokens_after),
        f"{'-' if tokens < 0 else '+'}{compact(abs(tokens))}",
    )  # fmt: skip
    yield f"{change.source:<20}" + "".join(f"{cell:>{wide}}" for cell, (_, wide) in zip(cells, _COLUMNS, strict=True))
    if not change.exact:
        yield f"    estimate, {change.kept_low:,} to {change.kept_high:,}: a later step looks at what is kept here"
    for word, counted in (("newly kept", change.newly_kept), ("newly dropped", change.newly_dropped)):
        for reason, count in list(counted.items())[:5]:
            yield f"    {word} {count:>8,}  {reason}"
    for one in change.border:
        yield f"    changes sides: {one['content_id'][:12]}  {one['shard']} row {one['row']}  {one['reason']}"
