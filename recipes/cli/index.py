"""`gristmill index`: the indexes of a work directory."""

from __future__ import annotations

from typing import Any

import click

from recipes.cli.options import Flags, print_json, shared_flags
from recipes.progress import compact, compact_bytes


@click.command()
@shared_flags
@click.argument("version", required=False)
@click.option("--check", is_flag=True, help="Read all of it and compare with the published checksums.")
@click.option("--find", "wanted", metavar="ID|FILE|TEXT", help="Documents with this content id or a copy of this text.")
@click.option("--remove", multiple=True, metavar="ID|FILE", help="Publish the next version without these documents.")
@click.option("--remove-source", multiple=True, metavar="PATTERN", help="Publish the next version without a source.")
def command(
    flags: Flags,
    version: str | None,
    check: bool,
    wanted: str | None,
    remove: tuple[str, ...],
    remove_source: tuple[str, ...],
) -> None:
    """List the indexes of a recipe's work directory, look into a version, or publish one without some documents.

    VERSION is NAME@NUMBER. IDs are content ids, as `why` and `overlap` print them; --remove also takes a file of them,
    one a line.

    \b
    gristmill index my.yaml
    gristmill index my.yaml web@2 --check
    gristmill index my.yaml web@2 --find page.txt
    gristmill index my.yaml web@2 --remove 3fa91c0b5d0e4a6f9b1c2d3e4f5a6b7c
    """
    from recipes.curating import index_verb
    from recipes.curating.indexes import chain_of

    if version is None and (check or wanted or remove or remove_source):
        raise click.UsageError("name the version too, such as web@2")
    if check + (wanted is not None) + bool(remove or remove_source) > 1:
        raise click.UsageError("--check, --find and --remove are questions of their own: one in each command")
    with flags.open_run() as run:
        if version is None:
            found: Any = index_verb.list_indexes(run)
        elif remove or remove_source:
            found = [index_verb.told(index_verb.take_out(run, version, remove, remove_source))]
        elif wanted is not None:
            found = index_verb.find(run, version, wanted)
        else:
            chain = index_verb.check(run, version) if check else chain_of(run.store, version)
            found = [index_verb.told(one) for one in chain]
    if flags.as_json:
        print_json(found)
    elif wanted is not None and not remove and not remove_source:
        _show_documents(found, str(version))
    else:
        _show_versions(found, whole=check)


def _show_versions(found: list[dict[str, Any]], whole: bool) -> None:
    if not found:
        click.echo("no index yet; `index: {publish: NAME}` in a dedup step makes one")
    for told in found:
        change = f"{told['added']:,} added, {told['removed']:,} removed"
        label = click.style(f"{told['name']}@{told['version']}", bold=True)
        after = f" after {told['parent']}" if told["parent"] else ""
        click.echo(f"{label}  {told['documents']:,} documents ({change}){after}, {compact_bytes(told['bytes'])}")
        config = " ".join(f"{name}={value}" for name, value in told["config"].items() if name != "compares")
        click.echo(f"  compares {told['config']['compares']}  {config}")
        for name, source in told["sources"].items():
            licences = ", ".join(f"{licence} {number:,}" for licence, number in source["licences"].items())
            click.echo(
                f"  {name}: {source['documents']:,} documents, {compact(source['characters'])} characters; {licences}"
            )
        click.echo(f"  hash {told['hash']}  {told['path']}")
    if whole:
        click.echo("every file is as it was published")


def _show_documents(found: list[dict[str, Any]], version: str) -> None:
    if not found:
        click.echo(f"no such document in {version}")
    for told in found:
        similar = "" if told["similarity"] is None else f"{told['similarity']:.2f}  "
        where = f"{told['source']} {told['shard']} row {told['row']}"
        click.echo(f"  {similar}{told['content_id']}  {told['index']}: {where}, {told['num_characters']:,} characters")
