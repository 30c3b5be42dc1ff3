"""Questions to a run's ledger: a document's fate, examples of a rule, what another threshold would keep, two runs.

All are polars queries over the layers; nothing is made. They speak of what the ledger holds, so they need a curated
run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from curation.layers import layer_columns
from curation.ledger import Ledger, scan_shard, texts_of
from curation.passes import DecisionOptions, RuleStep, ShardInputs
from curation.program import LocalStage
from recipes.curate import compile_recipe
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.recipe import Recipe
    from recipes.run import Run

_WHO = ("origin_id", "url", "date", "licence", "size_bytes", "num_characters", "repaired")
CONTENT_ID = re.compile(r"[0-9a-f]{8,32}")


def open_ledger(run: Run) -> Ledger:
    """The ledger of a run that was curated."""
    path = run.folder / "ledger.json"
    if not path.exists():
        raise RunError(f"{run.recipe.path}: not curated yet; `gristmill curate {run.recipe.path}` makes the ledger")
    return Ledger.from_json(path.read_text(encoding="utf-8"))


def rule_steps(recipe: Recipe) -> dict[str, list[RuleStep]]:
    """The rule steps of each source in order, as compiled."""
    found: dict[str, list[RuleStep]] = {}
    for stage in compile_recipe(recipe).stages:
        if isinstance(stage, LocalStage) and isinstance(stage.options, DecisionOptions):
            found.setdefault(stage.source, []).extend(s for s in stage.options.steps if isinstance(s, RuleStep))
    return found


# ---------------------------------------------------------------- why


@dataclass(frozen=True)
class Fate:
    """One document: where it is, who it is, what each step said, and its text."""

    source: str
    shard: str
    row: int
    content_id: str
    kept: bool
    reason: str | None
    who: dict[str, Any]
    steps: list[dict[str, Any]]
    text: str | None


def fates(run: Run, wanted: str, most: int = 5) -> list[Fate]:
    """The documents that an id, a URL or a piece of text names; ids and URLs are looked for before texts."""
    ledger, steps = open_ledger(run), rule_steps(run.recipe)
    found: list[Fate] = []
    for by_text in (False, True):
        for source in ledger.sources:
            for shard in source.shards:
                rows = _rows_with_text(shard, wanted) if by_text else _rows_named(shard, wanted)
                found += _fates_of(shard, rows[: most - len(found)], steps.get(source.name, []))
                if len(found) >= most:
                    return found
        if found:
            return found
    return found


def _rows_named(shard: ShardInputs, wanted: str) -> list[int]:
    """Rows whose content id begins with, or whose own id or URL equals, what is wanted."""
    match = (pl.col("origin_id") == wanted) | (pl.col("url") == wanted)
    if CONTENT_ID.fullmatch(wanted.lower()):
        match = match | pl.col("content_id").bin.encode("hex").str.starts_with(wanted.lower())
    rows = pl.scan_parquet(shard.layers[0]).filter(match).select("row").collect()
    return rows["row"].to_list()


def _rows_with_text(shard: ShardInputs, wanted: str) -> list[int]:
    """Rows whose own text holds the fragment."""
    import pyarrow.compute as pc

    from curation.passes import text_batches

    rows: list[int] = []
    for batch in text_batches(replace(shard, text=None)):
        hit = pc.fill_null(pc.match_substring(batch.column("text"), wanted), False)
        rows += batch.column("row").filter(hit).to_pylist()
    return rows


def _fates_of(shard: ShardInputs, rows: Sequence[int], steps: Sequence[RuleStep]) -> list[Fate]:
    if not rows:
        return []
    frame = scan_shard(shard).filter(pl.col("row").is_in(list(rows))).collect()
    texts = texts_of(shard, rows, raw=True)
    return [_fate(shard, found, steps, texts.get(found["row"])) for found in frame.to_dicts()]


def _fate(shard: ShardInputs, row: dict[str, Any], steps: Sequence[RuleStep], text: str | None) -> Fate:
    said: list[dict[str, Any]] = []
    for step in steps:
        names = sorted(reason for reason, _ in step.rules)
        drop, undecided = row.get(f"drop@{step.step}") or 0, row.get(f"undecided@{step.step}") or 0
        values = {bare: row.get(column) for bare, column in step.columns}
        rules = {
            reason: {"sql": sql, "values": {n: v for n, v in values.items() if re.search(rf"\b{re.escape(n)}\b", sql)}}
            for reason, sql in step.rules
            if drop >> names.index(reason) & 1
        }
        said.append(
            {"step": step.step, "drops": rules, "undecided": [n for i, n in enumerate(names) if undecided >> i & 1]}
        )
    for name in row:
        if name.startswith("drop@") and f"duplicate_source@{name[5:]}" in row:
            said.append(_duplicate(row, name[5:]))
        elif name.startswith("drop@") and f"paragraphs_removed@{name[5:]}" in row:
            said.append({"step": name[5:], "paragraphs_removed": row[f"paragraphs_removed@{name[5:]}"]})
    for name, value in row.items():
        if name == "bucket" or name.endswith("_bucket"):
            said.append({"step": name, "bucket": value, "perplexity": row.get(name.replace("bucket", "perplexity"))})
    return Fate(
        source=shard.source,
        shard=shard.shard,
        row=row["row"],
        content_id=row["content_id"].hex(),
        kept=bool(row["kept"]),
        reason=row["reason"],
        who={name: row.get(name) for name in _WHO if row.get(name) is not None},
        steps=said,
        text=text,
    )


def _duplicate(row: Mapping[str, Any], step: str) -> dict[str, Any]:
    """What a dedup step said of a row."""
    said: dict[str, Any] = {"step": step, "cluster_size": row.get(f"cluster_size@{step}")}
    if f"characters_removed@{step}" in row:
        said["characters_removed"] = row[f"characters_removed@{step}"]
    if row.get(f"drop@{step}") or said.get("characters_removed"):
        said["duplicate_of"] = [row.get(f"duplicate_{part}@{step}") for part in ("source", "shard", "row")]
        if f"similarity@{step}" in row:
            said["similarity"] = row[f"similarity@{step}"]
        if row.get(f"duplicate_index@{step}"):
            said["index"] = row[f"duplicate_index@{step}"]
    if row.get(f"kept_by@{step}"):
        said["kept_by"] = row[f"kept_by@{step}"]
    return said


# ---------------------------------------------------------------- inspect


def examples(run: Run, step: str, reason: str | None, number: int, source: str | None = None) -> list[dict[str, Any]]:
    """Documents that a rule dropped, kept just, and kept plainly, with the deciding value and the text's beginning.

    A rule that compares one signal with a number has a border: rows on the kept side nearest to it are borderline.
    Rows are chosen by content, so the same ones are shown each time.
    """
    ledger, steps = open_ledger(run), rule_steps(run.recipe)
    shown: list[dict[str, Any]] = []
    for name, rule_step in ((s, r) for s, rules in steps.items() for r in rules if r.step == step):
        if source is not None and name != source:
            continue
        for rule, sql in rule_step.rules:
            if reason is None or rule == reason:
                shown += _examples_of(ledger, name, rule_step, rule, sql, number)
    reasons = {rule for rules in steps.values() for r in rules if r.step == step for rule, _ in r.rules}
    if reason is not None and reasons and reason not in reasons:
        near = difflib.get_close_matches(reason, reasons, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(reasons))}"
        raise RunError(f"step {step!r} has no reason {reason!r}; {hint}")
    if not shown and step not in {r.step for rules in steps.values() for r in rules}:
        known = sorted({r.step for rules in steps.values() for r in rules})
        raise RunError(
            f"no rule step {step!r}; there are {', '.join(known)}. Unreadable rows and duplicates stand in the ledger "
            "(docs/ledger.md); `gristmill why` tells a document's fate"
        )
    return shown


_COMPARED = re.compile(r"\s*\(?\s*(\w+)\s*(<=?|>=?)\s*(-?[0-9.]+)\s*\)?\s*")


def _examples_of(
    ledger: Ledger, source: str, step: RuleStep, reason: str, sql: str, number: int
) -> list[dict[str, Any]]:
    names = sorted(name for name, _ in step.rules)
    bit = 1 << names.index(reason)
    columns = dict(step.columns)
    used = sorted({columns[n] for n in columns if re.search(rf"\b{re.escape(n)}\b", sql)})
    compared = _COMPARED.fullmatch(sql)
    frames = [
        scan_shard(shard).select("shard", "row", "content_id", "reason", f"drop@{step.step}", *used)
        for shard in ledger.source(source).shards
    ]
    if not frames or not _measured(ledger, source, used):
        return []
    rows = pl.concat(frames, how="diagonal_relaxed").sort("content_id", "shard", "row")
    dropped = (pl.col(f"drop@{step.step}").cast(pl.UInt64) & pl.lit(bit, pl.UInt64)) != 0
    kinds: dict[str, Any] = {
        "dropped": rows.filter(dropped).head(number),
        "kept": rows.filter(pl.col("reason").is_null()).head(number),
    }
    if compared and compared[1] in columns:
        column, border = columns[compared[1]], float(compared[3])
        near = rows.filter(~dropped & pl.col(column).is_not_null() & pl.col("reason").is_null())
        kinds["borderline"] = near.sort((pl.col(column) - border).abs(), maintain_order=True).head(number)
    by_path = {shard.shard: shard for shard in ledger.source(source).shards}
    found = []
    for kind, query in kinds.items():
        for row in query.collect().to_dicts():
            text = texts_of(by_path[row["shard"]], [row["row"]], raw=True).get(row["row"])
            values = {bare: row[column] for bare, column in columns.items() if column in used}
            found.append(
                {
                    "source": source, "step": step.step, "reason": reason, "kind": kind, "sql": sql, "values": values,
                    "content_id": row["content_id"].hex(), "shard": row["shard"], "row": row["row"], "text": text,
                }
            )  # fmt: skip
    return found


def _measured(ledger: Ledger, source: str, columns: Sequence[str]) -> bool:
    """Whether a source's layers have some columns; a preset that grew since the run asks for more."""
    first = ledger.source(source).shards[0]
    known = {name for path in first.layers for name in layer_columns(path)}
    return set(columns) <= known


