"""`gristmill tokenize --report` in the terminal: tokenizers compared, as tables; and what its flags mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json

if TYPE_CHECKING:
    from recipes.tokenizing.tokenizer_study import Studied


def compare(flags: Flags, against: Sequence[Path], sizes: str | None, vocabularies: str | None) -> None:
    """Compare tokenizers and print, or write as JSON, what was found."""
    from recipes.errors import RunError
    from recipes.tokenizing.tokenizer_study import Wanted, make_study
    from recipes.whole import refuse_later, show_plan

    if vocabularies and not sizes:
        raise RunError("--vocabularies: say on how much text they are trained, such as --sizes 1MiB,4MiB,16MiB")
    wanted = Wanted(tuple(map(str, against)), _sizes(sizes), _vocabularies(vocabularies))
    with flags.open_run(brief=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "tokenize")
            return
        refuse_later(run)
        studied = make_study(run, wanted)
        if flags.as_json:
            print_json([vars(one) for one in studied])
            return
        show_study(studied)
        click.echo(f"\n{_write(run.folder, run.name, studied)}")


def show_study(studied: Sequence[Studied]) -> None:
    """The comparison as tables of the terminal."""
    from mixing.tokenizer_study import tokens_per_unit, unit_of
    from recipes.report.markup import share
    from recipes.report.tokenizers import in_language, languages_of, verdicts, written_size

    languages = languages_of(studied)
    wide = max(len(one.name) for one in studied)
    heads = "".join(f"{f'{name}/{unit_of(name)}':>14}" for name in languages)
    click.echo("Tokens per word (per character where words have no spaces), on text kept aside from every sample:\n")
    click.echo(f"{'tokenizer':<{wide}} {'trained on':>11} {'ids':>8} {'used':>7} {'pieces':>7} {'not back':>8}{heads}")
    for one in studied:
        report = one.report
        trained = written_size(report["trained_bytes"]) if report["trained_bytes"] else ""
        all_tokens = sum(each["num_tokens"] for each in report["languages"])
        pieces = sum(each["partial_share"] * each["num_tokens"] for each in report["languages"] if each["num_tokens"])
        lost = sum(each["num_not_restored"] for each in report["languages"])
        units = [tokens_per_unit(in_language(one, name)) for name in languages]
        cells = "".join(f"{unit:>14.3f}" if unit is not None else f"{'–':>14}" for unit in units)
        click.echo(
            f"{one.name:<{wide}} {trained:>11} {report['vocabulary']:>8,} {share(report['used_share']):>7} "
            f"{share(pieces / all_tokens if all_tokens else 0):>7} {lost:>8,}{cells}"
        )
    click.echo(
        "\nused: ids that occur in the text; pieces: tokens that are part of a character (bytes in its place); "
        "not back: documents that decode to other text"
    )
    _show_sources([one for one in studied if one.size_bytes is None])
    for line in verdicts(studied):
        click.echo(line)


def _show_sources(ready: Sequence[Studied]) -> None:
    """Bytes per token of each source for each ready tokenizer, and the words the recipe's splits most."""
    click.echo(f"\n{'bytes per token':<20} {'language':<9}" + "".join(f"{one.name[:14]:>15}" for one in ready))
    for place, source in enumerate(ready[0].report["sources"]):
        found = [one.report["sources"][place]["bytes_per_token"] for one in ready]
        cells = "".join(f"{value:>15.3f}" if value is not None else f"{'–':>15}" for value in found)
        click.echo(f"{source['source']:<20} {source['language']:<9}{cells}")
    click.echo("\nwords that the recipe's tokenizer splits most (tokens), and characters it has no token for:")
    for source in ready[0].report["sources"]:
        words = ", ".join(f"{word[:40]} ({tokens})" for word, tokens, _ in source["worst_split_words"][:3])
        symbols = " ".join(symbol for symbol, _ in source["missing_symbols"][:8])
        number = source["num_missing_symbols"]
        click.echo(f"  {source['source']:<18} {words}" + (f"; {number:,}: {symbols}" if number else ""))
    click.echo("")


def _write(folder: Path, name: str, studied: Sequence[Studied]) -> Path:
    """The page of the study and its tables as CSV."""
    from recipes.report.markup import Section
    from recipes.report.page import write_alone
    from recipes.report.tokenizers import add_study

    section = Section("tokenizers", "Tokenizers", "Tokenizers compared on text that no sample of the study held.")
    add_study(section, studied, "gristmill tokenize RECIPE --report")
    return write_alone(folder / "tokenizers.html", f"{name}: tokenizers", [section])


def _sizes(written: str | None) -> tuple[int, ...]:
    from curation.amounts import amount
    from recipes.errors import RunError

    try:
        return tuple(amount(one.strip(), ("bytes",)).number for one in written.split(",")) if written else ()
    except ValueError as error:
        raise RunError(f"--sizes {written}: {error}") from None


def _vocabularies(written: str | None) -> tuple[int, ...]:
    from recipes.errors import RunError

    parts = [part.strip().replace("_", "") for part in written.split(",")] if written else []
    wrong = [part for part in parts if not part.isdigit()]
    if wrong:
        raise RunError(f"--vocabularies {written}: {wrong[0]!r} is no number of ids; write such as 8000,32000")
    return tuple(map(int, parts))
