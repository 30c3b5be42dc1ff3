"""Checks of a recipe's SQL that need polars: conditions that do not parse, and names that no step measures.

`gristmill validate` makes them, so that a mistake in a rule shows with its line before anything is read. The names of
signals come from a list beside the registry, which costs half a second to import; a test holds it to the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import curation
from curation.bare_names import COUNTED
from curation.config import COLUMN_FORMATS
from curation.fields import Problem, did_you_mean
from curation.language_codes import language_code
from curation.rules import Rule, RuleError, preset_rules, signal_names
from recipes.checks.condition_types import Types, condition_problem, types_of_lines, types_of_signals
from recipes.schema.located import Located
from recipes.schema.recipe import Recipe, matches, step_for
from recipes.schema.validation import located_problems

UNTRAINED = "none of these sources is in {0!r}, which the step scores; add one, or name the step's `sources`"
_ROW_COLUMNS = ("origin_id", "url", "date", "licence", "size_bytes", "num_characters", "repaired")
_ROW_COLUMNS_OF_A_STEP = {"language": ("language", "language_score")}


def signal_list() -> list[str]:
    """Names of all signals of the registry."""
    return (Path(str(curation.__file__)).parent / "signals" / "names.txt").read_text(encoding="utf-8").split()


# Names that other tools have for what ours are called.
_MEANT = {
    "length": "num_characters", "text_length": "num_characters", "len": "num_characters", "num_bytes": "size_bytes",
    "lang": "language", "lang_score": "language_score", "ppl": "perplexity", "token_count": "word_count",
    "num_tokens": "word_count", "avg_word_length": "mean_word_length", "avg_line_length": "mean_line_length",
}  # fmt: skip
_COMPARED_LANGUAGE = re.compile(r"\blanguage\s*(?:=|<>|!=|(?:not\s+)?in\b)\s*(?:'[^']*'|\([^)]*\))", re.IGNORECASE)
_QUOTED = re.compile(r"'([^']*)'")
_COUNTED = re.compile(r"(num|n|nb|number_of|count_of|count)_|_(num|number|count)$")
_PART = re.compile(r"ratio|fraction|frac|percentage|percent|proportion")


def signal_hint(name: str, known: set[str]) -> str:
    """`; did you mean X?` for a near miss or another tool's name, else where all names stand.

    >>> signal_hint("num_words", {"word_count", "line_count"})
    '; did you mean word_count?'
    """
    near = did_you_mean(name, known, limit=0)
    stem = _COUNTED.sub("", name.lower()).removesuffix("s")
    stem = {"char": "character"}.get(stem, stem)
    others = (_MEANT.get(name.lower(), ""), f"{stem}_count", f"num_{stem}s", _PART.sub("share", name.lower()))
    meant = next((other for other in others if other in known), None)
    return f"; did you mean {meant}?" if meant else near or "; docs/signals.md lists them all"


def rule_problems(recipe: Recipe) -> list[Located]:
    """What is wrong with the conditions and signal names of a recipe's steps, each with its place."""
    known = {*signal_list(), *_ROW_COLUMNS}
    problems: list[Problem] = []
    for place, step in enumerate(recipe.steps):
        path = ("steps", place, step.kind)
        if step.kind == "rules":
            problems += _of_rules(recipe, step, path, known | _brought(recipe))
        elif step.kind == "lines":
            problems += _of_lines(step, path)
        elif step.kind == "measure":
            wrong = [name for name in getattr(step, "signals", ()) if name not in known]
            problems += [((*path, "signals"), name, f"no such signal{signal_hint(name, known)}") for name in wrong]
        elif step.kind == "perplexity":
            problems += _of_language_model(recipe, step, path)
        if step.kind in ("rules", "lines"):
            problems += _of_labels(step, path, strict=not _own_language_model(recipe))
        known |= set(_ROW_COLUMNS_OF_A_STEP.get(step.kind, ())) | _made(step)
    return located_problems(recipe, problems + _of_orders(recipe, known))


def _of_conditions(step: Any, path: tuple[str | int, ...], known: set[str], types: Types, what: str) -> list[Problem]:
    """Conditions that do not parse, that name what is not known, or whose types make no truth value."""
    problems: list[Problem] = []
    for reason, sql in step.drop.items():
        try:
            wanted = signal_names([Rule(reason, sql)])
        except RuleError as error:
            problems.append(((*path, "drop", reason), sql, str(error).rpartition("`: ")[2] or str(error)))
            continue
        unknown = [name for name in wanted if name not in known]
        problems += [((*path, "drop", reason), n, f"no such {what}{signal_hint(n, known)}") for n in unknown]
        if not unknown and (wrong := condition_problem(sql, types)):
            problems.append(((*path, "drop", reason), sql, wrong))
    return problems


