"""`gristmill show`: what would run, the domains, and every resolved value."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--resolved", "values", is_flag=True, help="Print every value of the recipe with where it came from.")
def command(flags: Flags, values: bool) -> None:
    """Show the compiled stages with what is there already, and the domains as a tree with tokens.

    \b
    gristmill show recipes/quickstart.yaml
    gristmill show recipes/quickstart.yaml --resolved
    """
    if values:
        _show_values(flags)
        return
    from recipes.show import compiled_stages, domain_tree

    with flags.open_run() as run:
        stages, domains = compiled_stages(run), domain_tree(run)
    if flags.as_json:
        print_json({"stages": stages, "domains": domains})
        return
    click.echo("stages")
    for stage in stages:
        state = "there" if not stage["missing"] else f"{stage['missing']} of {stage['tasks']} tasks to make"
        click.echo(f"  {stage['stage']:<44} {state}")
    click.echo("\ndomains" if domains else "\ndomains: not known before token shards are written")
    for line in domains:
        click.echo(f"  {line}")


def _show_values(flags: Flags) -> None:
    from recipes.schema.resolved import as_yaml, flat, resolved

    rows = flat(resolved(flags.load()))
    if flags.as_json:
        print_json({path: {"value": found.value, "from": found.origin} for path, found in rows})
        return
    for path, found in rows:
        click.echo(f"{path} = {as_yaml(found.value)}  # {found.origin}")
