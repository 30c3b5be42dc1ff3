"""Tokens: the tokenizer, what each source costs in it, and the domains with their held-out text; and the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixing.plan_table import ALL, PlanRow
from recipes.progress import compact
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.markup import Column, Figure, Section, Table, not_made, share, tag
from recipes.report.record import Record
from recipes.report.tokenizers import add_study
from recipes.tokenizer_study import read_study


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


# ---------------------------------------------------------------- plan


def plan_section(record: Record) -> Section:
    """Shares, epochs and unique share of each domain and phase."""
    plan = record.plan
    if plan is None:
        return not_made("plan", "Plan", record.command("plan"), "plan" in record.asked)
    phases = ", then ".join(f"{phase.name} ({phase.num_tokens:,} tokens)" for phase in plan.phases)
    lead = f"{plan.num_tokens:,} tokens in {plan.num_steps:,} train steps: {phases}."
    section = Section("plan", "Plan", lead)
    section.listed(plan.warnings, "warnings")
    section.figure(_shares_picture(record))
    section.figure(_repeats_picture(record))
    return section


def _plan_table(rows: Sequence[PlanRow]) -> Table:
    columns = (
        Column("phase"), Column("domain"), Column("share", "share", bar=True), Column("tokens", "count"),
        Column("documents", "count"), Column("text", "size"), Column("epochs", "epochs"),
        Column("unique share", "share"),
    )  # fmt: skip
    cells = tuple(
        (r.phase, r.domain, r.share, r.num_tokens, r.num_documents, r.size_bytes, float(r.epochs), r.unique_share)
        for r in rows
    )
    return Table("plan", columns, cells)


def _shares_picture(record: Record) -> Figure:
    rows = [row for row in record.plan_rows if row.domain != ALL]
    names = sorted({row.domain for row in rows if row.num_tokens})
    hues = record.hues
    bars = [
        Bar(
            phase,
            tuple(
                Piece(
                    100 * row.share,
                    hues.get(row.domain, "kx"),
                    f"{row.domain}: {share(row.share)}, {row.num_tokens:,} tokens",
                    share(row.share),
                )
                for row in rows
                if row.phase == phase and row.num_tokens
            ),
        )
        for phase in dict.fromkeys(row.phase for row in rows)
    ]
    return Figure(
        "plan-shares",
        "Share of each domain",
        "Each bar is all tokens of a phase (or of the whole run), cut by domain in the order of the legend. A ramp "
        "between phases is part of the later one.",
        legend([(name, hues.get(name, "kx")) for name in names])
        + stacked_bars(bars, "Share of tokens by domain and phase", "share of tokens (%)", 100.0, notes=12.0),
        record.command("plan"),
        _plan_table(record.plan_rows),
    )


def _repeats_picture(record: Record) -> Figure:
    assert record.plan is not None
    phases = {row.phase for row in record.plan_rows}
    whole = ALL if ALL in phases else record.plan.phases[0].name
    rows = [row for row in record.plan_rows if row.phase == whole and row.domain != ALL]
    caps = record.plan.max_epochs
    bars = []
    for row in rows:
        new = float(row.epochs) * row.unique_share
        told = (
            f"{row.domain}: {row.num_tokens:,} tokens drawn, {row.epochs:.2f} epochs, {share(row.unique_share)} unique"
        )
        pieces = (Piece(new, colour(0), told), Piece(float(row.epochs) - new, colour(1), told))
        cap = caps.get(row.domain)
        limit = f" of at most {cap:g}" if cap is not None and cap != float("inf") else ""
        bars.append(Bar(row.domain, pieces, f"{row.epochs:.2f}{limit}"))
    return Figure(
        "plan-epochs",
        "Epochs of each domain",
        "How often the run passes over a domain's text: blue is text seen for the first time, orange what is "
        "repeated. Up to about four epochs, repeated text is worth almost as much as new text (Muennighoff et al. "
        "2023, arXiv:2305.16264).",
        legend([("new", colour(0)), ("repeated", colour(1))])
        + stacked_bars(bars, "Epochs by domain, new and repeated", "epochs", notes=130.0),
        record.command("plan"),
    )
