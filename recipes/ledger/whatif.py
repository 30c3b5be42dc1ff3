"""What changed rules would keep, from the signals that are there: exact up to the next step that looks further.

A rule's new condition is decided on the signals of the ledger. What a later step makes of another set of survivors
(deduplication, a language model of this text, an edit of the text) is not known without running it: there the numbers
are an estimate with an interval. Memory: a row batch of the columns that the rules name, and 8 bytes for each row that
is newly dropped before a dedup step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from curation.compiled import GlobalStage, LocalStage, Program
from curation.decisions import DecisionOptions, RuleStep
from curation.layers import drop_reasons, layer_columns, read_layers
from curation.ledger import Ledger, Source
from curation.passes import ShardInputs, SignalOptions
from recipes.curating.compiling import compile_recipe
from recipes.errors import RunError
from recipes.ledger.queries import most_first, open_ledger, rule_steps
from recipes.tokenizing.token_rate import TokenRate, token_rates

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

_BORDER = 5  # rows shown that change sides
Steps = Mapping[str, Sequence[RuleStep]]


@dataclass(frozen=True)
class Change:
    """What a changed recipe keeps of one source, and the rows that change sides by rule.

    Where it is `exact`, `kept_low` and `kept_high` equal `kept_after`. Tokens are estimated from the text's bytes.
    """

    source: str
    rows: int
    kept_before: int
    kept_after: int
    kept_low: int
    kept_high: int
    characters_before: int
    characters_after: int
    tokens_before: int
    tokens_after: int
    newly_kept: dict[str, int]
    newly_dropped: dict[str, int]
    exact: bool
    border: list[dict[str, Any]]


@dataclass
class _Tally:
    """What has been counted of one source; sizes are [characters, bytes]."""

    rows: int = 0
    stay: int = 0  # kept before and by the new rules
    gained: int = 0
    lost: int = 0
    reached: int = 0  # rows that the old rules keep
    gone: int = 0  # of these, rows that something else dropped
    size_before: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    size_stay: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    size_gained: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    newly_kept: Counter[str] = field(default_factory=Counter)
    newly_dropped: Counter[str] = field(default_factory=Counter)
    border: list[tuple[bytes, dict[str, Any]]] = field(default_factory=list)
    lost_rows: dict[str, list[np.ndarray]] = field(default_factory=dict)  # shard -> rows


def whatif(run: Run, changed: Recipe) -> list[Change]:
    """What the changed rules keep of each source.

    Up to the next step that looks at other documents, edits text or measures survivors only it is what a rerun gives.
    Beyond it, the rows that step dropped stay dropped, newly kept rows are kept by it at the rate of the others, and
    each duplicate cluster whose kept document is lost keeps another: an estimate, with an interval from "every newly
    kept row is dropped later" to "none is, and all duplicates of lost rows come back".
    """
    ledger = open_ledger(run)
    _only_rules_change(run.recipe, changed)
    before, after = rule_steps(run.recipe), rule_steps(changed)
    _same_steps(before, after)
    changed_sources = {name for name, steps in after.items() if steps != before[name]}
    program = compile_recipe(changed)
    _same_measures(compile_recipe(run.recipe), program)
    beyond = sources_beyond(program, changed_sources, before)
    tallies = {s.name: _tally(s, before, after, keep_lost=bool(beyond)) for s in ledger.sources if s.shards}
    revived = _revived(ledger, tallies) if beyond else {}
    rates = token_rates(run, ledger)
    return [
        _change(name, tally, beyond.get(name), revived.get(name, (0, 0)), rates[name])
        for name, tally in tallies.items()
    ]


def _only_rules_change(now: Recipe, changed: Recipe) -> None:
    """Refuse changes that no query over signals can answer: of other steps than rules and languages."""
    if len(now.steps) != len(changed.steps) or now.sources.keys() != changed.sources.keys():
        raise RunError("the change adds or removes a step or source; `whatif` compares thresholds, `run` does the rest")
    other = [f"sources.{name}.{key}" for name in now.sources for key in _other_keys(now, changed, name)]
    if now.words != changed.words or other:
        raise RunError(
            f"the change of {', '.join(other) or 'words'} changes what is read or measured, which no query answers; "
            "`gristmill curate` with the same --set does what it asks for"
        )
    for old, new in zip(now.steps, changed.steps):
        if old != new and old.kind not in ("rules", "language"):
            raise RunError(
                f"whatif cannot say what a change of step {new.name} ({new.kind}) does without running it; "
                "it answers rules and languages. `gristmill curate` with the same --set reuses everything before it"
            )


def _same_measures(now: Program, changed: Program) -> None:
    """Refuse changes of how a signal is measured: the ledger has the values of the old way."""
    old, new = _measures(now), _measures(changed)
    for source, signal in sorted(old.keys() & new.keys()):
        if old[source, signal] != new[source, signal]:
            raise RunError(
                f"{source}: the change measures {signal} in another way, which no query over the old values answers; "
                "`gristmill curate` with the same --set does what it asks for"
            )


def _measures(program: Program) -> dict[tuple[str, str], object]:
    """How the signals that a rule's or language step's options define are measured, by (source, signal)."""
    found: dict[tuple[str, str], object] = {}
    for stage in program.stages:
        if not isinstance(stage, LocalStage) or not isinstance(stage.options, SignalOptions):
            continue
        asked = stage.options
        if asked.language_model is not None:
            found[stage.source, f"language{asked.suffix}"] = asked.language_model, asked.excerpt
        found |= {(stage.source, f"{one.name}{asked.suffix}"): one for one in asked.given}
    return found


def _other_keys(now: Recipe, changed: Recipe, source: str) -> list[str]:
    """Keys of a source that differ, beside its own values of steps."""
    both = now.sources[source], changed.sources[source]
    keys = [key for key in type(both[0]).model_fields if key != "steps"]
    return [key for key in keys if getattr(both[0], key) != getattr(both[1], key)]


def _same_steps(before: Steps, after: Steps) -> None:
    for name in before.keys() | after.keys():
        if [s.step for s in before.get(name, ())] != [s.step for s in after.get(name, ())]:
            raise RunError(
                f"{name}: the change adds or removes a rule step; `whatif` compares thresholds, `run` does the rest"
            )


def sources_beyond(program: Program, changed: set[str], before: Steps) -> dict[str, str]:
    """Sources for which a step looks at the survivors of a changed rule: source -> the kind of stage, the first such.

    A changed source spreads: a dedup step that looks at it may drop other rows of all its sources.
    """
    old = {(name, step.step): step for name, steps in before.items() for step in steps}
    touched: set[str] = set()
    found: dict[str, str] = {}
    for stage in program.stages:
        if isinstance(stage, GlobalStage):
            if touched & set(stage.sources):
                touched |= set(stage.sources)
                found |= {name: stage.layer for name in stage.sources if name not in found}
        elif isinstance(stage.options, DecisionOptions):
            rules = [step for step in stage.options.steps if isinstance(step, RuleStep)]
            if stage.source in changed and any(old[stage.source, step.step] != step for step in rules):
                touched.add(stage.source)
        elif stage.source in touched and stage.layer == "text":
            found.setdefault(stage.source, "text")
        elif stage.source in touched and isinstance(stage.options, SignalOptions) and stage.options.survivors:
            found.setdefault(stage.source, "signals")  # rows that are newly kept were not measured
    return found


# ---------------------------------------------------------------- one source


def _tally(source: Source, before: Steps, after: Steps, *, keep_lost: bool) -> _Tally:
    tally = _Tally()
    old, new = before.get(source.name, ()), after.get(source.name, ())
    names = [f"{step.step}.{reason}" for step in old for reason in sorted(r for r, _ in step.rules)]
    names_new = [f"{step.step}.{reason}" for step in new for reason in sorted(r for r, _ in step.rules)]
    for shard in source.shards:
        for batch in _batches(shard, old, new):
            other = _dropped_otherwise(batch, {step.step for step in old})
            codes = _first(_recorded(batch, old), old), _first(_decided(batch, new), new)
            _add(tally, shard, batch, other, codes, (names, names_new), keep_lost)
    return tally


def _batches(shard: ShardInputs, old: Sequence[RuleStep], new: Sequence[RuleStep]) -> Iterator[pa.RecordBatch]:
    """Row batches with the columns that the rules and the count need."""
    there = {name for path in shard.layers for name in layer_columns(path)}
    asked = {column: step.step for step in new for _, column in step.columns}
    for column, step in asked.items():
        if column not in there:
            raise RunError(
                f"{shard.source}: step {step} needs {column}, which this run did not measure; run it instead"
            )
    names = {step: reasons for path in shard.layers for step, reasons in drop_reasons(path).items()}
    for recorded in old:
        if f"drop@{recorded.step}" not in there:
            raise RunError(f"step {recorded.step} has not been run here; `gristmill curate` makes it")
        if names.get(recorded.step) != sorted(reason for reason, _ in recorded.rules):
            raise RunError(
                f"{shard.source}: step {recorded.step} was curated with other rules than the recipe has by now; "
                "`gristmill curate` decides by these, from the signals that are there"
            )
    drops = {name for name in there if name.startswith("drop@")}
    wanted = {"row", "content_id", "read_reason", "size_bytes", "num_characters", *asked, *drops}
    yield from read_layers(shard.layers, sorted(wanted))


def _dropped_otherwise(batch: pa.RecordBatch, rules: set[str]) -> np.ndarray:
    """Rows that something else than rules dropped: unreadable ones, duplicates, texts of which nothing was left."""
    found = np.asarray(batch.column("read_reason").is_valid())
    for name in batch.schema.names:
        if name.startswith("drop@") and name[5:] not in rules:
            found = found | (_bits(batch, name) != 0)
    return found


def _bits(batch: pa.RecordBatch, name: str) -> np.ndarray:
    bits: np.ndarray = batch.column(name).fill_null(0).cast(pa.uint64()).to_numpy(zero_copy_only=False)
    return bits


def _recorded(batch: pa.RecordBatch, steps: Sequence[RuleStep]) -> list[np.ndarray]:
    """Drop bits as the run decided them."""
    return [_bits(batch, f"drop@{step.step}") for step in steps]


def _decided(batch: pa.RecordBatch, steps: Sequence[RuleStep]) -> list[np.ndarray]:
    """Drop bits of rules evaluated on the ledger's signals."""
    from curation.rules import Rule, decide

    found = []
    for step in steps:
        columns = {bare: pl.from_arrow(batch.column(column)) for bare, column in step.columns}
        frame = pl.DataFrame(columns or {"row": pl.from_arrow(batch.column("row"))})
        found.append(decide(frame, [Rule(reason, sql) for reason, sql in step.rules])[0])
    return found


