"""What curation kept of each source and why it dropped the rest, from the counts of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recipes.progress import several
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.markup import Column, Figure, Section, Table, not_made, share, tag
from recipes.report.record import Record, Stage

READ = "read"
# Layers of one source in which rows are dropped. A step may be called as a source is: `web.duplicates` is the step's.
_EDITED_BY = ("text", "decisions")


@dataclass
class StepCount:
    """What one step did to one source: rows that reached it, rows it dropped by reason, rows it could not decide."""

    step: str
    reached: int
    drops: dict[str, int] = field(default_factory=dict)
    undecided: int = 0

    @property
    def dropped(self) -> int:
        """Rows dropped, whatever the reason."""
        return sum(self.drops.values())


@dataclass
class Funnel:
    """The way of one source's rows: read, then step by step."""

    source: str
    rows: int
    steps: list[StepCount]

    @property
    def kept(self) -> int:
        """Rows left at the end."""
        return self.rows - sum(step.dropped for step in self.steps)


def funnels(record: Record) -> list[Funnel]:
    """The funnel of every source, in the ledger's order."""
    ledger = record.ledger
    return [] if ledger is None else [_funnel(record, source.name) for source in ledger.sources]


def _funnel(record: Record, source: str) -> Funnel:
    found = Funnel(source, 0, [])
    for stage in record.of_part("curate"):
        counts = stage.counts
        if stage.kind == f"{source}.rows":
            found.rows = int(counts.get("rows", 0))
            found.steps.append(StepCount(READ, found.rows, _reasons(counts, READ)))
        elif stage.kind in {f"{source}.{layer}" for layer in _EDITED_BY}:
            found.steps += [_step(counts, step) for step in steps_counted(stage)]
        elif f"of.{source}.documents" in counts:
            step = steps_counted(stage)[0]
            known = int(counts.get(f"of.{source}.in_index", 0))
            drops = {"duplicate": int(counts.get(f"of.{source}.duplicates", 0)) - known}
            if f"of.{source}.in_index" in counts:
                drops["in_index"] = known
            found.steps.append(StepCount(step, int(counts[f"of.{source}.documents"]), drops))
    return found


def steps_counted(stage: Stage) -> list[str]:
    """Steps whose rows a stage counts, in order of work: fewer rows reach a later one."""
    steps = [name.partition(".")[2] for name in stage.counts if name.startswith("reached.")]
    titled = [name for name in stage.title.partition(": ")[2].split(", ") if name in steps]
    return titled if len(titled) == len(steps) else sorted(steps, key=lambda one: -int(stage.counts[f"reached.{one}"]))


def _step(counts: Mapping[str, Any], step: str) -> StepCount:
    return StepCount(
        step, int(counts[f"reached.{step}"]), _reasons(counts, step), int(counts.get(f"undecided.{step}", 0))
    )


def _reasons(counts: Mapping[str, Any], step: str) -> dict[str, int]:
    head = f"drop.{step}."
    found = {name.removeprefix(head): int(number) for name, number in counts.items() if name.startswith(head)}
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


# ---------------------------------------------------------------- the section


def curation_section(record: Record) -> Section:
    """The funnel, drop reasons and what reading had to mend; samples and measures are added by others."""
    found = funnels(record)
    if not found:
        return not_made("curation", "Curation", record.command("curate"))
    rows, kept = sum(one.rows for one in found), sum(one.kept for one in found)
    section = Section(
        "curation",
        "Curation",
        f"{kept:,} of {rows:,} documents are kept ({share(kept / max(1, rows))}), from {len(found)} sources.",
    )
    section.figure(_picture(record, found))
    section.table(
        "Why documents were dropped",
        _reason_table(found),
        "A document counts once, for the earliest step that dropped it and there for the first reason by name. "
        "Shares are of the documents that reached the step. Undecided documents lack a signal that a rule asks for; "
        "a rule keeps them.",
    )
    section.say("See the documents of a rule with ", tag("code", record.command("inspect", "STEP.REASON")), ".")
    section.listed(_remarks(record), "warnings")
    _edits(record, section)
    return section


def _picture(record: Record, found: Sequence[Funnel]) -> Figure:
    dropping = {step.step for one in found for step in one.steps if step.dropped}
    steps = [step for step in (READ, *(step.name for step in record.recipe.steps)) if step in dropping]
    steps += sorted(dropping - set(steps))
    named = {step: colour(place + 1) for place, step in enumerate(steps)}
    bars = [Bar(one.source, tuple(_pieces(one, named)), f"{one.kept:,} of {one.rows:,}") for one in found]
    drawn = stacked_bars(
        bars, "Share of documents kept and dropped by each step, by source", "share of documents read (%)", 100.0
    )
    return Figure(
        "funnel",
        "What is left of each source",
        "Each bar is all documents read from a source. Its first piece is what is kept at the end; the others are "
        "what each step dropped, in order of work. At the right: documents kept of documents read.",
        legend([("kept", colour(0)), *((step, named[step]) for step in steps)]) + drawn,
        record.command("whatif", "--set steps.STEP.OPTION=VALUE"),
        _funnel_table(found),
    )


