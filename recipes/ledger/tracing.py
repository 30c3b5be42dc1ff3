"""Trace both ways: the documents of a train step, and the train steps of a document.

Both follow from the plan, which is a pure function: nothing was logged while training, and any step of any run whose
plan is there can be asked for, trained or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.ledger import scan_shard, shown_texts
from mixing.document_ids import DocumentIds, find_documents, ids_path
from mixing.domain_stage import Domain, read_domains
from mixing.domains import DomainTokens
from mixing.journal import step_at
from mixing.order import Order, open_order
from mixing.plan_record import Plan
from mixing.shards import ShardFiles, map_tokens, read_documents, read_record
from mixing.sort_values import open_sort_values
from mixing.tokenizer import decode, load_tokenizer
from recipes.curating.curate import ALL
from recipes.errors import RunError
from recipes.ledger.queries import CONTENT_ID, fates, open_ledger
from recipes.pretraining.amended import Course, course_of, read_rollbacks
from recipes.pretraining.pinned import open_pinned
from recipes.pretraining.train import read_plan
from training.spec import Span

if TYPE_CHECKING:
    from recipes.run import Run

_COPIES = 1000  # copies of a text that are looked through for the one that is kept


@dataclass(frozen=True)
class Traced:
    """A stretch of a document in a train step: where it stands in the step, who it is, and where in its shard."""

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
    offset: int


@dataclass(frozen=True)
class Opened:
    """A plan with its order and the indexes of its domains."""

    plan: Plan
    order: Order
    course: Course
    folder: Path
    domains: dict[str, Domain]
    pinned: bool = False  # what an unfinished training reads, where the recipe gives other text by now

    @property
    def spans(self) -> tuple[Span, ...]:
        """Train steps of one batch size each."""
        return self.course.spans

    def domain(self, name: str, context: int) -> DomainTokens:
        """The index that sequences of a domain's training text are read from."""
        return DomainTokens.open(self.folder / str(self.domains[name].index(context)))


def open_plan(run: Run) -> Opened:
    """The plan of a run, which must have been made; of an unfinished training, the one that it follows."""
    began = open_pinned(run)
    if began is not None:
        return _open_pinned(run, began)
    plan, values = read_plan(run.plan), run.sort_values
    order = open_order(plan, None if values is None else open_sort_values(values.file(ALL, ".values.json")))
    course = course_of(run.recipe, plan) if run.recipe.training is None else run.training.course
    return Opened(plan, order, course, run.tokens.domains_path.parent, _domains(run))


def _open_pinned(run: Run, began: dict[str, Any]) -> Opened:
    plan, values = Plan.from_json(Path(began["plan"]).read_text(encoding="utf-8")), began["sorted_by"]
    order = open_order(plan, None if values is None else open_sort_values(values))
    course = course_of(run.recipe, plan, read_rollbacks(Path(began["log"])))
    return Opened(plan, order, course, run.tokens.domains_path.parent, _domains(run), pinned=True)


def _domains(run: Run) -> dict[str, Domain]:
    return {domain.name: domain for domain in read_domains(run.tokens.domains_path)}


def documents_of_step(opened: Opened, step: int, sequence_of_step: int | None = None) -> Iterator[Traced]:
    """Documents of a train step, sequence by sequence, or of one of its sequences.

    Raises:
        RunError: if the run has no such train step or sequence.
    """
    if not 0 <= step < opened.course.num_steps:
        number = opened.course.num_steps
        raise RunError(f"--train-step {step}: the plan has {number:,} train steps, 0 to {number - 1:,}")
    first, span = positions_of_step(opened, step)
    if sequence_of_step is not None and not 0 <= sequence_of_step < span.sequences:
        raise RunError(f"--sequence {sequence_of_step}: train step {step} has {span.sequences:,} sequences, from 0")
    wanted = range(span.sequences) if sequence_of_step is None else [sequence_of_step]
    places = first + np.array(wanted)
    found = opened.order.locate(places)
    names = {opened.order.names[d] for d in found[0].tolist()}
    opened_domains = {name: opened.domain(name, span.context) for name in names}
    for place, position, (domain, _, epoch, sequence) in zip(
        wanted, places.tolist(), zip(*(column.tolist() for column in found))
    ):
        name = opened.order.names[domain]
        for piece in opened_domains[name].documents_in(sequence, span.context):
            yield Traced(
                place, position, name, epoch, sequence, piece.source, piece.shard, piece.row,
                piece.start, piece.stop - piece.start, piece.offset,
            )  # fmt: skip


def positions_of_step(opened: Opened, step: int) -> tuple[int, Span]:
    """The first position of a train step, and the stretch of train steps of one size that it is part of."""
    span = next(span for span in reversed(opened.spans) if span.first_step <= step)
    return span.first_position + (step - span.first_step) * span.sequences, span


def steps_of_document(run: Run, opened: Opened, wanted: str) -> list[dict[str, Any]]:
    """All train steps that hold tokens of a document, by its id, URL or a piece of its text, in order."""
    source, shard, row = kept_document(run, wanted)
    result = []
    for name in opened.order.names:
        if name.split("/")[0] != source:
            continue
        for context in sorted({span.context for span in opened.spans}):
            index = opened.domain(name, context)
            for sequence in index.sequences_of(source, shard, row, context):
                pieces = index.documents_in(sequence, context)
                tokens = sum(p.stop - p.start for p in pieces if (p.source, p.shard, p.row) == (source, shard, row))
                positions = opened.order.positions_of_sequence(name, sequence, context)
                epochs = opened.order.locate(positions).epoch.tolist() if len(positions) else []
                for position, epoch in zip(positions.tolist(), epochs):
                    step = step_at(opened.course.runs, position)  # None: passed over
                    result.append(
                        {"train_step": step, "position": position, "domain": name, "epoch": epoch,
                         "sequence": sequence, "num_tokens": tokens}
                    )  # fmt: skip
    return sorted(result, key=lambda one: one["position"])