def _first(bits: Sequence[np.ndarray], steps: Sequence[RuleStep]) -> np.ndarray | None:
    """Number of each row's first reason (of the earliest step, then by name), from 1; 0 where no rule drops it."""
    found, start = None, 0
    for drop, step in zip(bits, steps, strict=True):
        lowest = drop & (~drop + np.uint64(1))
        place = np.where(drop != 0, start + 1 + np.log2(np.maximum(lowest, np.uint64(1)).astype(np.float64)), 0)
        found = place if found is None else np.where(found != 0, found, place)
        start += len(step.rules)
    return None if found is None else found.astype(np.int64)


def _add(
    tally: _Tally,
    shard: ShardInputs,
    batch: pa.RecordBatch,
    other: np.ndarray,
    codes: tuple[np.ndarray | None, np.ndarray | None],
    names: tuple[list[str], list[str]],
    keep_lost: bool,
) -> None:
    nothing = np.zeros(batch.num_rows, np.int64)
    old, new = (nothing if code is None else code for code in codes)
    size = np.stack([_bits(batch, "num_characters"), _bits(batch, "size_bytes")]).astype(np.int64)
    kept = ~other & (old == 0)
    gained, lost, stay = ~other & (old != 0) & (new == 0), kept & (new != 0), kept & (new == 0)
    tally.rows += batch.num_rows
    tally.stay += int(stay.sum())
    tally.gained += int(gained.sum())
    tally.lost += int(lost.sum())
    readable = np.asarray(batch.column("read_reason").is_null())
    tally.reached += int((readable & (old == 0)).sum())
    tally.gone += int((readable & (old == 0) & other).sum())
    tally.size_before += size[:, kept].sum(axis=1)
    tally.size_stay += size[:, stay].sum(axis=1)
    tally.size_gained += size[:, gained].sum(axis=1)
    _count(tally.newly_kept, old[gained], names[0])
    _count(tally.newly_dropped, new[lost], names[1])
    sides = gained | lost
    reasons = [names[0][before - 1] if before else names[1][after - 1] for before, after in zip(old[sides], new[sides])]
    _note_border(tally, shard, batch, sides, reasons)
    if keep_lost and lost.any():
        rows = batch.column("row").to_numpy(zero_copy_only=False)[lost]
        tally.lost_rows.setdefault(shard.shard, []).append(rows)


