"""Documents that rules dropped, kept, and nearly dropped, with the deciding value.

A report must stay cheap whatever the size of a run: documents come from a few shards of each source, their signals are
read once for all rules of a step, and each of these shards' texts once. Memory grows with the rows of a source's few
shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl
from markupsafe import Markup

from curation.layers import drop_reasons, layer_columns
from curation.ledger import Source, scan_shard, shown_texts
from recipes.report.funnel import Funnel
from recipes.report.markup import Column, Section, Table, tag
from recipes.report.record import Record

if TYPE_CHECKING:
    from curation.decisions import RuleStep
    from curation.passes import ShardInputs

MOST_SHARDS, MOST_RULES, MOST_CHARACTERS = 3, 40, 400
NUMBER = 2
KINDS = {"dropped": "dropped", "borderline": "kept, nearest to the border", "kept": "kept, a usual one"}
_COMPARED = re.compile(r"\s*\(?\s*(\w+)\s*(<=?|>=?)\s*(-?[0-9.]+)\s*\)?\s*")


@dataclass(frozen=True)
class Sample:
    """A document under a rule: what the rule did, where it stands, the deciding values, the text's beginning."""

    source: str
    step: str
    reason: str
    sql: str
    kind: str
    values: dict[str, Any]
    content_id: str
    shard: str
    row: int
    text: str = ""


def add_samples(record: Record, section: Section, found: Sequence[Funnel]) -> None:
    """Add samples of the rules that dropped most."""
    wanted = _rules_that_drop(found)
    samples = list(_samples(record, wanted[:MOST_RULES]))
    if not samples:
        return
    section.parts.append(tag("h3", "Documents by rule", id="samples"))
    left = len(wanted) - MOST_RULES
    more = f" {left} rules that dropped less are left out." if left > 0 else ""
    section.say(
        f"Up to {NUMBER} documents each that a rule dropped, kept with a value nearest to its border, and kept "
        f"plainly, from up to {MOST_SHARDS} shards of a source; chosen by content, so the same ones each time. Texts "
        f"are cut after {MOST_CHARACTERS} characters.{more} All of a rule's: ",
        tag("code", record.command("inspect", "STEP.REASON --number 20")),
        ".",
    )
    for group in _grouped(samples):
        section.parts.append(_html(group))
    section.tables.append(_table(samples))


def _rules_that_drop(found: Sequence[Funnel]) -> list[tuple[str, str, str]]:
    """(source, step, reason) of rules that dropped something, the busiest of each source in turn."""
    ranked = [
        sorted(((n, step.step, reason) for step in one.steps for reason, n in step.drops.items() if n), reverse=True)
        for one in found
    ]
    turns = max((len(rules) for rules in ranked), default=0)
    return [
        (one.source, rules[turn][1], rules[turn][2])
        for turn in range(turns)
        for one, rules in zip(found, ranked)
        if turn < len(rules) and rules[turn][1] != "read" and rules[turn][2] not in ("duplicate", "in_index")
    ]


def _samples(record: Record, wanted: Sequence[tuple[str, str, str]]) -> Iterator[Sample]:
    from recipes.ledger.queries import rule_steps

    steps = rule_steps(record.recipe)
    for source in record.ledger.sources if record.ledger else ():
        mine = [(step, reason) for name, step, reason in wanted if name == source.name]
        shards = _spread(source)
        picked = [
            sample
            for rules in steps.get(source.name, [])
            for sample in _picked(source.name, shards, rules, [r for s, r in mine if s == rules.step])
        ]
        yield from _with_texts(shards, picked)


