"""`gristmill inspect`: documents that a rule kept, dropped or nearly dropped."""

from __future__ import annotations

from typing import Any

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.argument("rule")
@click.option("--source", help="Only this source.")
@click.option("--number", default=3, show_default=True, help="Documents of each kind.")
@click.option("--characters", default=240, show_default=True, help="Characters of text to show.")
def command(flags: Flags, rule: str, source: str | None, number: int, characters: int) -> None:
    """Show documents that a step kept, dropped or nearly dropped, with the deciding value.

    RULE is a step, or step.reason. Of a dedup step it shows dropped documents beside the one that stays: `duplicate`
    of a document of this run, `in_index` of one that an index has. Of one that cuts paragraphs or
    spans it also shows the documents it took most from. `read` has the rows that could not be read.

    \b
    gristmill inspect recipes/quickstart.yaml gopher
    gristmill inspect recipes/quickstart.yaml gopher.too_few_words --number 10
    gristmill inspect recipes/quickstart.yaml minhash.duplicate
    gristmill inspect recipes/quickstart.yaml read
    """
    from recipes.duplicates import cut_most, drops_duplicates, duplicate_examples
    from recipes.inspecting import examples
    from recipes.queries import open_ledger

    step, _, reason = rule.partition(".")
    with flags.open_run() as run:
        if is_dedup := drops_duplicates(ledger := open_ledger(run), step):
            found = duplicate_examples(ledger, step, reason or None, number, source)
        else:
            found = examples(run, step, reason or None, number, source)
        cut = [] if reason else cut_most(ledger, step, number, source)
    if flags.as_json:
        print_json([*found, *cut])
        return
    if is_dedup:
        _show_duplicates(found, step, characters)
        return
    if not found:
        click.echo(f"{rule}: dropped no row")
    _show_cut(cut, step)
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
