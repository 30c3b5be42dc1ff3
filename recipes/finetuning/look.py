"""A look at what a fine-tuning learns: packed sequences as text, with the tokens that carry loss marked, and what was
dropped.

Read from the prepared files themselves, not from templates, so that what is shown is what training reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from training.tuning.prepare import PADDING

if TYPE_CHECKING:
    from training.tuning.prepare import Prepared
    from training.tuning.tokens import Encoder

# Rows named of each reason why rows are not trained on.
_NAMED = 5
# Around what is learnt.
MARKS = ("⟦", "⟧")


@dataclass(frozen=True)
class Shown:
    """A packed sequence for a reader.

    Attributes:
        name: of its set.
        number: of the sequence in its set, from 0.
        conversations: of each, its pieces of text and whether they are learnt.
        tokens: ids in it, separators not counted.
        learnt: those that carry loss.
        padding: places that stay empty.
    """

    name: str
    number: int
    conversations: list[list[tuple[str, bool]]]
    tokens: int
    learnt: int
    padding: int


def shown_sequences(folder: Path, prepared: Prepared, encoder: Encoder, most: int) -> Iterator[Shown]:
    """The first sequences of each set's training part, at most `most` of each."""
    for one in prepared.sets:
        packed = np.load(folder / f"{one.name}.train.npy", mmap_mode="r")
        for number, coded in enumerate(packed[:most]):
            yield _shown(one.name, number, np.array(coded), prepared.separator, encoder)


def _shown(name: str, number: int, coded: np.ndarray, separator: int | None, encoder: Encoder) -> Shown:
    real = coded[coded != PADDING]
    between = np.zeros(len(real), bool) if separator is None else real == -2 - separator
    parts = [part[1:] if n else part for n, part in enumerate(np.split(real, np.flatnonzero(between)))]
    conversations = [
        [(_text(encoder, list(run)), learnt) for learnt, run in groupby(part.tolist(), lambda coded_id: coded_id >= 0)]
        for part in parts
        if len(part)
    ]
    tokens = len(real) - int(between.sum())
    return Shown(name, number, conversations, tokens, int((real >= 0).sum()), len(coded) - len(real))


def _text(encoder: Encoder, coded: list[int]) -> str:
    """Text of coded ids, special tokens written out."""
    return encoder.tokenizer.decode([one if one >= 0 else -2 - one for one in coded], skip_special_tokens=False)


def dropped_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows that are not trained on, or not whole: of each set and reason how many, and where the first ones stand."""
    ledger = pl.read_parquet(folder / "ledger.parquet").with_columns(
        reason=pl.when(pl.col("reason").is_null() & pl.col("cut")).then(pl.lit("cut")).otherwise(pl.col("reason"))
    )
    grouped = ledger.filter(pl.col("reason").is_not_null()).group_by("set", "reason", maintain_order=True)
    found = grouped.agg(pl.len().alias("rows"), pl.struct("file", "row", "detail").head(_NAMED).alias("first"))
    return found.sort("set", "reason").to_dicts()


def look_lines(sequences: Iterable[Shown], dropped: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Pieces of what is printed, and whether each is learnt."""
    for one in sequences:
        count = len(one.conversations)
        yield (
            f"\n{one.name}, sequence {one.number}: {count} conversation{'s' * (count > 1)}, {one.tokens:,} tokens, "
            f"{one.learnt:,} of them learnt ({MARKS[0]} {MARKS[1]}), {one.padding:,} padding\n",
            False,
        )
        for place, pieces in enumerate(one.conversations):
            yield "  ─────\n  " if place else "  ", False
            for text, learnt in pieces:
                shown = text.replace("\n", "\n  ")
                yield (f"{MARKS[0]}{shown}{MARKS[1]}" if learnt else shown), learnt
            yield "\n", False
    if dropped:
        yield "\nnot trained on, or not whole\n", False
    for one_reason in dropped:
        where = ", ".join(
            f"{row['file']} row {row['row']}" + (f" ({row['detail']})" if row["detail"] else "")
            for row in one_reason["first"]
        )
        more = " …" if one_reason["rows"] > len(one_reason["first"]) else ""
        yield f"  {one_reason['set']}: {one_reason['rows']:,} {one_reason['reason']}: {where}{more}\n", False