def _spread(source: Source) -> list[ShardInputs]:
    """A few shards, evenly over the source."""
    number = min(MOST_SHARDS, len(source.shards))
    return [source.shards[place * len(source.shards) // number] for place in range(number)]


def _picked(source: str, shards: Sequence[ShardInputs], rules: RuleStep, reasons: Sequence[str]) -> Iterator[Sample]:
    columns = dict(rules.columns)
    known = {name for shard in shards[:1] for path in shard.layers for name in layer_columns(path)}
    sql_of = {reason: sql for reason, sql in rules.rules if reason in reasons}
    used = {reason: [n for n in columns if re.search(rf"\b{re.escape(n)}\b", sql)] for reason, sql in sql_of.items()}
    # A preset that grew since the run asks for signals that were not measured.
    # A reason that the recipe has by now and the run had not dropped nothing; bits are numbered by the run's own.
    ordered = [name for shard in shards[:1] for path in shard.layers for name in drop_reasons(path).get(rules.step, [])]
    used = {reason: n for reason, n in used.items() if reason in ordered and {columns[one] for one in n} <= known}
    if not used or f"drop@{rules.step}" not in known:
        return
    wanted = sorted({columns[n] for names in used.values() for n in names})
    base = ["shard", "row", "content_id", "reason", f"drop@{rules.step}"]
    frames = [scan_shard(shard).select(*base, *wanted).collect() for shard in shards]
    rows = pl.concat(frames).sort("content_id", "shard", "row").unique("content_id", keep="first", maintain_order=True)
    for reason, names in used.items():
        bit = pl.lit(1 << ordered.index(reason), pl.UInt64)
        dropped = (pl.col(f"drop@{rules.step}").cast(pl.UInt64) & bit) != 0
        for kind, chosen in _chosen(rows, dropped, sql_of[reason], columns).items():
            for row in chosen.to_dicts():
                values = {name: row[columns[name]] for name in names}
                yield Sample(
                    source, rules.step, reason, sql_of[reason], kind, values,
                    row["content_id"].hex(), row["shard"], row["row"],
                )  # fmt: skip


def _chosen(rows: pl.DataFrame, dropped: pl.Expr, sql: str, columns: Mapping[str, str]) -> dict[str, pl.DataFrame]:
    """The rows to show of each kind; a rule that compares one signal with a number has a border."""
    kept = rows.filter(pl.col("reason").is_null())
    found = {"dropped": rows.filter(dropped).head(NUMBER)}
    compared = _COMPARED.fullmatch(sql)
    if compared and compared[1] in columns:
        column, border = columns[compared[1]], float(compared[3])
        near = kept.filter(pl.col(column).is_not_null())
        near = near.sort((pl.col(column) - border).abs(), maintain_order=True)
        typical = max(NUMBER, near.height // 2)
        return found | {"borderline": near.head(NUMBER), "kept": near.slice(typical, 1)}
    return found | {"kept": kept.head(NUMBER)}


def _with_texts(shards: Sequence[ShardInputs], picked: Sequence[Sample]) -> Iterator[Sample]:
    texts: dict[tuple[str, int], str] = {}
    for shard in shards:
        rows = sorted({sample.row for sample in picked if sample.shard == shard.shard})
        if rows:
            texts |= {(shard.shard, row): text for row, text in shown_texts(shard, rows).items()}
    for sample in picked:
        text = texts.get((sample.shard, sample.row)) or ""
        short = " ".join(text[: 4 * MOST_CHARACTERS].split())
        yield replace(sample, text=short if len(short) <= MOST_CHARACTERS else f"{short[:MOST_CHARACTERS]}…")


def _grouped(samples: Sequence[Sample]) -> list[list[Sample]]:
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.source, sample.step, sample.reason), []).append(sample)
    return list(groups.values())


def _html(group: Sequence[Sample]) -> Markup:
    first = group[0]
    title = tag(
        "summary", tag("b", f"{first.step}.{first.reason}"), f" · {first.source} · drops where ", tag("code", first.sql)
    )
    documents = [
        tag(
            "div",
            tag("p", tag("b", KINDS[one.kind]), f" · {_written(one.values)} · ", tag("code", one.content_id[:12])),
            tag("blockquote", one.text or "(no text)", dir="auto"),
            class_=f"sample {one.kind}",
        )
        for one in group
    ]
    return tag("details", title, *documents, class_="rule")


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {v:.4g}" if isinstance(v, float) else f"{name} = {v}" for name, v in values.items())


def _table(samples: Sequence[Sample]) -> Table:
    columns = tuple(
        Column(name)
        for name in ("source", "step", "reason", "what it did", "values", "content id", "shard", "row", "text")
    )
    rows = tuple(
        (s.source, s.step, s.reason, s.kind, _written(s.values), s.content_id, s.shard, s.row, s.text) for s in samples
    )
    return Table("samples", columns, rows)
