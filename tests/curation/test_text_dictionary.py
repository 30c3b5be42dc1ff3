"""Words of Han text by a dictionary: against jieba, a twin in plain Python, and in the signals that count words."""

from __future__ import annotations

import logging
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_top_duplicate, get_n_grams
from hypothesis import example, given
from hypothesis import strategies as st

import curation.text.dictionary as module
from benchmarks.redpajama_twin import twin
from benchmarks.signals_stage import Files
from curation import config
from curation.decisions import make_decisions
from curation.documents import RulesStep
from curation.layers import drop_reasons
from curation.passes import ShardInputs, make_rows, make_signals
from curation.program import compile_program
from curation.rules import preset_rules
from curation.signals import SIGNALS, measure
from curation.signals.per_line import line_values
from curation.source import Reader
from curation.text.dictionary import DictionaryError, cut, load_dictionary
from curation.text.scan import segments_of

HAN = re.compile("[\u4e00-\u9fd5]+")
# Our own: study, graduate student, life, fate, origin, of, Nanjing, city of Nanjing, mayor, Yangtze, big bridge.
LINES = "研究 30 v\n研究生 20\n生命 25\n命 3\n起源 9\n的 400 u\n南京 8\n南京市 6\n市长 7\n长江 9\n大桥 5\n"


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made(tmp_path, LINES)


def made(folder, lines):
    path = folder / "words.txt"
    path.write_text(lines, encoding="utf-8")
    load_dictionary.cache_clear()
    return load_dictionary(path)


def best_path(text: str, words: dict[str, int], total: int) -> list[str]:
    """The most probable path by definition, from the end; of equal ones the longer first word."""
    best: list[tuple[float, int]] = [(0.0, 0)] * (len(text) + 1)
    for k in range(len(text) - 1, -1, -1):
        ends = [e for e in range(k + 1, len(text) + 1) if words.get(text[k:e])] or [k + 1]
        best[k] = max((math.log(words.get(text[k:e]) or 1) - math.log(total) + best[e][0], e) for e in ends)
    found, k = [], 0
    while k < len(text):
        found.append(text[k : best[k][1]])
        k = best[k][1]
    return found


def test_the_most_probable_words_are_cut(small):
    assert cut("研究生命的起源", small) == ["研究", "生命", "的", "起源"]
    assert cut("南京市长江大桥", small) == ["南京市", "长江", "大桥"]
    assert cut("他研究Linux的生命，好", small) == ["他", "研究", "Linux", "的", "生命", "，", "好"]
    assert cut("", small) == []


LETTERS = "甲乙丙丁"


@given(
    st.dictionaries(st.text(LETTERS, min_size=1, max_size=5), st.integers(0, 6), min_size=1, max_size=12),
    st.text(LETTERS + "a，\U00020000\u0301 ", max_size=40),
)
@example({"甲": 1, "乙甲": 1, "甲乙": 1}, "甲乙甲乙甲")  # equal paths
@example({"甲乙丙丁": 0, "甲乙": 0, "乙": 2}, "甲乙丙丁甲")  # beginnings that are no words
def test_any_dictionary_cuts_as_the_twin(words, text):
    total = sum(words.values())
    if not total:
        words, total = {**words, "甲": 1}, 1
    built = module._build(words, total)
    expected = [word for run in HAN.findall(text) for word in best_path(run, words, total)]
    assert [word for word in cut(text, built) if HAN.fullmatch(word)] == expected
    assert "".join(cut(text, built)) == text


def test_a_word_that_stands_twice_has_its_last_frequency_and_both_in_the_sum(small, tmp_path):
    found = made(tmp_path, "甲乙 5\n甲 1\n乙 1\nabc 90\n甲乙 0\n\n")
    assert cut("甲乙", found) == ["甲", "乙"]
    assert found.unknown[0] == -math.log(97)


