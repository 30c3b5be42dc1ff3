"""`gristmill overlap`: how much sources and indexes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.argument("names", nargs=-1)
@click.option(
    "--similarity", type=click.FloatRange(0, 1, min_open=True), default=0.8, show_default=True,
    help="Least Jaccard similarity of near copies.",
)  # fmt: skip
@click.option("--examples", default=2, show_default=True, help="Pairs to show of each two, exact and near.")
@click.option("--curated", is_flag=True, help="Compare what the curated run keeps, instead of all that is read.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the table here.")
def command(
    flags: Flags, names: tuple[str, ...], similarity: float, examples: int, curated: bool, csv_path: Path | None
) -> None:
    """Show how much sources and indexes share: documents, exact and near copies, examples.

    NAMES are sources of the recipe, patterns of them, or versions of indexes (web@2); without any, all sources and the
    indexes that the recipe's steps name. Steps are not run: documents are compared as they are read.

    \b
    gristmill overlap recipes/quickstart.yaml
    gristmill overlap recipes/quickstart.yaml "de_*" en_wiki --examples 5
    gristmill overlap new_dump.yaml new web@2
    """
    from recipes.curating.overlap import Asked, overlap, write_csv

    with flags.open_run() as run:
        found = overlap(run, Asked(names, similarity, examples, curated))
    if csv_path is not None:
        write_csv(found, csv_path)
    if flags.as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    collections = found["collections"]
    names = list(collections)
    cells = {(cell["of"], cell["in"]): cell for cell in found["overlap"]}
    width = max(12, *(len(name) + 2 for name in names))
    near = "" if found["similarity"] is None else f" or similar by {found['similarity']:g} or more"
    click.echo(f"\nShare of a row's documents with a copy in the column: the same text{near}.")
    click.echo("On the diagonal: with another copy in the same place.\n")
    first = max(len(name) for name in names)
    click.echo(f"{'':<{first}} {'documents':>11}" + "".join(f"{name:>{width}}" for name in names))
    for name in names:
        shares = "".join(f"{_share(cells[name, other], collections[name]):>{width}}" for other in names)
        click.echo(f"{name:<{first}} {collections[name]['documents']:>11,}{shares}")
    if not any(cell["exact"] + cell["near"] for cell in found["overlap"]):
        click.echo("\nno document has a copy")
    for pair in _pairs(names):
        _show_pair(found, cells, *pair)


def _share(cell: dict[str, Any], told: dict[str, Any]) -> str:
    both = cell["exact"] + cell["near"]
    if not both or not told["documents"]:
        return "·"
    share = 100 * both / told["documents"]
    return f"{share:.1f} %" if share >= 0.05 else "<0.1 %"


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(one, other) for place, one in enumerate(names) for other in names[place:]]


def _show_pair(found: dict[str, Any], cells: dict[tuple[str, str], dict[str, Any]], one: str, other: str) -> None:
    ways = [(one, other)] if one == other else [(one, other), (other, one)]
    told = [cells[way] for way in ways if cells[way]["exact"] + cells[way]["near"]]
    if not told:
        return
    click.echo("")
    for cell in told:
        whole = found["collections"][cell["of"]]
        where = "more than once" if cell["of"] == cell["in"] else f"in {cell['in']}"
        text = f", {100 * cell['characters'] / whole['characters']:.1f} % of its text" if whole["characters"] else ""
        head = f"{cell['exact'] + cell['near']:,} of {whole['documents']:,} documents of {cell['of']} {where}"
        click.echo(click.style(head, bold=True) + f"{text}: {cell['exact']:,} exact, {cell['near']:,} near")
    for pair in found["pairs"]:
        if (pair["of"], pair["in"]) == (one, other):
            click.echo(f"  {pair['similarity']:.2f}  {'  ~  '.join(map(_document, pair['documents']))}")
            click.echo(
                f"        “{pair['common']}”" if pair["common"] else "        (no piece of five words in common)"
            )


def _document(told: dict[str, Any]) -> str:
    where = f"{told['index']}: " if "index" in told else ""
    own = f" ({told['origin_id']})" if told.get("origin_id") else ""
    return f"{told['content_id'][:12]} {where}{told['source']} {told['shard']} row {told['row']}{own}"
