"""`gristmill inspect`: documents that a rule kept, dropped or nearly dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from recipes.run import Run


@click.command()
@shared_flags
@click.argument("rule", required=False)
@click.option("--source", help="Only this source.")
@click.option("--number", default=3, show_default=True, help="Documents of each kind.")
@click.option("--characters", default=240, show_default=True, help="Characters of text to show.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page instead.")
def command(
    flags: Flags, rule: str | None, source: str | None, number: int, characters: int, page: Path | None
) -> None:
    """Show documents that a step kept, dropped or nearly dropped, with the deciding value.

    RULE is a step, or step.reason; without it, every step that drops. Of a dedup step it shows dropped documents
    beside the one that stays: `duplicate` of a document of this run, `in_index` of one that an index has. Of one that
    cuts paragraphs or spans it also shows the documents it took most from. `read` has the rows that could not be read.

    \b
    gristmill inspect recipes/quickstart.yaml gopher
    gristmill inspect recipes/quickstart.yaml gopher.too_few_words --number 10
    gristmill inspect recipes/quickstart.yaml minhash.duplicate
    gristmill inspect recipes/quickstart.yaml read
    gristmill inspect recipes/quickstart.yaml --page inspect.html
    """
    from curation.ledger import reasons_in_order
    from recipes.ledger.queries import open_ledger

    with flags.open_run() as run:
        asked = [rule] if rule else list(reasons_in_order(open_ledger(run)))
        found = {one: _found(run, one, number, source) for one in asked}
        if page is not None:
            _write_page(page, run, found, characters)
            return
    if flags.as_json:
        print_json([one for documents in found.values() for part in documents if part for one in part])
        return
    for one, (ruled, duplicates, cut) in found.items():
        step = one.partition(".")[0]
        if duplicates is not None:
            _show_duplicates(duplicates, step, characters)
        else:
            _show_ruled(one, ruled, cut, characters)


def _found(run: Run, rule: str, number: int, source: str | None) -> tuple[list[Any], list[Any] | None, list[Any]]:
    """Documents under rules; duplicates, where the step drops such (else None); the documents it cut most from."""
    from recipes.ledger.duplicates import cut_most, drops_duplicates, duplicate_examples
    from recipes.ledger.inspecting import examples
    from recipes.ledger.queries import open_ledger

    step, _, reason = rule.partition(".")
    ledger = open_ledger(run)
    cut = [] if reason else cut_most(ledger, step, number, source)
    if drops_duplicates(ledger, step):
        return [], duplicate_examples(ledger, step, reason or None, number, source), cut
    return examples(run, step, reason or None, number, source), None, cut


def _write_page(page: Path, run: Run, found: Mapping[str, tuple[Any, Any, Any]], characters: int) -> None:
    from recipes.report.inspected import write_inspected

    ruled = [one for documents, _, _ in found.values() for one in documents]
    duplicates = [
        {**one, "step": rule.partition(".")[0]} for rule, (_, dropped, _) in found.items() for one in dropped or ()
    ]
    write_inspected(page, run.name, ruled, duplicates, characters)
    click.echo(f"wrote {page}")


def _show_ruled(rule: str, found: list[dict[str, Any]], cut: list[dict[str, Any]], characters: int) -> None:
    if not found:
        click.echo(f"{rule}: dropped no row")
    _show_cut(cut, rule.partition(".")[0])
    last = None
    for one in found:
        head = (one["source"], one["reason"], one["kind"])
        if head != last:
            click.echo(click.style(f"\n{one['source']}  {one['step']}.{one['reason']}  {one['kind']}", bold=True))
            if one["sql"]:
                click.echo(f"  {one['sql']}")
            last = head
        values = ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in one["values"].items())
        where = f"no text: {one['shard']} row {one['row']}"
        text = where if one["text"] is None else f"“{' '.join(one['text'].split())[:characters]}”"
        click.echo(f"  {one['content_id'][:12]}  {values}\n    {text}")


def _show_cut(cut: list[dict[str, Any]], step: str) -> None:
    """Of a step that cuts pieces out of texts, the most cut ones."""
    last = None
    for one in cut:
        if one["source"] != last:
            click.echo(click.style(f"\n{one['source']}  {step}", bold=True), nl=False)
            click.echo(f"  {one['removed_in_all']:,} {one['unit']} cut; documents it cut: {one['documents']:,}")
            last = one["source"]
        click.echo(f"  {one['content_id'][:12]}  {one['shard']} row {one['row']}: {one['removed']:,} {one['unit']}")
    if cut:
        click.echo("\n`gristmill why RECIPE ID` tells more of each")


def _show_duplicates(found: list[dict[str, Any]], step: str, characters: int) -> None:
    if not found:
        click.echo(f"{step}: no such document was dropped")
    last = None
    for one in found:
        if (head := (one["source"], one["reason"])) != last:
            click.echo(click.style(f"\n{one['source']}  {step}.{one['reason']}", bold=True))
            last = head
        source, shard, row = one["duplicate_of"]
        similar = "" if one["similarity"] is None else f", similarity {one['similarity']:.2f}"
        where = f"stands in index {one['index']} as" if one["index"] else "duplicate of"
        click.echo(f"  {one['content_id'][:12]}  {where} {source} {shard} row {row}{similar}")
        texts = [one["text"]] + ([one["other_text"]] if one["other_text"] is not None else [])
        for text in texts:
            click.echo(f"    “{' '.join((text or '').split())[:characters]}”")