def test_a_run_of_any_length_takes_linear_time(small):
    text = "研究生命" * 50_000  # 600 kB without a break
    assert cut(text, small)[-2:] == ["研究", "生命"]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("甲乙 5\n丙\n", r"words\.txt:2: '丙' is not `word frequency \[tag\]`"),
        ("甲乙 viel\n", r"words\.txt:1"),
        ("甲乙 -3\n", r"words\.txt:1"),
        ("abc 5\n", "no words of Han letters"),
        ("甲 0\n", "no words of Han letters"),
        ("", "no words of Han letters"),
    ],
)
def test_a_file_that_is_no_dictionary_is_an_error_with_its_line(small, tmp_path, lines, error):
    with pytest.raises(DictionaryError, match=error):
        made(tmp_path, lines)


def test_a_dictionary_is_built_once_and_mapped(small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_build", None)  # the cache has it
    again = made(tmp_path, LINES)
    assert cut("研究生命的起源", again) == ["研究", "生命", "的", "起源"]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for file in tmp_path.glob("cache/gristmill/dictionary-*/nodes.npy"):
        file.write_bytes(b"broken")
    assert cut("研究生命的起源", made(tmp_path, LINES)) == ["研究", "生命", "的", "起源"]


def real_texts():
    path = Path(os.environ.get("GRISTMILL_TEST_DATA", "")) / "text" / "zh_wiki.parquet"
    if not path.is_file():
        return ["研究生命的起源，南京市长江大桥。" * 3]
    return pq.read_table(path, columns=["text"]).column("text").to_pylist()[::20]


def test_words_equal_jiebas_on_real_text():
    jieba = pytest.importorskip("jieba", reason="jieba is not installed: its dictionary is the oracle of this test")
    jieba.setLogLevel(logging.ERROR)
    words = load_dictionary(module.installed_dictionary())
    for text in real_texts():
        expected = [word for run in HAN.findall(text) for word in jieba.cut(run, HMM=False)]
        assert [word for word in cut(text, words) if HAN.fullmatch(word)] == expected


# ---------------------------------------------------------------- signals

TEXTS = [
    "研究生命的起源。研究生命的起源！\n研究生\n\n南京市长江大桥",
    "他研究Linux的生命，研究生研究3种起源 生命的起源",
    "",
    "南京 市长 长江大桥 南京市长江大桥南京市长江大桥",
]


def test_gopher_signals_are_those_of_the_dictionarys_words(small):
    names = ["word_count", "segment_count", "mean_word_length", "stop_word_count"]
    grams = [f"top_{n}gram_char_share" for n in (2, 3, 4)] + [f"duplicate_{n}gram_char_share" for n in range(5, 11)]
    found = {k: v.to_pylist() for k, v in measure(pa.array(TEXTS), [*names, *grams], "zh", small).items()}
    for row, text in enumerate(TEXTS):
        segments = [segment for segment, _ in segments_of(text, small)]
        words = [segment for segment, is_word in segments_of(text, small) if is_word]
        assert (found["word_count"][row], found["segment_count"][row]) == (len(words), len(segments))
        if not text:
            continue
        assert found["mean_word_length"][row] == pytest.approx(sum(map(len, words)) / len(words))
        for n in (2, 3, 4):
            assert found[f"top_{n}gram_char_share"][row] == find_top_duplicate(get_n_grams(segments, n)) / len(text)
        for n in range(5, 11):
            assert found[f"duplicate_{n}gram_char_share"][row] == find_all_duplicate(segments, n) / len(text)
    assert [s for s, _ in segments_of(TEXTS[0], small)][:4] == ["研究", "生命", "的", "起源"]


def test_redpajama_signals_are_those_of_the_dictionarys_words(small):
    names = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]
    found = {k: v.to_pylist() for k, v in measure(pa.array(TEXTS), names, "zh", small).items()}

    def spaced(text):
        return HAN.sub(lambda run: f" {' '.join(cut(run[0], small))} ", text)

    for row, text in enumerate(TEXTS):
        for name, value in twin(text, "zh", spaced).items():
            assert found[name][row] == (None if value is None else pytest.approx(value, abs=1.01e-8)), (name, text)
    lines = line_values(pa.array(TEXTS), ["rps_lines_num_words_mean"], "zh", small)["rps_lines_num_words"]
    assert lines.to_pylist()[0] == [10, 1, 0, 3]  # a full stop of Chinese is none of ASCII