def _count(into: Counter[str], codes: np.ndarray, names: Sequence[str]) -> None:
    for code, number in enumerate(np.bincount(codes, minlength=1).tolist()):
        if number:
            into[names[code - 1]] += number


def _note_border(
    tally: _Tally, shard: ShardInputs, batch: pa.RecordBatch, sides: np.ndarray, reasons: Sequence[str]
) -> None:
    """Keep the rows that change sides whose content ids are least: the same ones each time."""
    places = np.flatnonzero(sides)
    if not len(places):
        return
    rows = batch.take(pa.array(places)).to_pylist()
    shown = [(row["content_id"], _shown(shard, row, why)) for row, why in zip(rows, reasons, strict=True)]
    tally.border = sorted([*tally.border, *shown], key=lambda one: one[0])[:_BORDER]


def _shown(shard: ShardInputs, row: Mapping[str, Any], reason: str) -> dict[str, Any]:
    return {"shard": shard.shard, "row": row["row"], "content_id": row["content_id"].hex(), "reason": reason}


# ---------------------------------------------------------------- beyond a global step


def _revived(ledger: Ledger, tallies: Mapping[str, _Tally]) -> dict[str, tuple[int, int]]:
    """Clusters whose kept document is newly dropped, and the duplicates in them, by the source they stand in."""
    lost = {
        (name, shard): np.concatenate(rows)
        for name, tally in tallies.items()
        for shard, rows in tally.lost_rows.items()
    }
    if not lost:
        return {}
    found: dict[str, tuple[int, int]] = {}
    for source in ledger.sources:
        clusters: set[tuple[str, str, int]] = set()
        duplicates = 0
        for shard in source.shards:
            for step in _dedup_steps(shard):
                columns = [f"duplicate_{part}@{step}" for part in ("source", "shard", "row")]
                for batch in read_layers(shard.layers, [*columns, f"drop@{step}"]):
                    of_lost = _of_lost(batch, columns, lost)
                    duplicates += len(of_lost)
                    clusters.update(of_lost)
        found[source.name] = (len(clusters), duplicates)
    return found


