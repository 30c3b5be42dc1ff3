"""Examples of what a step kept, dropped or nearly dropped: rules, emptied texts, unreadable rows.

`recipes.ledger.duplicates` shows what dedup steps dropped.

Rows are chosen by content, so the same ones are shown each time. A source is read in row batches of the few columns
that are asked, and only the shown texts are read: memory does not grow with the source.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from curation.decisions import RuleStep
from curation.layers import drop_reasons, layer_columns, mask_columns, read_layers
from curation.ledger import Source, shown_texts
from curation.passes import ShardInputs
from recipes.errors import RunError
from recipes.ledger.queries import open_ledger, rule_steps

if TYPE_CHECKING:
    from recipes.run import Run

READ = "read"  # the step of rows that could not be read
_COMPARED = re.compile(r"\b([A-Za-z_]\w*)\s*(?:<=?|>=?)\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)")
_BASE = ("row", "content_id", "read_reason")


@dataclass(frozen=True)
class _Question:
    """What is looked for of one reason: columns to show, and how rows of each kind are found and ordered.

    `kinds`: kind -> (condition, order), over columns of the layers and `kept`.
    """

    step: str
    reason: str
    sql: str
    values: dict[str, str]  # shown name -> layer column
    columns: tuple[str, ...]
    kinds: dict[str, tuple[pl.Expr, list[pl.Expr]]] = field(default_factory=dict)


def examples(run: Run, step: str, reason: str | None, number: int, source: str | None = None) -> list[dict[str, Any]]:
    """Documents that a step dropped, nearly dropped, and kept, with the deciding values and the text.

    A rule that compares signals with numbers has a border: rows on the kept side nearest to it are borderline. The
    step `read` has the rows that could not be read.
    """
    ledger, steps = open_ledger(run), rule_steps(run.recipe)
    if source is not None and source not in {s.name for s in ledger.sources}:
        raise RunError(f"no source {source!r}; there are {', '.join(s.name for s in ledger.sources)}")
    shown: list[dict[str, Any]] = []
    known: dict[str, set[str]] = {READ: set()}
    for one in ledger.sources:
        if (source is not None and one.name != source) or not one.shards:
            continue
        asked = {name: reasons for shard in one.shards[:1] for name, reasons in _reasons(shard).items()}
        for name, reasons in asked.items():
            known.setdefault(name, set()).update(reasons)
        shown += _examples_of_source(one, step, reason, number, steps.get(one.name, []))
    if not shown:
        _explain_nothing(step, reason, known)
    return shown


def _reasons(shard: ShardInputs) -> dict[str, list[str]]:
    return {step: reasons for path in shard.layers for step, reasons in drop_reasons(path).items()}


def _explain_nothing(step: str, reason: str | None, known: Mapping[str, set[str]]) -> None:
    """Raise where the step or the reason does not exist; a step that dropped nothing is no mistake."""
    if step not in known:
        near = difflib.get_close_matches(step, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RunError(f"no step {step!r} that drops rows; {hint}there are {', '.join(sorted(known))}")
    if reason is not None and step != READ and reason not in known[step]:
        near = difflib.get_close_matches(reason, known[step], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known[step]))}"
        raise RunError(f"step {step!r} has no reason {reason!r}; {hint}")


def _examples_of_source(
    source: Source, step: str, reason: str | None, number: int, rules: Sequence[RuleStep]
) -> list[dict[str, Any]]:
    questions = [q for q in _questions(source, step, rules) if reason is None or q.reason == reason]
    if step == READ:
        questions = [_unread(reason)]
    shown = []
    for question in questions:
        for kind, rows in _chosen(source, question, number).items():
            shown += [_example(source, question, kind, row) for row in rows]
    return shown


def _questions(source: Source, step: str, rules: Sequence[RuleStep]) -> Iterator[_Question]:
    there = {name for path in source.shards[0].layers for name in layer_columns(path)}
    reasons = _reasons(source.shards[0]).get(step, [])
    for rule_step in rules:
        if rule_step.step == step and f"drop@{step}" in there:
            for name, sql in rule_step.rules:
                question = _of_rule(rule_step, name, sql, reasons)
                if set(question.values.values()) <= there:  # a preset that grew since the run asks for more signals
                    yield question
            return
    for bit, name in enumerate(reasons):
        yield _of_step(step, name, bit)


def _of_rule(step: RuleStep, reason: str, sql: str, reasons: Sequence[str]) -> _Question:
    columns = dict(step.columns)
    used = {name: columns[name] for name in columns if re.search(rf"\b{re.escape(name)}\b", sql)}
    if reason not in reasons:  # the recipe has changed since the run: nothing was dropped for it
        dropped: pl.Expr = pl.lit(value=False)
    else:
        dropped = _has_bit(step.step, reasons.index(reason))
    kinds: dict[str, tuple[pl.Expr, list[pl.Expr]]] = {"dropped": (dropped, []), "kept": (pl.col("kept"), [])}
    borders = [(used[name], float(number)) for name, number in _COMPARED.findall(sql) if name in used]
    if borders:
        distance = pl.min_horizontal([(pl.col(c) - b).abs() / max(abs(b), 1e-9) for c, b in borders])
        kinds["borderline"] = (pl.col("kept") & distance.is_not_null(), [distance])
    return _Question(step.step, reason, sql, used, (f"drop@{step.step}",), kinds)


def _has_bit(step: str, bit: int) -> pl.Expr:
    return (pl.col(f"drop@{step}").cast(pl.UInt64).fill_null(0) & pl.lit(1 << bit, pl.UInt64)) != 0


def _of_step(step: str, reason: str, bit: int) -> _Question:
    """What a step that edits text left nothing of."""
    return _Question(step, reason, "", {}, (f"drop@{step}",), {"dropped": (_has_bit(step, bit), [])})


def _unread(reason: str | None) -> _Question:
    why = pl.col("read_reason")
    condition = why.is_not_null() if reason is None else why == reason
    values = {name: name for name in ("read_reason", "size_bytes")}
    return _Question(READ, reason or "unreadable", "read_reason", values, (), {"dropped": (condition, [])})


def _chosen(source: Source, question: _Question, number: int) -> dict[str, list[dict[str, Any]]]:
    """The first rows of each kind: by its order, then by content id, source order last."""
    best: dict[str, list[pl.DataFrame]] = {kind: [] for kind in question.kinds}
    for shard in source.shards:
        for batch in read_layers(shard.layers, sorted(_wanted(shard, question))):
            frame = _framed(shard, batch, question)
            for kind, (condition, order) in question.kinds.items():
                hits = frame.filter(condition)
                if hits.height:
                    keys = [expression.alias(f"_{place}") for place, expression in enumerate(order)]
                    hits = hits.with_columns(keys)
                    by = [*(f"_{place}" for place in range(len(order))), "content_id", "shard", "row"]
                    merged = pl.concat([*best[kind], hits], how="vertical_relaxed")
                    best[kind] = [merged.sort(by, maintain_order=True).head(number)]
    return {kind: frames[0].to_dicts() if frames else [] for kind, frames in best.items()}


def _wanted(shard: ShardInputs, question: _Question) -> set[str]:
    return {*_BASE, *question.columns, *question.values.values(), *mask_columns(shard.layers)}


def _framed(shard: ShardInputs, batch: pa.RecordBatch, question: _Question) -> pl.DataFrame:
    """A row batch as a frame with `shard` and `kept`; columns that this shard lacks are null."""
    from curation.layers import kept_rows

    frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
    missing = [name for name in {*question.columns, *question.values.values()} if name not in frame.columns]
    frame = frame.with_columns([pl.lit(None).alias(name) for name in sorted(missing)])
    return frame.with_columns(pl.lit(shard.shard).alias("shard"), pl.Series("kept", kept_rows(batch))).select(
        *_BASE, "shard", "kept", *question.columns, *sorted(set(question.values.values()) - set(_BASE))
    )


def _example(source: Source, question: _Question, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """One row as it is shown."""
    shards = {shard.shard: shard for shard in source.shards}
    return {
        "source": source.name, "step": question.step, "reason": question.reason, "kind": kind, "sql": question.sql,
        "values": {name: row[column] for name, column in question.values.items() if row[column] is not None},
        "content_id": row["content_id"].hex(), "shard": row["shard"], "row": row["row"],
        "text": shown_texts(shards[row["shard"]], [row["row"]]).get(row["row"]),
    }  # fmt: skip
