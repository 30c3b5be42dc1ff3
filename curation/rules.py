"""Rules: SQL conditions over signals that drop rows, decided for all rows at once.

A rule is never evaluated as Python: `polars.sql_expr` parses it, and only what looks at one row (columns, numbers,
comparisons, logic, plain functions) is allowed. A condition that is null keeps the row and is counted as undecided.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from curation.conditions import looks_beyond
from curation.rule_presets import Option, filled_conditions, preset_options, resolve_options

__all__ = ["Rule", "RuleError", "decide", "preset_options", "preset_rules", "reasons", "signal_names"]

MAX_RULES = 64  # bits of a decision


@dataclass(frozen=True)
class Rule:
    """Drop a row for `reason` where `sql` is true."""

    reason: str
    sql: str


class RuleError(ValueError):
    """A condition that cannot be used: its reason, the SQL, what is wrong and what to write instead."""


def preset_rules(
    preset: str, language: str, options: Mapping[str, object], dictionary: bool = False
) -> tuple[list[Rule], dict[str, Option]]:
    """The rules of a preset in a language, and its options as resolved.

    Args:
        preset: name of a file in `curation/presets`.
        language: code; chooses the preset's values for it.
        options: the recipe's own thresholds; null switches the rules that use it off.
        dictionary: whether a dictionary cuts Han text into words: then values for those.

    Raises:
        ValueError: for an unknown preset or option.
    """
    resolved = resolve_options(preset, language, options, dictionary)
    return [Rule(reason, sql) for reason, sql in filled_conditions(preset, resolved).items()], resolved


def reasons(rules: Sequence[Rule]) -> list[str]:
    """The reasons in the order of their bits: by name.

    Raises:
        RuleError: for two rules of one reason, or more than 64 rules.
    """
    names = sorted(rule.reason for rule in rules)
    twice = [a for a, b in itertools.pairwise(names) if a == b]
    if twice:
        raise RuleError(f"two rules drop for the reason '{twice[0]}': give each its own name")
    if len(names) > MAX_RULES:
        raise RuleError(f"{len(names)} rules in one step, at most {MAX_RULES}: split the step")
    return names


def signal_names(rules: Sequence[Rule]) -> list[str]:
    """The columns that the rules use, by name."""
    return sorted({name for rule in rules for name in columns_of(rule)})


_SUBQUERY = re.compile(r"\bselect\b", re.IGNORECASE)
_STRINGS = re.compile(r"'[^']*'|\"[^\"]*\"")


@lru_cache(maxsize=1024)
def parse(rule: Rule) -> pl.Expr:
    """The polars expression of a rule's condition.

    Raises:
        RuleError: for SQL that does not parse, reads files or tables, or looks at more than its own row.
    """
    if _SUBQUERY.search(_STRINGS.sub("", rule.sql)):
        raise _error(rule, "a condition looks at one row's signals; subqueries are refused")
    try:
        expression = pl.sql_expr(rule.sql)
    except pl.exceptions.PolarsError as error:
        raise _error(rule, f"{error}; a condition compares signals, such as `word_count < 50`") from None
    dotted = re.search(r"\b([A-Za-z_]\w*)\.([A-Za-z_]\w*)", _STRINGS.sub("", rule.sql))
    if dotted:
        name = f"{dotted[1]}_{dotted[2]}"
        raise _error(rule, f"'{dotted[0]}' is read as a column of a table; signal names use underscores: '{name}'")
    if kind := looks_beyond(expression):
        raise _error(rule, f"'{kind}' looks beyond one row; write a comparison of the row's own signals")
    return expression


@lru_cache(maxsize=1024)
def columns_of(rule: Rule) -> tuple[str, ...]:
    """The columns that a rule's condition uses."""
    return tuple(parse(rule).meta.root_names())


def _error(rule: Rule, what: str) -> RuleError:
    return RuleError(f"drop rule '{rule.reason}': `{rule.sql}`: {what}")


def check_columns(rules: Sequence[Rule], columns: Sequence[str]) -> None:
    """Refuse rules on columns that are not there.

    Raises:
        RuleError: naming the unknown column and the closest known ones.
    """
    for rule in rules:
        for name in columns_of(rule):
            if name not in columns:
                close = difflib.get_close_matches(name, columns, 3)
                hint = (
                    f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(columns)[:20])}"
                )
                raise _error(rule, f"no signal is called '{name}'; {hint}")


def decide(signals: pl.DataFrame, rules: Sequence[Rule]) -> tuple[np.ndarray, np.ndarray]:
    """Decide all rows.

    Args:
        signals: one column per signal; NaN counts as null (NaN > 2 is true in polars).
        rules: at most 64, each reason once.

    Returns:
        drop, undecided: uint64 (rows,); bit i belongs to the i-th reason by name. A bit of `undecided` is set where the
        condition is null: the row is kept by it.

    Raises:
        RuleError: for a rule that cannot be used on these columns.
    """
    from curation.rule_bits import decision_bits  # compiles: what only checks rules does not wait for it

    names = reasons(rules)
    check_columns(rules, signals.columns)
    used = signals.select(signal_names(rules) or signals.columns)  # none: constant conditions
    floats = [name for name, kind in used.schema.items() if kind.is_float()]
    used = used.with_columns(pl.col(floats).fill_nan(None)) if floats else used
    bits = [names.index(rule.reason) for rule in rules]
    return decision_bits(_truths(used, rules), bits, signals.height)


def _truths(signals: pl.DataFrame, rules: Sequence[Rule]) -> list[pl.Series]:
    """Each rule's condition on all rows, in one query; a mistake is looked for rule by rule, to name its rule."""
    conditions = [parse(rule).alias(str(place)) for place, rule in enumerate(rules)]
    try:
        found = signals.select(conditions).get_columns()
    except pl.exceptions.PolarsError:
        found = [_truth(signals, rule) for rule in rules]
    return [_boolean(truth, rule, signals.height) for truth, rule in zip(found, rules, strict=True)]


def _truth(signals: pl.DataFrame, rule: Rule) -> pl.Series:
    try:
        return signals.select(parse(rule).alias("truth")).get_column("truth")
    except pl.exceptions.PolarsError as error:
        raise _error(rule, str(error)) from None


def _boolean(found: pl.Series, rule: Rule, height: int) -> pl.Series:
    """The condition as a Boolean column of the rows' number (a constant condition holds for each row)."""
    if found.dtype == pl.Null:
        found = found.cast(pl.Boolean)
    if found.dtype != pl.Boolean:
        raise _error(rule, f"it is a {found.dtype}, not true or false: compare it with something")
    return found if len(found) == height else pl.repeat(found[0], height, dtype=pl.Boolean, eager=True)
