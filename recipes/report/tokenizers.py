"""Tokenizers compared: how each does on the same kept-aside text, and how that moves with the training text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from curation.amounts import Amount
from mixing.tokenizer_study import tokens_per_unit, turning_points, unit_of
from recipes.progress import several
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.curves import Curve, Panel, panels_over
from recipes.report.markup import Column, Figure, Section, Table
from recipes.tokenizing.tokenizer_study import Studied

_MIB = 1 << 20
_LONGEST = 60  # characters of an example


def languages_of(studied: Sequence[Studied]) -> list[str]:
    """Languages of the measured text, sorted."""
    return sorted({one["language"] for each in studied for one in each.report["languages"]})


def in_language(one: Studied, language: str) -> dict[str, Any]:
    """Counts and quotients of a tokenizer over all text of a language."""
    found: dict[str, Any] = next(each for each in one.report["languages"] if each["language"] == language)
    return found


def curves_of(studied: Sequence[Studied], language: str) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """For each vocabulary of the study, (bytes trained on, tokens per word or character) in order of bytes."""
    for vocabulary in sorted({one.vocabulary for one in studied if one.size_bytes is not None}):
        points = []
        for one in studied:
            unit = tokens_per_unit(in_language(one, language))
            if one.vocabulary == vocabulary and unit is not None:
                points.append((int(one.report["trained_bytes"]), unit))
        if points:
            yield vocabulary, sorted(set(points))


def verdicts(studied: Sequence[Studied]) -> list[str]:
    """For each vocabulary and language with several samples: where tokens per word are fewest."""
    lines = []
    for language in languages_of(studied):
        for vocabulary, points in curves_of(studied, language):
            if len(points) < 2:
                continue
            best, excess = turning_points(points)
            fewest, least = min(value for _, value in points), points[0][1]
            told = (
                f"{language}, {vocabulary:,} ids: fewest tokens per {unit_of(language)} on {written_size(best)} of text"
            )
            told += f", {1 - fewest / least:.1%} below {written_size(points[0][0])}" if best != points[0][0] else ""
            told += f"; {written_size(points[-1][0])} is {excess:.2%} worse" if excess else ""
            lines.append(told)
    return lines


def written_size(size: int) -> str:
    """Bytes of text: `4 MiB`, or to a tenth where it is not round."""
    return str(Amount(size, "bytes")) if size % _MIB == 0 else f"{size / _MIB:.3g} MiB"


def add_study(section: Section, studied: Sequence[Studied], command: str) -> None:
    """Add the study's pictures and tables to a section."""
    section.figure(_compared(studied, command))
    if any(one.size_bytes is not None for one in studied):
        section.figure(_sizes_picture(studied, command))
        section.listed(verdicts(studied), "what the samples say")
    section.table(
        "Tokenizers by source",
        sources_table(studied),
        "Tokens per word count what stands between two spaces, which is no word in Chinese: compare characters there.",
    )
    section.table("Words that are split most", words_table(studied), "Words seen twice or more, the most tokens first.")
    section.table(
        "Characters without a token of their own",
        symbols_table(studied),
        "Such a character is spelt in bytes, two to four tokens, or lost where the tokenizer has no bytes.",
    )
    for one in studied:
        for source in one.report["sources"]:
            if source["num_not_restored"]:
                number = several(source["num_not_restored"], "document")
                section.say(
                    f"{one.name}, {source['source']}: {number} did not come back as written: "
                    f"{source['first_not_restored']}"
                )


