"""Tokens: the tokenizer, what each source costs in it, and the domains with their held-out text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recipes.progress import compact
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.markup import Column, Figure, Section, Table, not_made, share, tag
from recipes.report.record import Record
from recipes.report.tokenizers import add_study
from recipes.tokenizing.tokenizer_study import read_study


def tokens_of_sources(record: Record) -> dict[str, dict[str, Any]]:
    """Counts of each source's token shards: documents, bytes, characters, tokens."""
    stages = [stage for stage in record.of_part("tokenize") if stage.kind.endswith(".tokens")]
    none = dict.fromkeys(("documents", "bytes", "characters", "tokens"), 0)  # a source whose shards were all set aside
    return {stage.kind.removesuffix(".tokens"): {**none, **stage.counts} for stage in stages}


def tokens_section(record: Record) -> Section:
    """The tokenizer, bytes per token by source, and domains."""
    sources = tokens_of_sources(record)
    if not sources:
        return not_made("tokens", "Tokens", record.command("tokenize"), "tokenize" in record.asked)
    total = sum(int(counts.get("tokens", 0)) for counts in sources.values())
    section = Section("tokens", "Tokens", f"{total:,} tokens in {len(sources)} sources.")
    _say_tokenizer(record, section)
    section.figure(_width_picture(record, sources))
    if record.domains:
        section.figure(_domains_picture(record))
        section.listed([_packing_sentence(one, packed) for one in record.domains for packed in one.get("packed", ())])
    studied = read_study(record.remembered("tokenizer_study"))
    if studied:
        add_study(section, studied, record.command("tokenize", "--report"))
    return section


def _packing_sentence(domain: Mapping[str, Any], packed: Mapping[str, Any]) -> str:
    """What best-fit packing of a domain cost; no token is lost by it."""
    positions = packed["num_sequences"] * (packed["context"] + 1)
    return (
        f"{domain['name']}, packed for {packed['context']:,} tokens: {packed['num_sequences']:,} sequences, "
        f"{share(packed['padding'] / positions if positions else 0)} padding; {packed['cut_documents']:,} of "
        f"{domain['num_documents']:,} documents are longer and were cut, so {packed['repeated_tokens']:,} tokens "
        f"stand in two sequences (predicted in one); no token is lost."
    )


def _say_tokenizer(record: Record, section: Section) -> None:
    stage, wanted = record.titled("tokenizer"), record.recipe.tokenizer
    if stage is not None and wanted is not None:
        counts = stage.counts
        section.say(
            f"A tokenizer of {counts.get('vocabulary', 0):,} tokens ({wanted.algorithm}) was trained on "
            f"{counts.get('documents', 0):,} documents, {compact(float(counts.get('bytes', 0)))} bytes of kept text."
        )
    elif wanted is not None:
        section.say("The tokenizer is ", tag("code", str(wanted.path)), ".")


def _width_picture(record: Record, sources: Mapping[str, Mapping[str, Any]]) -> Figure:
    columns = (
        Column("source"), Column("documents", "count"), Column("text", "size"), Column("characters", "count"),
        Column("tokens", "count"), Column("share of tokens", "share", bar=True), Column("bytes per token", "number"),
        Column("characters per token", "number"),
    )  # fmt: skip
    total = sum(counts["tokens"] for counts in sources.values()) or 1
    rows = []
    for name, counts in sources.items():
        per = [counts[unit] / counts["tokens"] if counts["tokens"] else None for unit in ("bytes", "characters")]
        rows.append(
            (
                name,
                counts["documents"],
                counts["bytes"],
                counts["characters"],
                counts["tokens"],
                counts["tokens"] / total,
                *per,
            )
        )
    bars = []
    for row in rows:
        wide, long = float(row[6] or 0.0), float(row[7] or 0.0)
        told = f"{row[0]}: {wide:.3f} bytes, {long:.3f} characters per token"
        bars.append(Bar(row[0], (Piece(wide, colour(0), told),), f"{wide:.2f} bytes, {long:.2f} characters"))
    return Figure(
        "bytes-per-token",
        "Bytes per token",
        "Longer is better compressed: a model reads more text in one context. Scripts differ in bytes per character "
        "(Latin letters one, Chinese three), so compare sources of one script, and languages by characters per "
        "token, at the right.",
        stacked_bars(bars, "Bytes per token by source", "bytes of text per token", notes=190.0),
        record.command("tokenize"),
        Table("sources_tokens", columns, tuple(rows)),
    )


def _domains_picture(record: Record) -> Figure:
    columns = (
        Column("domain"), Column("documents", "count"), Column("text", "size"), Column("tokens", "count"),
        Column("natural weight", "share", bar=True), Column("held-out tokens", "count"), Column("trained on"),
    )  # fmt: skip
    trained = [one for one in record.domains if one.get("training") is not None]
    total = sum(one["num_tokens"] for one in trained) or 1
    rows, bars = [], []
    for one in record.domains:
        is_trained = one.get("training") is not None
        natural = one["num_tokens"] / total if is_trained else None
        held = int(one.get("held_out_tokens", 0))
        rows.append(
            (
                one["name"],
                one["num_documents"],
                one["size_bytes"],
                one["num_tokens"],
                natural,
                held,
                "yes" if is_trained else "no",
            )
        )
        pieces = (
            Piece(
                one["num_tokens"],
                colour(0) if is_trained else "kx",
                f"{one['name']}: {one['num_tokens']:,} tokens to train on",
            ),
            Piece(held, colour(1), f"{one['name']}: {held:,} tokens held out"),
        )
        bars.append(Bar(one["name"], pieces, f"{compact(one['num_tokens'])} + {compact(held)} held out"))
    return Figure(
        "domains",
        "Domains",
        "What can get a weight: text to train on, and beside it the text held out to measure loss on, which is "
        "never trained on (nor are its duplicates). A domain without text to train on is only measured.",
        legend([("to train on", colour(0)), ("held out", colour(1))])
        + stacked_bars(bars, "Tokens by domain", "tokens", notes=160.0),
        record.command("tokenize"),
        Table("domains", columns, tuple(rows)),
    )
