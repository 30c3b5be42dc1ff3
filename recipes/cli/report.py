"""`gristmill report`: write the HTML report of what has been done so far, or draw some of its figures."""

from __future__ import annotations

from pathlib import Path

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--figure", "figures", multiple=True, metavar="NAME", help="Draw only this figure anew, as SVG and CSV.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME=PATTERN",
    help="A corner of the triangle of mixtures; three of them. Default: by language.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the figures; default: beside.")
def command(flags: Flags, figures: tuple[str, ...], groups: tuple[str, ...], out: Path | None) -> None:
    """Write the HTML report of what has been done so far; its tables and figures lie beside it in `report/`.

    \b
    gristmill report recipes/quickstart.yaml
    gristmill report recipes/quickstart.yaml --figure dependence --figure matrix --out figures
    gristmill report recipes/quickstart.yaml --figure triangle --group 'de=de_*' --group 'zh=zh_*' --group 'rest=*'
    """
    from recipes.whole import refuse_later, run_parts

    if flags.dry_run or not (figures or groups):
        run_parts(flags, "report")
        return
    from recipes.report.page import draw_figures, write_page

    corners = _corners(groups)
    with flags.open_run(brief=True) as run:
        refuse_later(run)
        if figures:
            written = draw_figures(run, figures, corners, out or run.folder / "report")
        else:
            written = [write_page(run, corners)]
    if flags.as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        click.echo("\n".join(str(path) for path in written))


def _corners(groups: tuple[str, ...]) -> dict[str, str] | None:
    """Three names with their patterns; the first that covers a domain has it."""
    corners = dict(group.partition("=")[::2] for group in groups)
    if groups and (len(corners) != 3 or not all(corners.values())):
        raise click.UsageError("--group NAME=PATTERN is given three times, once for each corner of the triangle")
    return corners or None