def compiled(han, steps):
    recipe = config.Source.model_validate({"path": "a.parquet", "language": "zh"})
    parsed = [config.Rules.model_validate(step) for step in steps]
    return compile_program({"zh": recipe}, parsed, lambda step, source: step, (), None, han).stages


def test_only_signals_of_words_depend_on_the_dictionary(small, tmp_path):
    path = str(tmp_path / "words.txt")
    of_words, of_lines = {"drop": {"few": "word_count < 5"}}, {"drop": {"few": "line_count < 5"}}
    assert compiled(path, [of_words])[0].options.dictionary == path
    assert compiled(path, [of_words])[0].options.words
    assert compiled(path, [of_lines])[0].options == compiled("characters", [of_lines])[0].options
    assert compiled("characters", [of_words])[0].options.dictionary is None


@pytest.mark.parametrize("han", ["characters", "words.txt"])
def test_rules_block_equals_the_columnar_stages(small, tmp_path, monkeypatch, han):
    monkeypatch.chdir(tmp_path)
    texts = [*TEXTS, *(TEXTS[1] * n for n in (2, 9, 60)), "研究生命的起源" * 40]
    pq.write_table(pa.table({"text": texts}), "a.parquet")
    shard = ShardInputs("zh", "a.parquet", "a.parquet", "zh", Reader("parquet"))
    few, off = {"few": "word_count < 3"}, dict.fromkeys(f"max_top_{n}gram" for n in (2, 3, 4))
    signals, decisions = compiled(han, [{"preset": "gopher_repetition", "drop": few, **off}])
    make_rows(shard, None, Files(str(tmp_path), "rows"))
    make_signals(shard, signals.options, Files(str(tmp_path), "signals"))
    layers = ("rows.parquet", "signals.parquet")
    make_decisions(replace(shard, layers=layers), decisions.options, Files(str(tmp_path), "decisions"))
    measured = pq.read_table("signals.parquet").drop_columns(["row"])
    [bits] = [name for name in pq.read_schema("decisions.parquet").names if name.startswith("drop@")]
    [names] = drop_reasons("decisions.parquet").values()
    drop = pq.read_table("decisions.parquet")[bits].to_pylist()

    excluded = Kept()
    step = RulesStep(few, "zh", "gopher_repetition", off, han=han, exclusion_writer=excluded)
    kept = list(step.run(Document(text, str(row)) for row, text in enumerate(texts)))
    found = {int(document.id): document.metadata for document in [*kept, *excluded.documents]}
    for row, values in enumerate(measured.to_pylist()):
        reason = names[(drop[row] & -drop[row]).bit_length() - 1] if drop[row] else None
        assert found[row] == values | ({"filter_reason": reason} if reason else {})
    assert 0 < len(kept) < len(texts)


class Kept:
    """An exclusion writer that keeps what it gets."""

    def __init__(self):
        self.documents = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def write(self, document, rank):
        self.documents.append(document)


def test_presets_have_values_for_a_dictionarys_words():
    with_words = {rule.reason: rule.sql for rule in preset_rules("fineweb2", "zh", {}, True)[0]}
    without = {rule.reason: rule.sql for rule in preset_rules("fineweb2", "zh", {})[0]}
    assert with_words["duplicate_5gram"].endswith("> 0.198")  # as published, for jieba's words
    assert "duplicate_5gram" not in without
    assert preset_rules("fineweb2", "de", {}, True) == preset_rules("fineweb2", "de", {})