def _of_lines(step: Any, path: tuple[str | int, ...]) -> list[Problem]:
    """Mistakes in the conditions on lines."""
    if not step.drop:
        return []
    from curation.lines import LINE_SIGNALS  # brings kernels: half a second

    return _of_conditions(step, path, set(LINE_SIGNALS), types_of_lines(list(LINE_SIGNALS)), "signal of lines")


def _of_rules(recipe: Recipe, step: Any, path: tuple[str | int, ...], known: set[str]) -> list[Problem]:
    signals = signal_list()
    brought = _brought(recipe).difference(signals, COUNTED)  # these are measured, whatever a source calls so
    types = {name: kind for name, kind in types_of_signals(signals).items() if name not in brought}
    problems = _of_conditions(step, path, known, types, "signal or column")
    for name in recipe.sources if step.preset is not None else ():
        mine = step_for(step, name, recipe)
        try:
            preset_rules(str(mine.preset), recipe.sources[name].language[0], mine.thresholds())
        except (KeyError, ValueError) as error:
            return [*problems, (path, step.preset, str(error.args[0]))]
    return problems


def _own_language_model(recipe: Recipe) -> bool:
    """Whether a step identifies languages by a model that may have labels which no table knows."""
    return any(step.kind in ("language", "lines") and str(step.model) != "lid176" for step in recipe.steps)


def _of_labels(step: Any, path: tuple[str | int, ...], *, strict: bool) -> Iterator[Problem]:
    """Languages in conditions that are not spelt as the signal spells them: they would match nothing, silently."""
    for reason, sql in step.drop.items():
        for compared in _COMPARED_LANGUAGE.finditer(sql):
            for label in _QUOTED.findall(compared[0]):
                try:
                    code = language_code(label)
                except ValueError as error:
                    if strict:
                        yield (*path, "drop", reason), label, str(error)
                    continue
                if code != label:
                    yield (*path, "drop", reason), label, f"this language is '{code}' here; write language = '{code}'"


def _of_orders(recipe: Recipe, known: set[str]) -> list[Problem]:
    """Signals that phases or arms of an ablation are ordered by and that do not exist."""
    places: list[tuple[tuple[str | int, ...], Any]] = [
        (("schedule", place, "order", "by"), phase.order) for place, phase in enumerate(recipe.schedule)
    ]
    if recipe.ablation is not None:
        places += [(("ablation", "orders", place, "by"), order) for place, order in enumerate(recipe.ablation.orders)]
    ordered = [(path, order.signal) for path, order in places if order.kind == "by"]
    if any(source.format in COLUMN_FORMATS for source in recipe.token_sources().values()):
        return []  # their columns are known when they are opened, before anything runs
    if not recipe.text_sources():
        reason = "these ready tokens have no signals: sort by num_characters or size_bytes, or leave them shuffled"
        return [(path, signal, reason) for path, signal in ordered if signal not in ("num_characters", "size_bytes")]
    return [(path, name, f"no such signal{signal_hint(name, known)}") for path, name in ordered if name not in known]


def _of_language_model(recipe: Recipe, step: Any, path: tuple[str | int, ...]) -> list[Problem]:
    """Languages that a step scores and that none of the sources it trains on is in."""
    train_on = getattr(step.model, "train_on", None)
    if train_on is None:
        return []
    languages = {name: recipe.sources[name].language[0] for name in recipe.trained_sources()}
    scored = {code for name, code in languages.items() if matches(step.sources, name) and code != "code"}
    trained = {code for name, code in languages.items() if matches(train_on, name)}
    return [((*path, "model", "train_on"), list(train_on), UNTRAINED.format(code)) for code in sorted(scored - trained)]


def _brought(recipe: Recipe) -> set[str]:
    """Columns that sources' own conditions name."""
    conditions = [source.where for source in recipe.sources.values() if source.where]
    return {name for sql in conditions for name in signal_names([Rule("where", sql)])}


def _made(step: Any) -> set[str]:
    """Columns that a step gives the steps after it."""
    if step.kind == "perplexity":
        of_lines = {"line_perplexity": step.per_line, "share_above": step.line_cutoff is not None}
        return {f"{step.prefix}{n}" for n in ("perplexity", "bucket", *(n for n, made in of_lines.items() if made))}
    if step.kind == "measure":
        return set(step.files)  # a file for a signal that takes none is answered when the steps are compiled
    return {"similarity", "cluster_size", "duplicate_source"} if step.kind == "dedup" else set()
