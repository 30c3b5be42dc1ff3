"""Dropping lines: signals of lines against plain Python, and texts before and after."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import config
from curation.language import LanguageModel, resolve_model
from curation.lines import LINE_SIGNALS, Rule, edit_lines, measure_lines, preset_rules
from curation.program import compile_program
from curation.rule_presets import preset_names
from curation.rules import RuleError, signal_names


def _edit(texts: list[str | None], rules: list[Rule], **options: object):
    return edit_lines(pa.array(texts, pa.large_string()), rules, **options)


def test_edit_drops_a_line_with_its_break() -> None:
    edit = _edit(["keep\nX\nkeep\r\n", "X\nkeep", "keep\nX", "X", "", None], [Rule("shout", "uppercase_share = 1")])
    assert edit.text.to_pylist() == ["keep\nkeep\r\n", "keep", "keep", "", "", None]
    assert edit.num_lines.tolist() == [3, 2, 2, 1, 0, 0]
    assert edit.num_dropped.tolist() == [1, 1, 1, 1, 0, 0]
    assert edit.by_reason == {"shout": 4}
    assert edit.bytes_by_reason == {"shout": 4}


def test_edit_counts_a_line_under_its_first_reason_by_name() -> None:
    edit = _edit(["X 1"], [Rule("b", "words > 0"), Rule("a", "words > 1")])
    assert edit.by_reason == {"a": 1, "b": 0}


def test_edit_undecided_line_is_kept_and_counted() -> None:
    edit = _edit(["a\n\nb"], [Rule("digits", "digit_share > 0.5")])
    assert edit.text.to_pylist() == ["a\n\nb"]
    assert edit.num_undecided.tolist() == [1]  # the empty line has no share


def test_edit_paragraphs_are_parted_by_blank_lines() -> None:
    text = "one\ntwo\n\nDROP\n \t\nthree\n"
    frame = measure_lines(pa.array([text]), "paragraph")
    assert frame["characters"].to_list() == [7, 4, 6]
    assert _edit([text], [Rule("d", "uppercase_share = 1")], unit="paragraph").text.to_pylist() == [
        "one\ntwo\n\nthree\n"
    ]


def test_edit_repeated_lines_keep_the_first() -> None:
    edit = _edit(["Menu\nA text.\nMenu\n\n\nMenu", "Menu"], [Rule("repeated", "words > 0 AND repeats > 0")])
    assert edit.text.to_pylist() == ["Menu\nA text.\n\n", "Menu"]


@given(st.lists(st.text("ab \n\r\u2028X.é中", max_size=30), max_size=4))
@settings(max_examples=150, deadline=None)
def test_edit_that_drops_nothing_keeps_all_bytes(texts: list[str]) -> None:
    edit = _edit(texts, [Rule("never", "characters < 0")])
    assert edit.text.to_pylist() == texts
    assert edit.num_lines.tolist() == [len(text.splitlines()) for text in texts]


@given(st.lists(st.text("ab \n\r\u2028X.é中", max_size=30), max_size=4))
@settings(max_examples=150, deadline=None)
def test_edit_twice_equals_once(texts: list[str]) -> None:
    rules = [Rule("x", "letter_share IS NULL OR uppercase_share > 0.5")]
    once = _edit(texts, rules).text
    assert edit_lines(once, rules).text.equals(once)


@given(st.lists(st.text("abÄ1 \n.…•-中🙂", max_size=30), max_size=4))
@settings(max_examples=150, deadline=None)
def test_measure_lines_equal_plain_python(texts: list[str]) -> None:
    frame = measure_lines(pa.array(texts, pa.large_string()))
    lines = [(row, place, line) for row, text in enumerate(texts) for place, line in enumerate(text.splitlines())]
    before: list[tuple[int, str]] = []
    for got, (row, place, line) in zip(frame.iter_rows(named=True), lines, strict=True):
        letters = [c for c in line if c.isalpha()]
        assert (got["row"], got["position"], got["characters"]) == (row, place, len(line))
        assert got["repeats"] == before.count((row, line))
        assert got["longest_word"] == max(map(len, line.split()), default=0)
        assert got["letter_share"] == (len(letters) / len(line) if line else None)
        assert got["uppercase_share"] == (sum(map(str.isupper, letters)) / len(letters) if letters else None)
        assert got["starts_bullet"] == line.strip().startswith(("•", "-"))
        assert got["ends_ellipsis"] == line.strip().endswith(("...", "…"))
        assert got["ends_terminal"] == line.strip().endswith(".")
        before.append((row, line))


def test_measure_lines_columns_are_the_documented_ones() -> None:
    frame = measure_lines(
        pa.array(["a b"]),
        tokens=lambda lines: [len(line) for line in lines],
        identify=lambda text: (pa.array(["de"] * len(text)), pa.array([0.5] * len(text), pa.float32())),
    )
    assert frame.columns == ["row", *LINE_SIGNALS]
    assert frame["tokens_per_word"].to_list() == [1.5]
    assert not any(frame[name].dtype == pl.Float64 and frame[name].is_nan().any() for name in frame.columns)


LINES = st.sampled_from(
    [
        "A line of text ends. So it does.",
        " no end here",
        "It uses cookies here.",
        "JavaScript is on.",
        "A mark[1].",
        "A mark [edit]",
        "Two words.",
        "",
        "Really? Yes! No... ",
        'He said "yes." ',
        "[2]",
        "word " * 3 + "x" * 1001 + ".",
    ]
)


@given(st.lists(LINES, max_size=10), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(max_examples=150, deadline=None)
def test_c4_lines_text_equals_datatroves(lines: list[str], line_break: str) -> None:
    class OneSentence:
        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    document = Document(line_break.join(lines), "0")
    filtered = C4QualityFilter(min_num_sentences=-1, language="en").filter
    edit = _edit([document.text], preset_rules("c4_lines", "en", {})[0], clean=True)
    assert filtered(document) is True
    assert edit.text.to_pylist() == [document.text]


def test_boilerplate_menus_go_and_prose_stays() -> None:
    page = (
        "HOME ABOUT US\nLogin\n2023 04 11\nThe miller grinds corn.\nPlease enable JavaScript now\nOur privacy policy\n"
    )
    edit = _edit([page], preset_rules("boilerplate", "en", {})[0])
    assert edit.text.to_pylist() == ["The miller grinds corn.\n"]


def test_token_ratio_needs_a_tokenizer_and_uses_it() -> None:
    rules, _ = preset_rules("token_ratio", "de", {})
    with pytest.raises(RuleError, match="tokenizer"):
        _edit(["a"], rules)
    edit = _edit(["/de/c/trebic-unesco\nEin Satz steht hier"], rules, tokens=lambda lines: [11 for _ in lines])
    assert edit.text.to_pylist() == ["Ein Satz steht hier"]


def test_lines_of_another_language_go() -> None:
    rules = [Rule("foreign", "language <> 'de' AND language_score > 0.8")]
    with pytest.raises(RuleError, match="model"):
        _edit(["a"], rules)
    try:
        model = LanguageModel(resolve_model("lid176"))
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    text = "Der Müller mahlt das Korn in der Mühle.\nThe miller grinds the corn in the mill.\n\n1, 2, 3\n"
    edit = _edit([text, None], rules, identify=model.identify)
    assert edit.text.to_pylist() == [text.replace("The miller grinds the corn in the mill.\n", ""), None]
    measured = measure_lines(pa.array([text], pa.large_string()), identify=model.identify)
    assert measured["language"].to_list() == ["de", "en", "und", "und"]
    assert measured["language_score"][2] == 0


def test_a_lines_step_opens_a_language_model_only_where_a_condition_asks_for_it() -> None:
    source = config.Source.model_validate({"path": "a.parquet", "language": "de"})

    def model_of(sql: str) -> str | None:
        step = config.Lines.model_validate({"drop": {"x": sql}})
        return compile_program({"de": source}, [step], lambda step, source: step).stages[0].options.language_model

    assert model_of("words < 3") is None
    try:
        resolve_model("lid176")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert Path(str(model_of("language <> 'de'"))).name == "lid.176.ftz"


@pytest.mark.parametrize("preset", preset_names(lines=True))
@pytest.mark.parametrize("language", ["de", "zh"])
def test_line_presets_use_known_line_signals(preset: str, language: str) -> None:
    assert set(signal_names(preset_rules(preset, language, {})[0])) <= set(LINE_SIGNALS)


def test_edit_unknown_unit_or_signal_is_an_error() -> None:
    with pytest.raises(ValueError, match="sentence"):
        _edit(["a"], [], unit="sentence")
    with pytest.raises(RuleError, match="did you mean words"):
        _edit(["a"], [Rule("r", "wrods > 1")])


def test_edit_shared_memory_slices_are_row_aligned(tmp_path: Path) -> None:
    texts = pa.array(["X", "keep\nX", None, "keep"], pa.large_string())[1:]
    assert edit_lines(texts, [Rule("x", "uppercase_share = 1")]).text.to_pylist() == ["keep", None, "keep"]
