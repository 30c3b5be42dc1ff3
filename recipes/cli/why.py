"""`gristmill why`: a document's fate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import folded

if TYPE_CHECKING:
    from recipes.ledger.queries import Fate

_SHOWN_CHARACTERS = 400
_INDENT = "  "


@click.command()
@shared_flags
@click.argument("document")
@click.option("--most", default=5, show_default=True, help="Documents to show where several match.")
@click.option("--whole", is_flag=True, help="Show the whole text, line by line, instead of its beginning.")
def command(flags: Flags, document: str, most: int, whole: bool) -> None:
    """Tell a document's fate: which step dropped it, on which value, or that it was kept.

    DOCUMENT is a content id (or its beginning), the source's own id, a URL, or a piece of text.

    \b
    gristmill why recipes/quickstart.yaml 3fa91c0b
    gristmill why recipes/quickstart.yaml "the beginning of a sentence"
    """
    from recipes.errors import RunError
    from recipes.ledger.queries import fates

    with flags.open_run() as run:
        found = fates(run, document, most)
    if flags.as_json:
        print_json([asdict(fate) for fate in found])
        return
    if not found:
        raise RunError(f"no document with this id, URL or text: {document!r}")
    for fate in found:
        _show(fate, whole)


def _show(fate: Fate, whole: bool) -> None:
    verdict = click.style("kept", fg="green") if fate.kept else click.style(f"dropped: {fate.reason}", fg="red")
    click.echo(f"{fate.source}  {fate.shard} row {fate.row}  {verdict}")
    lines = [f"content id {fate.content_id}", *(f"{name} {value}" for name, value in fate.who.items())]
    lines += [f"{said['step']}: {line}" for said in fate.steps for line in _verdicts(said)]
    text = " ".join((fate.text or "").split())
    if not whole:
        lines.append(f"“{text[:_SHOWN_CHARACTERS]}{'…' if len(text) > _SHOWN_CHARACTERS else ''}”")
    for line in lines:
        click.echo("\n".join(folded(line, _INDENT, 2 * _INDENT)))
    click.echo(f"\n{fate.text}\n" if whole else "")


def _removed(said: dict[str, Any]) -> str:
    """What a step that edits text took from a document."""
    if "paragraphs_removed" in said:
        lost = said["paragraphs_removed"]
        return f"lost {lost:,} paragraph{'s' if lost > 1 else ''} that stand elsewhere" if lost else "lost no paragraph"
    if not said["characters_removed"]:
        return "lost no span"
    source, shard, row = said["duplicate_of"]
    return f"lost {said['characters_removed']:,} characters; the longest piece stays in {source} {shard} row {row}"


def _duplicate(said: dict[str, Any]) -> str:
    """What a step that drops duplicates said of a document."""
    size = said["cluster_size"]
    if "duplicate_of" not in said:
        return f"stays of a cluster of {size}, by {said.get('kept_by')}" if size and size > 1 else "no duplicate"
    source, shard, row = said["duplicate_of"]
    how = f", similarity {said['similarity']:.2f}" if said["similarity"] is not None else ""
    if "index" in said:
        return f"stands in index {said['index']} as {source} {shard} row {row}{how}"
    why = f"; {size} in its cluster, of which it stays by {said.get('kept_by')}"
    return f"duplicate of {source} {shard} row {row}{how}{why}"


def _verdicts(said: dict[str, Any]) -> Iterator[str]:
    """What one step said: a line, or one for each reason to drop."""
    if "bucket" in said:
        perplexity = said["perplexity"]
        yield f"{said['bucket']}" + (f" (perplexity {perplexity:.1f})" if perplexity is not None else "")
        return
    if "paragraphs_removed" in said or "characters_removed" in said:
        yield _removed(said)
        return
    if "cluster_size" in said:
        yield _duplicate(said)
        return
    if not said["drops"]:
        yield "passed" + (f" (undecided: {', '.join(said['undecided'])})" if said["undecided"] else "")
    for reason, rule in said["drops"].items():
        if not rule["sql"]:
            yield f"drops by {reason}, a rule that the recipe has no more"
            continue
        values = ", ".join(
            f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in rule["values"].items()
        )
        yield f"drops by {reason}: {rule['sql']}  with {values}"
