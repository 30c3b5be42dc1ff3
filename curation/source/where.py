"""The `where` condition and the `sample` of a source: which rows are read at all."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from curation.conditions import looks_beyond


class SourceError(ValueError):
    """A source's description does not fit its files: the message says what, where and what to change."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?`, or what there is, for an error about an unknown name."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(sorted(known)) or 'nothing'}"


@lru_cache(maxsize=256)
def condition(sql: str) -> tuple[pl.Expr, tuple[str, ...]]:
    """Parse a `where` condition; the expression and the columns it asks for, sorted.

    The SQL is parsed by polars as an expression, nothing is evaluated. Table functions, subqueries and aggregates are
    refused: a shard is read in row batches, and a row's answer must not depend on what else is in its batch.

    Raises:
        SourceError: if it cannot be parsed, or looks at more than its own row.
    """
    try:
        expression = pl.sql_expr(sql)
        names = tuple(sorted(set(expression.meta.root_names())))
        beyond = looks_beyond(expression)
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"where: {sql!r} is not a condition: {error}") from error
    if beyond:
        raise SourceError(
            f"where: {sql!r}: '{beyond}' looks beyond one row; write a comparison of the row's own columns"
        )
    return expression, names


def is_true(sql: str, columns: Mapping[str, pa.Array], num_rows: int) -> npt.NDArray[np.bool_]:
    """Where the condition is true, bool (R,); null counts as not true.

    Raises:
        SourceError: if it does not give true or false on these columns.
    """
    expression, names = condition(sql)
    frame = pl.DataFrame({name: pl.Series(columns[name]) for name in names})
    _check_comparisons(sql, tuple(frame.schema.items()))
    try:
        answer = (frame if names else pl.DataFrame({"": [0]})).select(expression.alias("true")).get_column("true")
    except pl.exceptions.PolarsError as error:
        raise SourceError(_cannot_be_asked(sql, frame.schema, error)) from error
    if answer.dtype != pl.Boolean:
        raise SourceError(f"where: {sql!r} gives {answer.dtype}, not true or false; compare it with something")
    mask: npt.NDArray[np.bool_] = answer.fill_null(False).to_numpy().astype(bool)
    return mask if names else np.broadcast_to(mask, num_rows)


def _cannot_be_asked(sql: str, schema: Mapping[str, pl.DataType], why: object) -> str:
    types = ", ".join(f"{name}: {kind}" for name, kind in schema.items())
    return f"where: {sql!r} cannot be asked of {types}: {why}; convert it, such as TRY_CAST(name AS DOUBLE)"


@lru_cache
def _check_comparisons(sql: str, schema: tuple[tuple[str, pl.DataType], ...]) -> None:
    """Refuse text compared with a number: polars compares some of them letter by letter ('10' > 5.0 is false)."""
    frame = pl.DataFrame(schema=dict(schema))
    pending = [condition(sql)[0]]
    while pending:
        inputs = pending.pop().meta.pop()
        pending.extend(inputs)
        try:
            kinds = [frame.select(expression).dtypes[0] for expression in inputs] if len(inputs) == 2 else []
        except pl.exceptions.PolarsError:
            continue  # evaluating the whole condition says it better
        if len(kinds) == 2 and pl.String in kinds and any(kind.is_numeric() for kind in kinds):
            raise SourceError(_cannot_be_asked(sql, dict(schema), "it compares text with a number"))


def sampled(content_ids: bytes, share: float) -> npt.NDArray[np.bool_]:
    """Which rows a sample holds, by content hash: a smaller sample is part of a larger one, copies go together.

    Args:
        content_ids: 16 bytes a row.
        share: of rows, 0 to 1.

    Returns:
        bool (R,).
    """
    # the upper 53 bits of the hash's second half are an exact float in [0, 1)
    second_half = np.frombuffer(content_ids, ">u8").astype(np.uint64)[1::2]
    mask: npt.NDArray[np.bool_] = (second_half >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    return mask
