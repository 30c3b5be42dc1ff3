"""RedPajama-V2 signals against a twin in plain Python, written from their definitions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.redpajama_twin import HAN, twin
from curation.signals import SIGNALS, measure

NAMES = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]


LORE = ["lorem", "Lo-rem", "LOREM", "ipsum", "ips,um", "IPSUM\u0301", "ipsu\u1e3f", "lor\u00e9m", "\u0130psum", "m"]
KANA = "[\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff]"


def check(texts: list[str], language: str, letter: str = HAN) -> None:
    measured = {name: column.to_pylist() for name, column in measure(pa.array(texts), NAMES, language).items()}
    for row, text in enumerate(texts):
        expected = twin(text, language, letter)
        assert set(expected) == set(NAMES)
        for name, value in expected.items():
            found = measured[name][row]
            assert (found is None) == (value is None), (name, text)
            assert value is None or abs(found - value) <= 1.01e-8, (name, text)  # values are rounded to 8 digits


@given(st.text(st.sampled_from("aAbB zZäÜß.!?…\"'“”-–•#{}  \n\t\r\u2028é\u0301İ12½中三\x00\x1c한я"), max_size=60))
@settings(max_examples=250, deadline=None)
def test_redpajama_any_text_equals_the_twin(text: str) -> None:
    check([text], "en")


@given(
    st.lists(
        st.sampled_from(["lorem", "ip-sum", "ipsum", "The", "the", "a", "b.", "…", "über", "\n", "javascript", "中"]),
        max_size=90,
    )
)
@settings(max_examples=150, deadline=None)
def test_redpajama_repetitive_text_equals_the_twin(words: list[str]) -> None:
    check([" ".join(words)], "de")


@given(st.lists(st.sampled_from([*LORE, " ", " ", "\n", ". - ", "\u3000", "x", "中"]), max_size=40))
@settings(max_examples=250, deadline=None)
def test_redpajama_lorem_ipsum_in_any_disguise_equals_the_twin(parts: list[str]) -> None:
    check(["".join(parts)], "de")


@pytest.mark.parametrize("text", ["オリンピック，中、が", "的JavaScript代码。javascript 中javascript\n"])
def test_redpajama_lone_letters_keep_their_marks_and_part_words_as_in_the_twin(text: str) -> None:
    check([text], "zh", KANA)


@pytest.mark.parametrize(
    "text", ["", "\n", " . ", "Ein Wort", "ＦＵＬＬ Ｗｉｄｔｈ ２", "of the and", "• eins\n• zwei…\n"]
)
def test_redpajama_edge_texts_equal_the_twin(text: str) -> None:
    check([text], "en")


def test_redpajama_stop_words_without_a_list_are_null() -> None:
    column = measure(pa.array(["wat no list has"]), ["rps_doc_stop_word_fraction"], "nds")["rps_doc_stop_word_fraction"]
    assert column.to_pylist() == [None]


def test_redpajama_values_have_eight_digits() -> None:
    value = measure(pa.array(["one two two"]), ["rps_doc_frac_unique_words"], "en")["rps_doc_frac_unique_words"][
        0
    ].as_py()
    assert value == np.round(2 / 3, 8)
