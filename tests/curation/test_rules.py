"""Rules: what SQL is accepted, what it decides, and that presets are sound."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.rule_presets import load_preset, preset_names
from curation.rules import Rule, RuleError, decide, parse, preset_options, preset_rules, reasons, signal_names
from curation.signals import SIGNALS, measure

FRAME = pl.DataFrame({"words": [10, 60, None], "share": [0.5, math.nan, 0.1], "bucket": ["head", "tail", None]})


def test_decide_sets_the_bit_of_each_reason_by_name() -> None:
    rules = [Rule("z_short", "words < 50"), Rule("a_tail", "bucket = 'tail'")]
    drop, undecided = decide(FRAME, rules)
    assert reasons(rules) == ["a_tail", "z_short"]
    assert drop.tolist() == [0b10, 0b01, 0]
    assert undecided.tolist() == [0, 0, 0b11]
    assert drop.dtype == undecided.dtype == np.uint64


def test_decide_nan_counts_as_unknown_not_as_large() -> None:
    drop, undecided = decide(FRAME, [Rule("r", "share > 0.4")])
    assert (drop.tolist(), undecided.tolist()) == ([1, 0, 0], [0, 1, 0])


def test_decide_does_not_depend_on_the_order_of_rules() -> None:
    rules = [Rule("a", "words < 50"), Rule("b", "share > 0.4"), Rule("c", "bucket = 'tail'")]
    assert all(np.array_equal(x, y) for x, y in zip(decide(FRAME, rules), decide(FRAME, rules[::-1])))


def test_decide_constant_condition_holds_for_every_row() -> None:
    assert decide(FRAME, [Rule("all", "1 = 1")])[0].tolist() == [1, 1, 1]
    assert decide(FRAME.clear(), [Rule("all", "1 = 1")])[0].tolist() == []
    assert decide(FRAME, [Rule("none", "NULL")])[1].tolist() == [1, 1, 1]


def test_decide_without_rules_keeps_all() -> None:
    assert [x.tolist() for x in decide(FRAME, [])] == [[0, 0, 0], [0, 0, 0]]


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=20), st.integers(-5, 5))
@settings(max_examples=50, deadline=None)
def test_decide_any_column_equals_plain_python(values: list[int | None], limit: int) -> None:
    drop, undecided = decide(
        pl.DataFrame({"x": pl.Series(values, dtype=pl.Int64)}), [Rule("r", f"x < {limit} OR x = 5")]
    )
    assert drop.tolist() == [int(x is not None and (x < limit or x == 5)) for x in values]
    assert undecided.tolist() == [int(x is None) for x in values]


@pytest.mark.parametrize(
    ("sql", "answers"),
    [
        ("words > 1 AND NOT share < .5", [True, None, False]),
        ("words BETWEEN 1 AND 5", [False, False, None]),
        ("bucket IN ('head', 'tail') AND bucket IS NOT NULL", [True, True, False]),
        ("bucket LIKE 'h%'", [True, False, None]),
        ("COALESCE(words, 0) + ABS(share) > 2", [True, None, False]),
        ("CASE WHEN words > 5 THEN share > .1 ELSE FALSE END", [True, None, False]),
        ("CAST(words AS DOUBLE) / 3 > share", [True, None, None]),
        ("LENGTH(bucket) > 3", [True, True, None]),
        ("bucket = 'select'", [False, False, None]),
    ],
)
def test_decide_conditions_on_one_row_have_the_answers_of_sql(sql: str, answers: list[bool | None]) -> None:
    drop, undecided = decide(FRAME, [Rule("r", sql)])
    assert drop.tolist() == [answer is True for answer in answers]
    assert undecided.tolist() == [answer is None for answer in answers]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("words IN (SELECT words FROM t)", "subqueries are refused"),
        ("EXISTS (select 1)", "subqueries are refused"),
        ("(sElEcT 1) > 0", "subqueries are refused"),
        ("read_csv('/etc/passwd') > 1", "read_csv"),
        ("SUM(words) > 3", "beyond one row"),
        ("COUNT(*) > 3", "beyond one row"),
        ("words > MAX(share)", "beyond one row"),
        ("CORR(words, share) > 0", "beyond one row"),
        ("COVAR_SAMP(words, share) > 0", "beyond one row"),
        ("words > QUANTILE_DISC(words, 0.5)", "beyond one row"),
        ("ROW_NUMBER() OVER (ORDER BY words) > 1", "beyond one row"),
        ("rps.words > 3", "underscores: 'rps_words'"),
        ("words >", "a condition compares signals"),
        ("words > 1; DROP TABLE x", "a condition compares signals"),
        ("__import__('os')", "__import__"),
        ("", "a condition compares signals"),
        ("wrods > 3", "did you mean words"),
        ("words", "not true or false"),
        ("words > 'a lot'", "drop rule 'r'"),
    ],
)
def test_decide_refuses_what_is_no_condition_on_a_row(sql: str, says: str) -> None:
    with pytest.raises(RuleError, match="(?s)" + says.replace("(", r"\(")) as refused:
        decide(FRAME, [Rule("r", sql)])
    assert "'r'" in str(refused.value)


def test_reasons_twice_or_too_many_are_refused() -> None:
    with pytest.raises(RuleError, match="'r'"):
        reasons([Rule("r", "a > 1"), Rule("r", "b > 1")])
    with pytest.raises(RuleError, match="65 rules"):
        reasons([Rule(f"r{i}", "a > 1") for i in range(65)])


def test_decide_sixty_four_rules_use_every_bit() -> None:
    rules = [Rule(f"r{i:02}", f"words < {i}") for i in range(64)]
    assert decide(FRAME.head(1), rules)[0].tolist() == [sum(1 << i for i in range(64) if i > 10)]


def test_signal_names_are_each_column_once() -> None:
    assert signal_names([Rule("a", "b > c"), Rule("d", "b > 1 OR e IS NULL")]) == ["b", "c", "e"]


def test_signal_names_quoted_source_columns_are_found() -> None:
    assert signal_names([Rule("a", '"score@source" > 1')]) == ["score@source"]


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("language", ["de", "en", "zh", "sw"])
def test_preset_rules_parse_and_use_known_signals(preset: str, language: str) -> None:
    rules, options = preset_rules(preset, language, {})
    brought = {"bucket"}  # of the perplexity step
    assert set(signal_names(rules)) <= set(SIGNALS) | brought
    assert {name: option.value for name, option in options.items()} == preset_options(preset, language)
    assert all(parse(rule) is not None for rule in rules)
    assert load_preset(preset).source


@pytest.mark.parametrize("preset", [*preset_names(), *preset_names(lines=True)])
def test_preset_languages_change_only_options_that_exist(preset: str) -> None:
    loaded = load_preset(preset)
    assert all(set(options) <= set(loaded.options) for options in loaded.languages.values())


def test_preset_rules_values_come_from_recipe_then_language_then_preset() -> None:
    rules, options = preset_rules("fineweb2", "de", {"min_words": 30})
    assert (options["min_words"].value, options["min_words"].origin) == (30, "recipe")
    assert (options["min_alpha_words"].value, options["min_alpha_words"].origin) == (0.774, "preset, language de")
    assert options["max_words"].origin == "preset"
    assert Rule("too_few_words", "word_count < 30") in rules


def test_preset_rules_null_option_switches_its_rules_off() -> None:
    named = [rule.reason for rule in preset_rules("gopher", "en", {"max_symbol_word_ratio": None})[0]]
    assert not {"hashes", "ellipses"} & set(named)
    assert "too_few_words" in named


@pytest.mark.parametrize(
    ("preset", "options", "says"),
    [
        ("gofer", {}, "did you mean 'gopher'"),
        ("gopher", {"min_word": 3}, "did you mean 'min_words'"),
        ("gopher", {"min_words": "3); DROP"}, "not a number"),
    ],
)
def test_preset_rules_mistakes_are_explained(preset: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        preset_rules(preset, "de", options)


def test_preset_gopher_drops_what_gopher_drops() -> None:
    prose = "Der Müller geht mit dem Esel in das Dorf und holt das Korn, das er in der Mühle mahlt. "
    sound = " ".join(prose.replace("Esel", animal) for animal in ("Pferd", "Ochsen", "Hund"))
    texts = [sound + " Die Frau des Müllers backt davon Brot.", "Zu kurz.", "# " * 40 + "der die und " * 20]
    rules, _ = preset_rules(
        "gopher", "de", {"max_duplicate_5gram": 0.9} | {f"max_duplicate_{n}gram": 0.9 for n in range(5, 11)}
    )
    drop, _ = decide(pl.DataFrame(measure(pa.array(texts), signal_names(rules), "de")), rules)
    names = reasons(rules)
    why = [{name for bit, name in enumerate(names) if int(value) >> bit & 1} for value in drop]
    assert "too_few_words" in why[1]
    assert {"hashes", "top_3gram"} <= why[2]
    assert not why[0] & {"few_stop_words", "short_words", "few_alpha_words", "hashes"}