# ---------------------------------------------------------------- whatif


@dataclass(frozen=True)
class Change:
    """What a changed recipe keeps of one source: documents and characters, and rows that change sides by rule."""

    source: str
    rows: int
    kept_before: int
    kept_after: int
    characters_before: int
    characters_after: int
    newly_kept: dict[str, int]
    newly_dropped: dict[str, int]
    exact: bool
    border: list[tuple[str, int, str]]


def whatif(run: Run, changed: Recipe) -> list[Change]:
    """What the changed rules keep, from the signals that are there; exact up to the next global step.

    A dedup step after a changed rule is not run again: rows it dropped stay dropped, rows that are newly kept count as
    kept, so the numbers after it are estimates (`exact` is false).
    """
    ledger = open_ledger(run)
    _only_rules_change(run.recipe, changed)
    before, after = rule_steps(run.recipe), rule_steps(changed)
    return [_change(ledger, source.name, before, after) for source in ledger.sources if source.shards]


def _only_rules_change(now: Recipe, changed: Recipe) -> None:
    """Refuse changes that no query over signals can answer: of other steps than rules and languages."""
    for old, new in zip(now.steps, changed.steps):
        if old != new and old.kind not in ("rules", "language"):
            raise RunError(
                f"whatif cannot say what a change of step {new.name} ({new.kind}) does without running it; "
                "it answers rules and languages. `gristmill curate` with the same --set reuses everything before it"
            )