def _compared(studied: Sequence[Studied], command: str) -> Figure:
    columns = (
        Column("tokenizer"), Column("trained on", "size"), Column("vocabulary", "count"), Column("used", "share"),
        Column("documents not restored", "count"), Column("unknown tokens", "count"),
        Column("tokens that are pieces of characters", "share"), Column("language"),
        Column("tokens per word", "number"), Column("tokens per character", "number"),
        Column("bytes per token", "number"),
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for one in studied:
        report = one.report
        for language in report["languages"]:
            rows.append(
                (
                    one.name, report["trained_bytes"] or None, report["vocabulary"], report["used_share"],
                    language["num_not_restored"], language["num_unknown"], language["partial_share"],
                    language["language"], language["tokens_per_word"], language["tokens_per_character"],
                    language["bytes_per_token"],
                )
            )  # fmt: skip
    bars = []
    ready = [one for one in studied if one.size_bytes is None]  # samples have a picture of their own
    for language in languages_of(studied):
        for place, one in enumerate(ready):
            measured = in_language(one, language)
            wide = measured["bytes_per_token"] or 0.0
            told = f"{one.name}, {language}: {wide:.3f} bytes per token"
            bars.append(Bar(f"{language} · {one.name}", (Piece(wide, colour(place), told),), f"{wide:.2f}"))
    return Figure(
        "tokenizers",
        "Bytes per token by language",
        "Longer is better: the same text in fewer tokens. All tokenizers are measured on the same text, which no "
        "sample of this study was trained on. Compare tokenizers within a language, not languages: a Chinese "
        "character is three bytes.",
        stacked_bars(bars, "Bytes per token by language and tokenizer", "bytes of text per token", notes=60.0),
        command,
        Table("tokenizers", columns, tuple(rows)),
    )  # fmt: skip


def _sizes_picture(studied: Sequence[Studied], command: str) -> Figure:
    panels, rows = [], list[tuple[object, ...]]()
    used = {(one.vocabulary, one.report["trained_bytes"]): one.report["used_share"] for one in studied}
    for language in languages_of(studied):
        curves = []
        for place, (vocabulary, points) in enumerate(curves_of(studied, language)):
            shown = tuple((size / _MIB, value) for size, value in points)
            curves.append(Curve(f"{vocabulary:,}", shown, colour(place), dots=True))
            rows += [
                (language, vocabulary, size, unit_of(language), value, used[vocabulary, size]) for size, value in points
            ]
        panels.append(Panel(f"{language}: tokens per {unit_of(language)}", tuple(curves)))
    vocabularies = sorted({one.vocabulary for one in studied if one.size_bytes is not None})
    named = [(f"{vocabulary:,} ids", colour(place)) for place, vocabulary in enumerate(vocabularies)]
    columns = (
        Column("language"), Column("vocabulary", "count"), Column("trained on", "size"), Column("unit"),
        Column("tokens per unit", "number"), Column("vocabulary used", "share"),
    )  # fmt: skip
    return Figure(
        "tokenizer-sizes",
        "Tokens per word by amount of training text",
        "A curve for each vocabulary, lower is better, measured on text that no sample held. More training text does "
        "not always help: a curve that rises to the right has passed its best.",
        legend(named)
        + panels_over(panels, "Tokens per word by amount of training text", ("training text (MiB)", "tokens"), 2),
        command,
        Table("tokenizer_sizes", columns, tuple(rows)),
    )


def sources_table(studied: Sequence[Studied]) -> Table:
    """Every tokenizer on every source."""
    columns = (
        Column("source"), Column("language"), Column("tokenizer"), Column("documents", "count"), Column("text", "size"),
        Column("tokens per word", "number"), Column("tokens per character", "number"),
        Column("bytes per token", "number"), Column("different tokens", "count"),
        Column("documents not restored", "count"), Column("characters without token", "count"),
    )  # fmt: skip
    rows = [
        (
            source["source"], source["language"], one.name, source["num_documents"], source["size_bytes"],
            source["tokens_per_word"], source["tokens_per_character"], source["bytes_per_token"],
            source["used_tokens"], source["num_not_restored"], source["num_missing_symbols"],
        )
        for one in studied
        for source in one.report["sources"]
    ]  # fmt: skip
    return Table("tokenizer_sources", columns, tuple(sorted(rows, key=lambda row: str(row[0]))))


def words_table(studied: Sequence[Studied]) -> Table:
    """The worst-split words of each source and ready tokenizer."""
    columns = (
        Column("tokenizer"), Column("source"), Column("word", "code"), Column("tokens", "count"),
        Column("seen", "count"),
    )  # fmt: skip
    rows = [
        (one.name, source["source"], word[:_LONGEST], tokens, count)
        for one in studied
        if one.size_bytes is None
        for source in one.report["sources"]
        for word, tokens, count in source["worst_split_words"][:5]
    ]
    return Table("tokenizer_words", columns, tuple(rows))


def symbols_table(studied: Sequence[Studied]) -> Table:
    """The most frequent characters that a ready tokenizer has no token for."""
    columns = (
        Column("tokenizer"), Column("source"), Column("different characters", "count"), Column("the most frequent"),
        Column("times", "count"),
    )  # fmt: skip
    rows = [
        (
            one.name, source["source"], source["num_missing_symbols"],
            " ".join(symbol for symbol, _ in source["missing_symbols"][:10]),
            sum(count for _, count in source["missing_symbols"][:10]),
        )
        for one in studied
        if one.size_bytes is None
        for source in one.report["sources"]
        if source["num_missing_symbols"]
    ]  # fmt: skip
    return Table("tokenizer_symbols", columns, tuple(rows))