def _pieces(one: Funnel, named: Mapping[str, str]) -> list[Piece]:
    whole = max(1, one.rows)
    told = f"{one.source}: {one.kept:,} of {one.rows:,} documents kept"
    pieces = [Piece(100 * one.kept / whole, colour(0), told, share(one.kept / whole))]
    for step in one.steps:
        if step.dropped:
            part = step.dropped / whole
            most = ", ".join(f"{reason} {number:,}" for reason, number in list(step.drops.items())[:3])
            told = f"{one.source}: {step.step} drops {step.dropped:,} ({share(part)}): {most}"
            pieces.append(Piece(100 * part, named[step.step], told, share(part)))
    return pieces


def _funnel_table(found: Sequence[Funnel]) -> Table:
    columns = (
        Column("source"), Column("step"), Column("documents that reach it", "count"), Column("dropped", "count"),
        Column("share dropped", "share", bar=True), Column("left", "count"), Column("left of those read", "share"),
        Column("undecided", "count"),
    )  # fmt: skip
    rows = [
        (
            one.source, step.step, step.reached, step.dropped, step.dropped / step.reached if step.reached else None,
            step.reached - step.dropped, (step.reached - step.dropped) / one.rows if one.rows else None, step.undecided,
        )
        for one in found
        for step in one.steps
    ]  # fmt: skip
    return Table("funnel", columns, tuple(rows))


def _reason_table(found: Sequence[Funnel]) -> Table:
    columns = (
        Column("source"), Column("step"), Column("reason"), Column("documents", "count"),
        Column("share of those that reached the step", "share", bar=True),
    )  # fmt: skip
    rows = [
        (one.source, step.step, reason, number, number / step.reached if step.reached else None)
        for one in found
        for step in one.steps
        for reason, number in step.drops.items()
        if number
    ]
    return Table("drop_reasons", columns, tuple(rows), head=60)


def _remarks(record: Record) -> list[str]:
    """What a reader must know beside the numbers: broken shards, mended text, alarms of deduplication."""
    said = []
    if record.ledger is not None and record.ledger.until is not None:
        said.append(f"The run was stopped after {record.ledger.until}: what comes after it drops nothing here.")
    for source in record.ledger.sources if record.ledger else ():
        said += [f"{source.name}: shard {shard} set aside: {reason}" for shard, reason in source.broken]
    for stage in record.of_part("curate"):
        name, counts = stage.kind.rpartition(".")[0], stage.counts
        if counts.get("repaired"):
            said.append(f"{name}: invalid UTF-8 was mended in {several(counts['repaired'], 'document')}.")
        unread = {"unread.where": "by `where`", "unread.sample": "by `sample`", "blank": "as blank lines"}
        said += [
            f"{name}: {several(counts[n], 'record')} passed over {words}."
            for n, words in unread.items()
            if counts.get(n)
        ]
        if counts.get("dates_unread"):
            said.append(
                f"{stage.title}: {several(counts['dates_unread'], 'date')} could not be read, taken for missing."
            )
        if counts.get("documents_unlisted"):
            beyond = several(counts["documents_unlisted"], "document")
            said.append(f"{stage.title}: {beyond} beyond the 32 of a band group that later ones are compared with.")
        said += [f"{stage.title}: {alarm}" for alarm in str(counts.get("alarms") or "").split("\n") if alarm]
    return said


def _edits(record: Record, section: Section) -> None:
    """Steps that edit text: bytes before and after."""
    columns = (
        Column("what"), Column("documents", "count"), Column("text before", "size"), Column("text after", "size"),
        Column("left", "share", bar=True), Column("lines or paragraphs removed", "count"),
    )  # fmt: skip
    rows = []
    for stage in record.of_part("curate"):
        counts = stage.counts
        if counts.get("bytes_before"):
            removed = counts.get("lines_dropped", counts.get("paragraphs_removed"))
            left = counts["bytes"] / counts["bytes_before"]
            rows.append((stage.title, counts.get("kept"), counts["bytes_before"], counts["bytes"], left, removed))
    if rows:
        section.table("Text that steps edited", Table("text_edits", columns, tuple(rows)))
