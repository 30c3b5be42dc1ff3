"""SQL conditions look at one row: which parsed ones look further, so that a row's answer never depends on its batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

_ALLOWED = {"Column", "Literal", "BinaryExpr", "Cast", "Ternary", "Function", "KeepName"}
# Functions that polars' SQL knows and that gather many rows: CORR, COVAR and QUANTILE_*; any other one is an aggregate.
_GATHERING = {"Correlation", "Quantile"}


def looks_beyond(expression: pl.Expr) -> str | None:
    """What in a parsed condition looks at more than its own row, as polars calls it; None where nothing does."""
    for kind in _node_kinds(json.loads(expression.meta.serialize(format="json"))):
        if kind not in _ALLOWED:
            return kind
    return None


def _node_kinds(node: Any) -> Iterator[str]:
    """Kinds of the nodes of a serialised polars expression: the single capitalised key of each mapping.

    A function is told by its own name where it gathers rows: `{"function": {"Quantile": …}}`.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            if key[:1].isupper() and len(node) == 1:
                yield key
            if key == "function":
                yield from _GATHERING.intersection(value if isinstance(value, dict) else (value,))
            elif key != "Literal":
                yield from _node_kinds(value)
    elif isinstance(node, list):
        for part in node:
            yield from _node_kinds(part)
    elif node == "Len":  # count(*)
        yield node