def _change(
    ledger: Ledger, name: str, before: Mapping[str, list[RuleStep]], after: Mapping[str, list[RuleStep]]
) -> Change:
    frame = ledger.scan([name]).collect()
    old, new = before.get(name, []), after.get(name, [])
    if [s.step for s in old] != [s.step for s in new]:
        raise RunError(
            f"{name}: the change adds or removes a rule step; `whatif` compares thresholds, `run` does the rest"
        )
    is_global = [c for c in frame.columns if c.startswith("drop@") and c[5:] not in {s.step for s in old}]
    base = pl.col("read_reason").is_null()
    for column in is_global:
        base = base & (pl.col(column).fill_null(0) == 0)
    frame = frame.with_columns(alive=base)
    reasons_old, reasons_new = _first_reasons(frame, old), _first_reasons(frame, new)
    kept_old = frame["alive"] & reasons_old.is_null()
    kept_new = frame["alive"] & reasons_new.is_null()
    characters = frame["num_characters"].fill_null(0)
    changed = [o != n for o, n in zip(old, new)]
    border = frame.filter(kept_old != kept_new).sort("content_id").head(5)
    return Change(
        source=name,
        rows=frame.height,
        kept_before=int(kept_old.sum()),
        kept_after=int(kept_new.sum()),
        characters_before=int(characters.filter(kept_old).sum()),
        characters_after=int(characters.filter(kept_new).sum()),
        newly_kept=_counted(reasons_old.filter(~kept_old & kept_new)),
        newly_dropped=_counted(reasons_new.filter(kept_old & ~kept_new)),
        exact=not (any(changed) and is_global),
        border=[(row["shard"], row["row"], row["content_id"].hex()) for row in border.to_dicts()],
    )