def _dedup_steps(shard: ShardInputs) -> list[str]:
    there = {name for path in shard.layers for name in layer_columns(path)}
    steps = {step for path in shard.layers for step in drop_reasons(path)}
    return sorted(step for step in steps if f"duplicate_row@{step}" in there)


def _of_lost(
    batch: pa.RecordBatch, columns: Sequence[str], lost: Mapping[tuple[str, str], np.ndarray]
) -> list[tuple[str, str, int]]:
    """The kept documents of a batch's duplicates that are newly dropped, one for each duplicate."""
    keepers = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch.select(list(columns))]))).drop_nulls()
    found = []
    for (source, shard), part in keepers.partition_by(columns[:2], as_dict=True, maintain_order=True).items():
        rows = lost.get((source, shard))
        if rows is not None:
            hits = part.filter(pl.col(columns[2]).is_in(rows.tolist()))[columns[2]].to_list()
            found += [(source, shard, row) for row in hits]
    return found


def _change(name: str, tally: _Tally, beyond: str | None, revived: tuple[int, int], rate: TokenRate) -> Change:
    kept = tally.stay + tally.gained
    low = high = kept
    size = tally.size_stay + tally.size_gained
    if beyond is not None:
        passed = 1 - tally.gone / tally.reached if tally.reached else 1.0
        kept = tally.stay + round(tally.gained * passed) + revived[0]
        # a model or cutoffs of this text shift with it: about as many rows cross them as have changed
        margin = tally.gained + tally.lost if beyond in ("model", "cutoffs") else 0
        low, high = max(0, tally.stay - margin), tally.stay + tally.gained + revived[1] + margin
        size = tally.size_stay + np.round(tally.size_gained * passed).astype(np.int64)
        mean = tally.size_before / max(1, tally.stay + tally.lost)
        size = size + np.round(mean * revived[0]).astype(np.int64)
    return Change(
        source=name,
        rows=tally.rows,
        kept_before=tally.stay + tally.lost,
        kept_after=kept,
        kept_low=low,
        kept_high=high,
        characters_before=int(tally.size_before[0]),
        characters_after=int(size[0]),
        tokens_before=rate.tokens(int(tally.size_before[1]), tally.stay + tally.lost),
        tokens_after=rate.tokens(int(size[1]), kept),
        newly_kept=most_first(tally.newly_kept),
        newly_dropped=most_first(tally.newly_dropped),
        exact=beyond is None,
        border=[one for _, one in tally.border],
    )
