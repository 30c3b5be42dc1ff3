"""Questions to a run's ledger: where it lies, and the fate of a document.

Nothing is made: these are queries over the layers, so they need a curated run. `inspecting`, `whatif` and `run_diff`
hold the questions about rules and about two runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from curation.compiled import LocalStage
from curation.decisions import DecisionOptions, RuleStep
from curation.layers import drop_reasons
from curation.ledger import Ledger, lost_text, scan_shard, shown_texts
from curation.passes import ShardInputs
from recipes.curating.compiling import compile_recipe
from recipes.errors import RunError
from recipes.schema.variants import variants

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

_WHO = ("origin_id", "url", "date", "licence", "size_bytes", "num_characters", "repaired")
CONTENT_ID = re.compile(r"[0-9a-f]{8,32}")


def open_ledger(run: Run) -> Ledger:
    """The ledger of a run that was curated."""
    path = run.folder / run.ledger_file
    if not path.exists():
        raise RunError(_uncurated(run))
    ledger = Ledger.from_json(path.read_text(encoding="utf-8"))
    if ledger.until is not None:
        run.narrator.say_once(
            f"the last run was stopped after {ledger.until}: what comes after it is not in the ledger"
        )
    return ledger


def _uncurated(run: Run) -> str:
    """That there is no ledger, how to make it, and with which other flags there is one."""
    recipe = run.recipe
    others = [flags for flags in variants(run.store.workdir, recipe.file_name) if flags != recipe.flags]
    known = f"; with other flags it was: {', '.join(others[:3])}" if others else ""
    called = f" with {recipe.flags}" if recipe.flags else ""
    return f"{recipe.path}: not curated yet{called}; `gristmill curate {recipe.called}` makes the ledger{known}"


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
    """Rows whose own text holds the fragment; none of a shard that has other text by now."""
    import pyarrow.compute as pc

    from curation.passes import text_batches

    rows: list[int] = []
    if lost_text(shard):
        return rows
    for batch in text_batches(replace(shard, text=None)):
        hit = pc.fill_null(pc.match_substring(batch.column("text"), wanted), False)
        rows += batch.column("row").filter(hit).to_pylist()
    return rows


def _fates_of(shard: ShardInputs, rows: Sequence[int], steps: Sequence[RuleStep]) -> list[Fate]:
    if not rows:
        return []
    frame = scan_shard(shard).filter(pl.col("row").is_in(list(rows))).collect()
    texts = shown_texts(shard, rows)
    recorded = {step: names for path in shard.layers for step, names in drop_reasons(path).items()}
    return [_fate(shard, found, steps, recorded, texts.get(found["row"])) for found in frame.to_dicts()]


def _said_by_rules(row: Mapping[str, Any], step: RuleStep, names: Sequence[str]) -> dict[str, Any]:
    """What a rule step said of a row, by the reasons that its bits had in the run, not those of the recipe by now."""
    drop, undecided = row.get(f"drop@{step.step}") or 0, row.get(f"undecided@{step.step}") or 0
    values, rules = {bare: row.get(column) for bare, column in step.columns}, dict(step.rules)
    drops = {}
    for bit, reason in enumerate(names):
        if drop >> bit & 1:
            sql = rules.get(reason, "")  # none where the recipe has changed since
            used = {n: v for n, v in values.items() if re.search(rf"\b{re.escape(n)}\b", sql)}
            drops[reason] = {"sql": sql, "values": used}
    return {"step": step.step, "drops": drops, "undecided": [n for bit, n in enumerate(names) if undecided >> bit & 1]}


def _fate(
    shard: ShardInputs,
    row: dict[str, Any],
    steps: Sequence[RuleStep],
    recorded: Mapping[str, Sequence[str]],
    text: str | None,
) -> Fate:
    # a step that the run did not come to has said nothing
    said = [_said_by_rules(row, step, recorded[step.step]) for step in steps if step.step in recorded]
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


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name, the greatest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