def kept_document(run: Run, wanted: str) -> tuple[str, str, int]:
    """Source, shard and row of a kept document; a content id is looked up beside the token shards, without the ledger.

    Raises:
        RunError: if no kept document has this id, URL or text, or several have an id that begins so.
    """
    if CONTENT_ID.fullmatch(wanted.lower()):
        found = list(islice(find_documents(run.tokens.shards, wanted.lower()), _COPIES))
        ids = sorted({str(_ids(files).id_of(row)) for files, row in found})
        if len(ids) > 1:
            raise RunError(f"--document {wanted}: {len(ids)} documents have ids that begin so: {', '.join(ids[:5])}")
        if found:
            files, row = found[0]
            return files.source, files.shard, row
    # The first copy of a text may be the dropped one.
    kept = [fate for fate in fates(run, wanted, most=_COPIES) if fate.kept]
    if not kept:
        ready = ", ".join(sorted(run.recipe.token_sources()))
        raise RunError(
            f"no kept document with this id, URL or text: {wanted!r}; `gristmill why` tells a dropped one's fate"
            + (
                f"; ready token shards ({ready}) are found by content id only, as --train-step shows it"
                if ready
                else ""
            )
        )
    return kept[0].source, kept[0].shard, kept[0].row


def with_stretches(run: Run, opened: Opened, traced: list[Traced], characters: int) -> list[dict[str, Any]]:
    """Traced documents with their content ids and the beginning of the stretch that is trained on, from its tokens."""
    tokenizer = load_tokenizer(run.tokens.tokenizer)
    shards = {(files.source, files.shard): files for files in run.tokens.shards}
    keys = {(one.source, one.shard) for one in traced}
    tokens = {key: map_tokens(shards[key], read_record(shards[key])) for key in keys}
    ids = {key: _ids(shards[key]) for key in keys}
    found = []
    for one in traced:
        key = one.source, one.shard
        # a token is a byte or more, so as many tokens are enough; a few more, for the first may be part of a character
        stretch = tokens[key][one.offset : one.offset + min(one.num_tokens, characters + 8)]
        text = decode(tokenizer, stretch)[:characters]
        found.append({**vars(one), "content_id": ids[key].id_of(one.row), "text": text})
    return found


def _ids(files: ShardFiles) -> DocumentIds:
    """The index of a token shard's ids; an empty one for a shard that brings none."""
    try:
        return DocumentIds.open(ids_path(files))
    except OSError:
        return DocumentIds.nothing()


def with_signals(run: Run, traced: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Traced documents with the signals that the ledger has of them."""
    ledger = open_ledger(run)
    shards = {(shard.source, shard.shard): shard for source in ledger.sources for shard in source.shards}
    rows: dict[tuple[str, str], list[int]] = {}
    for one in traced:
        rows.setdefault((one["source"], one["shard"]), []).append(one["row"])
    carried = {key: _signals(shards[key], rows[key]) if key in shards else _beside(run, key, rows[key]) for key in rows}
    return [{**one, "signals": carried[one["source"], one["shard"]].get(one["row"])} for one in traced]


def with_texts(run: Run, traced: list[Traced]) -> list[dict[str, Any]]:
    """Traced documents with their whole text as the steps left it. Reads every shard that one of them is in."""
    ledger = open_ledger(run)
    shards = {(shard.source, shard.shard): shard for source in ledger.sources for shard in source.shards}
    wanted: dict[tuple[str, str], list[int]] = {}
    for one in traced:
        wanted.setdefault((one.source, one.shard), []).append(one.row)
    texts = {
        key: shown_texts(shards[key], rows, raw=False) if key in shards else _decoded(run, key, rows)
        for key, rows in wanted.items()
    }
    files = {(shard.source, shard.shard): shard for shard in run.tokens.shards}
    ids = {key: _ids(files[key]) for key in wanted}
    return [
        {**vars(one), "content_id": ids[key].id_of(one.row), "text": texts[key].get(one.row)}
        for one in traced
        for key in [(one.source, one.shard)]
    ]


def _decoded(run: Run, key: tuple[str, str], rows: list[int]) -> dict[int, str]:
    """Whole documents of a ready token shard, which the ledger does not know, decoded from their tokens."""
    files = next(files for files in run.tokens.shards if (files.source, files.shard) == key)
    tokenizer, tokens = load_tokenizer(run.tokens.tokenizer), map_tokens(files, read_record(files))
    wanted, found, start = set(rows), {}, 0
    for batch in read_documents(files, ["row", "end"]):
        for row, end in zip(batch["row"].to_pylist(), batch["end"].to_pylist()):
            if row in wanted:
                found[row] = decode(tokenizer, tokens[start:end])
            start = end
    return found


def _beside(run: Run, key: tuple[str, str], rows: list[int]) -> dict[int, dict[str, Any]]:
    """What stands beside the tokens of ready documents, which the ledger does not know."""
    files = next(files for files in run.tokens.shards if (files.source, files.shard) == key)
    wanted = set(rows)
    return {
        row["row"]: {name: value for name, value in row.items() if isinstance(value, int | float | str)}
        for batch in read_documents(files)
        for row in batch.drop_columns(["end"]).to_pylist()
        if row["row"] in wanted
    }


def _signals(shard: Any, rows: list[int]) -> dict[int, dict[str, Any]]:
    import polars as pl

    frame = scan_shard(shard).filter(pl.col("row").is_in(rows)).collect()
    return {
        row["row"]: {n: v for n, v in row.items() if isinstance(v, int | float | str) and "@" not in n}
        for row in frame.to_dicts()
    }
