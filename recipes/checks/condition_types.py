"""Conditions that parse and still make no sense: types that do not compare, no truth value, shares above 1.

Columns whose type only the data tells (what sources bring, signals of a user's files) are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from curation.rules import Rule, parse, signal_names

Types = Mapping[str, pl.DataType]
NUMBER, TRUTH, TEXT = pl.Float64(), pl.Boolean(), pl.String()
_TRUTHS = ("c4_lorem_ipsum", "c4_curly_bracket")
_TEXTS = ("origin_id", "url", "date", "licence", "language", "duplicate_source")
_NUMBERS = ("size_bytes", "num_characters", "repaired", "language_score", "similarity", "cluster_size")
_LINE_TRUTHS = (
    "starts_bullet", "ends_terminal", "ends_ellipsis", "javascript", "lorem_ipsum", "policy", "curly_bracket",
)  # fmt: skip
# A share alone on one side of a comparison, a number alone on the other.
_SHARE = re.compile(
    r"(?:^|\(|\band\b|\bor\b|\bnot\b)\s*([a-z]\w*_share)\s*(<=|>=|<|>|=)\s*(\d+(?:\.\d*)?)\s*(?=$|\)|\band\b|\bor\b)",
    re.IGNORECASE,
)


def types_of_signals(signals: list[str]) -> dict[str, pl.DataType]:
    """Types of the signals of the registry and of the rows' own columns."""
    numbers = dict.fromkeys([*signals, *_NUMBERS], NUMBER)
    return {**numbers, **dict.fromkeys(_TRUTHS, TRUTH), **dict.fromkeys(_TEXTS, TEXT)}


def types_of_lines(signals: list[str]) -> dict[str, pl.DataType]:
    """Types of the signals of lines; C4's checks are left to the run."""
    numbers = dict.fromkeys((name for name in signals if not name.startswith("c4_")), NUMBER)
    return {**numbers, **dict.fromkeys(_LINE_TRUTHS, TRUTH), "language": TEXT}


def condition_problem(sql: str, types: Types) -> str | None:
    """What is wrong with a condition that parses; None where nothing is, or where a column's type is not known.

    >>> condition_problem("word_count + 1", {"word_count": NUMBER})
    'a number, not true or false: compare it with something, such as `word_count < 50`'
    """
    rule = Rule("condition", sql)
    if any(name not in types for name in signal_names([rule])):
        return None
    found = [_result(rule, types, kind) for kind in (NUMBER, pl.Int64())]
    if all(isinstance(result, str) for result in found):
        return str(found[0])
    result = next(result for result in found if not isinstance(result, str))
    if result not in (pl.Boolean, pl.Null):
        what = "a number" if result.is_numeric() else "text" if result == pl.String else f"a {result}"
        return f"{what}, not true or false: compare it with something, such as `word_count < 50`"
    return _share_problem(sql)


def _result(rule: Rule, types: Types, number: pl.DataType) -> pl.DataType | str:
    """The type of a condition's value over columns of these types, or why there is none."""
    schema = {name: number if types[name] == NUMBER else types[name] for name in signal_names([rule])}
    try:
        return pl.DataFrame(schema=schema).select(parse(rule).alias("truth")).schema["truth"]
    except pl.exceptions.PolarsError as error:
        return re.sub(r"numeric type \([iuf]\d+\)", "a number", str(error).splitlines()[0])


def _share_problem(sql: str) -> str | None:
    for name, _, number in _SHARE.findall(sql):
        if float(number) > 1:
            meant = f"; did you mean {float(number) / 100:g}?" if float(number) <= 100 else ""
            return f"{name} is a share, from 0 to 1, and is compared with {number}{meant}"
    return None