def _first_reasons(frame: pl.DataFrame, steps: Sequence[RuleStep]) -> pl.Series:
    """Each row's first reason by rules evaluated on the ledger's signals: `step.reason`, or null."""
    from curation.rules import Rule, decide

    found = pl.Series("reason", [None] * frame.height, dtype=pl.String)
    for step in reversed(steps):
        missing = [column for _, column in step.columns if column not in frame.columns]
        if missing:
            raise RunError(f"step {step.step} needs {missing[0]}, which this run did not measure; run it instead")
        columns = {bare: frame[column] for bare, column in step.columns} or {"row": frame["row"]}
        drop, _ = decide(pl.DataFrame(columns), [Rule(reason, sql) for reason, sql in step.rules])
        bits = pl.Series(drop)
        expression: Any = pl.when(pl.lit(value=False)).then(pl.lit(""))
        for bit, reason in enumerate(sorted(reason for reason, _ in step.rules)):
            hit = (pl.col("bits") & pl.lit(1 << bit, pl.UInt64)) != 0
            expression = expression.when(hit).then(pl.lit(f"{step.step}.{reason}"))
        mine = pl.DataFrame({"bits": bits}).select(expression.otherwise(None).alias("reason"))["reason"]
        found = mine.zip_with(mine.is_not_null(), found)
    return found


def _counted(reasons: pl.Series) -> dict[str, int]:
    """Rows by reason, most first."""
    counts = reasons.drop_nulls().value_counts(sort=True)
    pairs = sorted(zip(counts[counts.columns[0]].to_list(), counts["count"].to_list()), key=lambda p: (-p[1], p[0]))
    return dict(pairs)


# ---------------------------------------------------------------- diff


def differences(one: Run, other: Run) -> dict[str, Any]:
    """What two runs made of the same rows: newly kept and dropped by source and reason, with examples."""
    from recipes.resolved import flat, resolved

    values = [{path: str(found.value) for path, found in flat(resolved(run.recipe))} for run in (one, other)]
    config = {
        path: [values[0].get(path), values[1].get(path)]
        for path in sorted(values[0].keys() | values[1].keys())
        if values[0].get(path) != values[1].get(path)
    }
    ledgers = [open_ledger(run) for run in (one, other)]
    shared = sorted({s.name for s in ledgers[0].sources} & {s.name for s in ledgers[1].sources})
    sources = {name: _source_difference(ledgers[0], ledgers[1], name) for name in shared}
    only = [sorted({s.name for s in a.sources} - {s.name for s in b.sources}) for a, b in (ledgers, reversed(ledgers))]
    return {"config": config, "sources": sources, "only_in_first": only[0], "only_in_second": only[1]}


def _source_difference(first: Ledger, second: Ledger, name: str) -> dict[str, Any]:
    columns = ["shard", "row", "content_id", "num_characters", "kept", "reason"]
    frames = [ledger.scan([name]).select(columns).collect() for ledger in (first, second)]
    both = frames[0].join(frames[1], on=["shard", "row", "content_id"], how="full", coalesce=True, suffix="_new")
    kept, kept_new = pl.col("kept").fill_null(value=False), pl.col("kept_new").fill_null(value=False)
    gained = both.filter(~kept & kept_new).sort("content_id")
    lost = both.filter(kept & ~kept_new).sort("content_id")
    characters = [int(frame.filter(pl.col("kept"))["num_characters"].sum()) for frame in frames]
    return {
        "rows": [frame.height for frame in frames],
        "kept": [int(frame["kept"].sum()) for frame in frames],
        "characters": characters,
        "newly_kept": _counted(gained["reason"]),
        "newly_dropped": _counted(lost["reason_new"]),
        "examples": [
            {"content_id": row["content_id"].hex(), "shard": row["shard"], "row": row["row"], "kept": row["kept_new"]}
            for row in [*gained.head(3).to_dicts(), *lost.head(3).to_dicts()]
        ],
    }
