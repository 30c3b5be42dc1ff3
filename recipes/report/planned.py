"""The plan: shares, epochs and unique text of each domain and phase, and over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mixing.plan_course import Stretch, course
from mixing.plan_record import Plan
from mixing.plan_table import ALL, PlanRow, table
from recipes.report.axes import colour, legend
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.curves import Curve, curves_over
from recipes.report.markup import Column, Figure, Section, Table, not_made, share
from recipes.report.record import Record

_STRETCHES = 120  # of a picture over training
_MOST_CURVES = 12


def plan_section(record: Record) -> Section:
    """Shares, epochs and unique share of each domain and phase."""
    plan = record.plan
    if plan is None:
        return not_made("plan", "Plan", record.command("plan"), "plan" in record.asked)
    phases = ", then ".join(f"{phase.name} ({phase.num_tokens:,} tokens)" for phase in plan.phases)
    lead = f"{plan.num_tokens:,} tokens in {plan.num_steps:,} train steps: {phases}."
    section = Section("plan", "Plan", lead)
    add_plan(section, Planned(plan, record.hues, record.command("plan")))
    return section


@dataclass(frozen=True)
class Planned:
    """A plan to be drawn: colours of its domains, the command it came from, and groups (patterns) of domains."""

    plan: Plan
    hues: Mapping[str, str]
    command: str
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[PlanRow]:
        """The plan's table, without groups."""
        return table(self.plan)


def add_plan(section: Section, planned: Planned) -> None:
    """Add a plan's pictures and tables to a section."""
    section.listed(planned.plan.warnings, "warnings")
    section.figure(_shares_picture(planned))
    stretches = course(planned.plan, _STRETCHES, planned.groups)
    section.figure(_course_picture(planned, stretches))
    section.figure(_passes_picture(planned, stretches))
    section.figure(_repeats_picture(planned))


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


def _shares_picture(planned: Planned) -> Figure:
    rows = [row for row in planned.rows if row.domain != ALL]
    names = sorted({row.domain for row in rows if row.num_tokens})
    hues = planned.hues
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
        planned.command,
        _plan_table(planned.rows),
    )


def _repeats_picture(planned: Planned) -> Figure:
    phases = {row.phase for row in planned.rows}
    whole = ALL if ALL in phases else planned.plan.phases[0].name
    rows = [row for row in planned.rows if row.phase == whole and row.domain != ALL]
    caps = planned.plan.max_epochs
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
        planned.command,
    )


# ---------------------------------------------------------------- over training


def _course_picture(planned: Planned, stretches: Sequence[Stretch]) -> Figure:
    curves = [
        Curve(
            name,
            _steps([(100 * stretch.rows[name].share) for stretch in stretches], stretches),
            planned.hues.get(name, "kx"),
        )
        for name in reversed(_largest(stretches, planned))
    ]
    unique = [100 * stretch.rows[ALL].unique_share for stretch in stretches]
    curves.insert(0, Curve("unique text", _steps(unique, stretches), "kx", thin=True))
    return Figure(
        "plan-course",
        "Shares over training",
        "What each domain gives at every point of training, and (grey) how much of all that is read there is text the "
        f"run has not seen before. {_which(planned)}The table has documents, bytes and characters of every stretch.",
        curves_over(
            curves,
            "Share of each domain over training",
            ("tokens trained on", "share of tokens (%)"),
            _borders(planned),
        ),
        planned.command,
        course_table(stretches),
    )


def _passes_picture(planned: Planned, stretches: Sequence[Stretch]) -> Figure:
    ends = [0.0, *(float(stretch.first_token + stretch.num_tokens) for stretch in stretches)]
    curves = [
        Curve(
            name,
            tuple(zip(ends, [0.0, *(stretch.epochs[name] for stretch in stretches)])),
            planned.hues.get(name, "kx"),
        )
        for name in reversed(_largest(stretches, planned))
    ]
    return Figure(
        "plan-passes",
        "Epochs over training",
        f"How often a domain's text has been passed over up to each point; above 1 it repeats. {_which(planned)}",
        curves_over(curves, "Epochs of each domain over training", ("tokens trained on", "epochs"), _borders(planned)),
        planned.command,
    )


def _which(planned: Planned) -> str:
    return f"The {_MOST_CURVES} largest domains. " if len(planned.plan.domains) > _MOST_CURVES else ""


def _largest(stretches: Sequence[Stretch], planned: Planned) -> list[str]:
    tokens = {d.name: sum(stretch.rows[d.name].num_tokens for stretch in stretches) for d in planned.plan.domains}
    drawn = [name for name in sorted(tokens, key=lambda name: (-tokens[name], name)) if tokens[name]]
    return drawn[:_MOST_CURVES]


def _steps(values: Sequence[float], stretches: Sequence[Stretch]) -> tuple[tuple[float, float], ...]:
    """A value in the middle of each stretch, carried to both ends of training."""
    middles = [stretch.first_token + stretch.num_tokens / 2 for stretch in stretches]
    end = stretches[-1].first_token + stretches[-1].num_tokens
    return ((0.0, values[0]), *zip(middles, values), (float(end), values[-1]))


def _borders(planned: Planned) -> list[tuple[float, str]]:
    """Where each later phase begins, in tokens."""
    token, borders = 0, list[tuple[float, str]]()
    for phase in planned.plan.phases:
        borders.append((float(token), phase.name))
        token += phase.num_tokens
    return borders[1:]


def course_table(stretches: Sequence[Stretch]) -> Table:
    """Amounts of each domain, group and all in each stretch of training."""
    columns = (
        Column("phase"), Column("from token", "count"), Column("domain"), Column("share", "share"),
        Column("tokens", "count"), Column("documents", "count"), Column("bytes", "count"),
        Column("characters", "count"), Column("epochs so far", "epochs"), Column("unique share", "share"),
    )  # fmt: skip
    cells = tuple(
        (
            stretch.phase, stretch.first_token, row.domain, row.share, row.num_tokens, row.num_documents,
            row.size_bytes, row.num_characters, stretch.epochs[row.domain], row.unique_share,
        )
        for stretch in stretches
        for row in stretch.rows.values()
    )  # fmt: skip
    return Table("plan_course", columns, cells, head=60)
