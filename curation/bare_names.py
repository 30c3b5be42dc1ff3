"""Bare names of rules, splits and orders: which column a source brings for them, and where one was measured last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from curation import config
from curation.compiled import matches

# Columns of the rows layer that are counted when a text is read, whatever the source calls by the same name.
COUNTED = ("size_bytes", "num_characters", "repaired")


def brought_columns(source: config.Source, split: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Columns a source brings that something uses: those of `where`, and a split by a column that no step measures.

    The column of the text is read anyway, and not written a second time because `where` looks at it.
    """
    from curation.source.where import condition

    named = set(condition(source.where)[1]) - {text_column(source)} if source.where else set()
    return tuple(sorted(named | {column for pattern, column in split.items() if matches(name, [pattern])}))


def text_column(source: config.Source) -> str:
    """The column of a source's files that holds the text."""
    return source.fields.get("text", "text")


def brought_names(source: config.Source) -> dict[str, str]:
    """Columns that a source's `where` names, by the bare name that rules use where no step measures it."""
    return {name: f"{name}@source" for name in brought_columns(source, {}, "") if name not in COUNTED}


def last_measured(measured: Iterable[str], texts: Mapping[str, int]) -> dict[str, str]:
    """Layer column of each measured name; of one that was measured on several texts, that of the last text.

    Args:
        measured: layer columns, `NAME` or `NAME@STEP`.
        texts: place of each step in the recipe; a column is named by the step that made its text.
    """
    by_text = sorted(measured, key=lambda column: (texts.get(column.partition("@")[2], -1), column))
    return {column.partition("@")[0]: column for column in by_text}
