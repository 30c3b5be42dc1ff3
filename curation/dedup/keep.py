"""Which copy stays: an order of preference over documents, ties by the canonical first.

A recipe's `keep` list is read from its start: `{source: pattern}` prefers sources, `newest` and `longest` the date and
the length, `{SIGNAL: asc}` the smallest, `{SIGNAL: desc}` the largest value, `{licence: [cc0, cc-by]}` the earlier word
of a list. A missing value comes last, and so does a date that is none (`dates`). What is still equal is decided by
(source name, shard path, row).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class KeepError(ValueError):
    """A `keep` entry that cannot be read or names a column that no layer has."""


NEWEST = "newest"


@dataclass(frozen=True)
class Criterion:
    """One entry of a keep policy: a pattern of source names, or a column in an order.

    `name` is what the ledger's `kept_by` says. `order` is "ascending", "descending", NEWEST (dates, latest first) or
    a tuple of values, best first.
    """

    name: str
    column: str | None = None
    pattern: str | None = None
    order: str | tuple[str, ...] = "ascending"


def read_keep(entries: Sequence[str | Mapping[str, object]]) -> tuple[Criterion, ...]:
    """Criteria of a recipe's `keep` list.

    Raises:
        KeepError: for a word or a shape that is not one of the module's.
    """
    return tuple(_read_entry(entry) for entry in entries)


def _read_entry(entry: str | Mapping[str, object]) -> Criterion:
    if entry == "newest":
        return Criterion("newest", "date", order=NEWEST)
    if entry == "longest":
        return Criterion("longest", "num_characters", order="descending")
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, wanted),) = entry.items()
        if name == "source" and isinstance(wanted, str):
            return Criterion(f"source: {wanted}", pattern=wanted)
        if wanted in ("asc", "desc"):
            return Criterion(f"{name}: {wanted}", name, order="ascending" if wanted == "asc" else "descending")
        if isinstance(wanted, list | tuple) and wanted:
            return Criterion(f"{name}: {', '.join(map(str, wanted))}", name, order=tuple(map(str, wanted)))
    raise KeepError(
        f"keep entry {entry!r} is not understood; write newest, longest, {{source: PATTERN}}, {{SIGNAL: asc}}, "
        f"{{SIGNAL: desc}} or {{COLUMN: [best, second, …]}}"
    )


def source_places(criterion: Criterion, sources: Sequence[str]) -> np.ndarray:
    """0 for sources that match the criterion's pattern, 1 for the others; int64 (sources,)."""
    return np.array([0 if fnmatch.fnmatchcase(name, criterion.pattern or "*") else 1 for name in sources], np.int64)


def preference_of_sources(patterns: Sequence[str], sources: Sequence[str]) -> dict[str, int]:
    """Place of each source in a list of patterns, the first that matches it; sources that none matches come last."""
    places = {}
    for name in sources:
        matching = (place for place, pattern in enumerate(patterns) if fnmatch.fnmatchcase(name, pattern))
        places[name] = next(matching, len(patterns))
    return places


def column_places(criterion: Criterion, values: pa.ChunkedArray) -> np.ndarray:
    """Place of each value in the criterion's order, smallest best, missing and NaN last; int64 (values,).

    Dates are seconds here, as `read_dates` makes them.
    """
    if isinstance(criterion.order, tuple):
        found = pc.index_in(values.cast(pa.string()), value_set=pa.array(criterion.order, pa.string()))
        return np.asarray(pc.fill_null(found, len(criterion.order)).to_numpy()).astype(np.int64)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if len(values) == 0 or pa.types.is_null(values.type):
        return np.zeros(len(values), np.int64)
    order_of = "descending" if criterion.order == NEWEST else criterion.order
    encoded = pc.dictionary_encode(values.combine_chunks())
    order = pc.array_sort_indices(encoded.dictionary, order=order_of).to_numpy()
    place_of = np.empty(len(order) + 1, np.int64)
    place_of[order] = np.arange(len(order))
    place_of[-1] = len(order)  # missing
    places: np.ndarray = place_of[pc.fill_null(encoded.indices, len(order)).to_numpy(zero_copy_only=False)]
    return places


def ranks(places: Sequence[np.ndarray], num_documents: int) -> np.ndarray:
    """Rank of each document, 0 best: by the first list of places, then the next, last by its own number; int64."""
    order = np.arange(num_documents)
    if places:
        order = np.lexsort(tuple(reversed(places)))  # stable: ties stay in canonical order
    rank = np.empty(num_documents, np.int64)
    rank[order] = np.arange(num_documents)
    return rank


def deciding(places: Sequence[np.ndarray], winner: np.ndarray, runner_up: np.ndarray) -> np.ndarray:
    """First criterion by which each winner's place differs from its runner-up's; `len(places)` where none does."""
    decided = np.full(len(winner), len(places), np.int64)
    for number in reversed(range(len(places))):
        differs = places[number][winner] != places[number][runner_up]
        decided[differs] = number
    return decided
