"""`gristmill inspect`: documents that a rule kept, dropped or nearly dropped."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.argument("rule")
@click.option("--source", help="Only this source.")
@click.option("--number", default=3, show_default=True, help="Documents of each kind.")
@click.option("--characters", default=240, show_default=True, help="Characters of text to show.")
def command(flags: Flags, rule: str, source: str | None, number: int, characters: int) -> None:
    """Show documents that a rule kept, dropped or nearly dropped, with the deciding value.

    RULE is a step, or step.reason.

    \b
    gristmill inspect recipes/quickstart.yaml gopher
    gristmill inspect recipes/quickstart.yaml gopher.too_few_words --number 10
    """
    from recipes.queries import examples

    step, _, reason = rule.partition(".")
    with flags.open_run() as run:
        found = examples(run, step, reason or None, number, source)
    if flags.as_json:
        print_json(found)
        return
    last = None
    for one in found:
        head = (one["source"], one["reason"], one["kind"])
        if head != last:
            click.echo(click.style(f"\n{one['source']}  {one['step']}.{one['reason']}  {one['kind']}", bold=True))
            click.echo(f"  {one['sql']}")
            last = head
        values = ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in one["values"].items())
        text = " ".join((one["text"] or "").split())[:characters]
        click.echo(f"  {one['content_id'][:12]}  {values}\n    “{text}”")
