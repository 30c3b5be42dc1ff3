"""Trace both ways: the documents of a train step, and the train steps of a document.

Both follow from the plan, which is a pure function: nothing was logged while training, and any step of any run whose
plan is there can be asked for, trained or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.ledger import scan_shard, texts_of
from mixing.domain_stage import Domain, read_domains
from mixing.domains import DomainTokens
from mixing.order import Order, open_order
from mixing.plan_record import Plan
from mixing.sort_values import open_sort_values
from recipes.curate import ALL
from recipes.errors import RunError
from recipes.queries import fates, open_ledger
from recipes.train import read_plan, spans_of
from training.spec import Span

if TYPE_CHECKING:
    from recipes.run import Run

_COPIES = 1000  # copies of a text that are looked through for the one that is kept


@dataclass(frozen=True)
class Traced:
    """A stretch of a document in a train step: where it stands in the step, and who it is."""

    sequence_of_step: int
    position: int
    domain: str
    epoch: int
    sequence: int
    source: str
    shard: str
    row: int
    first_token: int
    num_tokens: int


@dataclass(frozen=True)
class Opened:
    """A plan with its order and the indexes of its domains."""

    plan: Plan
    order: Order
    spans: tuple[Span, ...]
    folder: Path
    domains: dict[str, Domain]

    def domain(self, name: str, context: int) -> DomainTokens:
        """The index that sequences of a domain's training text are read from."""
        return DomainTokens.open(self.folder / str(self.domains[name].index(context)))


def open_plan(run: Run) -> Opened:
    """The plan of a run, which must have been made."""
    plan = read_plan(run.plan)
    folder = run.tokens.domains_path.parent
    domains = {domain.name: domain for domain in read_domains(run.tokens.domains_path)}
    values = run.sort_values
    order = open_order(plan, None if values is None else open_sort_values(values.file(ALL, ".values.json")))
    return Opened(plan, order, spans_of(plan), folder, domains)


def documents_of_step(opened: Opened, step: int) -> Iterator[Traced]:
    """Documents of a train step, sequence by sequence.

    Raises:
        RunError: if the run has no such train step.
    """
    if not 0 <= step < opened.plan.num_steps:
        raise RunError(f"--train-step {step}: the plan has {opened.plan.num_steps:,} train steps, 0 to the last")
    first, span = _positions(opened, step)
    places = np.arange(first, first + span.sequences)
    found = opened.order.locate(places)
    names = {opened.order.names[d] for d in found[0].tolist()}
    opened_domains = {name: opened.domain(name, span.context) for name in names}
    for place, (domain, _, epoch, sequence) in enumerate(zip(*(column.tolist() for column in found))):
        name = opened.order.names[domain]
        for piece in opened_domains[name].documents_in(sequence, span.context):
            yield Traced(
                place, int(places[place]), name, epoch, sequence, piece.source, piece.shard, piece.row,
                piece.start, piece.stop - piece.start,
            )  # fmt: skip


def _positions(opened: Opened, step: int) -> tuple[int, Span]:
    span = next(span for span in reversed(opened.spans) if span.first_step <= step)
    return span.first_position + (step - span.first_step) * span.sequences, span


def steps_of_document(run: Run, opened: Opened, wanted: str) -> list[dict[str, Any]]:
    """All train steps that hold tokens of a document, by its id, URL or a piece of its text."""
    # The first copy of a text may be the dropped one.
    found = [fate for fate in fates(run, wanted, most=_COPIES) if fate.kept]
    if not found:
        raise RunError(
            f"no kept document with this id, URL or text: {wanted!r}; `gristmill why` tells a dropped one's fate"
        )
    fate = found[0]
    result = []
    for name in opened.order.names:
        if name.split("/")[0] != fate.source:
            continue
        for context in sorted({span.context for span in opened.spans}):
            index = opened.domain(name, context)
            for sequence in index.sequences_of(fate.source, fate.shard, fate.row, context):
                for position in opened.order.positions_of_sequence(name, sequence, context).tolist():
                    result.append({"train_step": _step_at(opened, position), "position": position, "domain": name})
    return sorted(result, key=lambda one: one["position"])


def _step_at(opened: Opened, position: int) -> int:
    span = next(span for span in reversed(opened.spans) if span.first_position <= position)
    return span.first_step + (position - span.first_position) // span.sequences


def with_texts(run: Run, traced: list[Traced], signals: bool = False) -> list[dict[str, Any]]:
    """Traced documents with their text as the steps left it, and the signals they carry."""
    ledger = open_ledger(run)
    shards = {(shard.source, shard.shard): shard for source in ledger.sources for shard in source.shards}
    wanted: dict[tuple[str, str], list[int]] = {}
    for one in traced:
        wanted.setdefault((one.source, one.shard), []).append(one.row)
    texts = {key: texts_of(shards[key], rows) for key, rows in wanted.items()}
    carried = {key: _signals(shards[key], rows) if signals else {} for key, rows in wanted.items()}
    return [
        {
            **vars(one),
            "text": texts[one.source, one.shard].get(one.row),
            **({"signals": carried[one.source, one.shard].get(one.row)} if signals else {}),
        }
        for one in traced
    ]


def _signals(shard: Any, rows: list[int]) -> dict[int, dict[str, Any]]:
    import polars as pl

    frame = scan_shard(shard).filter(pl.col("row").is_in(rows)).collect()
    return {
        row["row"]: {n: v for n, v in row.items() if isinstance(v, int | float | str) and "@" not in n}
        for row in frame.to_dicts()
    }
