import re
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.perplexity.normalize import PUNCTUATION, TABLES, ccnet, ccnet_plain, document_lines, lines_plain

SAME_UNICODE = unicodedata.unidata_version == str(np.load(TABLES)["unicode"])
needs_same_unicode = pytest.mark.skipif(not SAME_UNICODE, reason="the tables were made for another Unicode version")


def texts(*values):
    return pa.array(values, pa.large_string())


def twin(text: str) -> str:
    """CCNet's order of work, written from its description."""
    text = text.strip().lower()
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = re.sub(r"\d", "0", text)
    text = "".join(PUNCTUATION.get(c, c) for c in text)
    return re.sub("[\x00-\x1f\x7f-\x9f]", "", text)


def test_ccnet_published_examples_are_reproduced():
    weird = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％"
    mapped = ',.,""""""""""\'::?!();- - . ~\'...-<>[]%'
    assert "".join(PUNCTUATION.get(c, c) for c in weird) == mapped
    given = texts(
        "Größe: 12 € „Haus“\nZweite Zeile – Ende",
        "０２３４５６７８９ | 0123456789",
        "Hello World\nIt cost 1,234.56 hèllo",
    )
    assert ccnet(given).to_pylist() == [
        'große: 00 € "haus"zweite zeile - ende',
        "000000000 | 0000000000",
        "hello worldit cost 0,000.00 hello",
    ]


def test_ccnet_nulls_and_blank_texts_keep_their_rows():
    assert ccnet(texts(None, "", " \n\t ", "A", None)).to_pylist() == [None, "", "", "a", None]
    assert ccnet(texts("x", None, " É")[1:]).to_pylist() == [None, "e"]
    assert len(ccnet(texts())) == 0


@needs_same_unicode
def test_ccnet_every_character_equals_the_twin():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    made = ccnet(pa.array([f"x{c}y" for c in characters], pa.large_string())).to_pylist()
    wrong = [(c, got) for c, got in zip(characters, made) if got != twin(f"x{c}y")]
    assert wrong == []


@needs_same_unicode
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_ccnet_any_text_equals_the_twin(values):
    assert ccnet(texts(*values)).to_pylist() == [twin(v) for v in values] == [ccnet_plain(v) for v in values]


@pytest.mark.parametrize("text", ["ΟΔΥΣΣΕΥΣ ΣΑΣ", "a\u302e\u0315b ", "한국어 각", "İI\u0307 ẞß", "\u1b44\u0344x\u1b44"])
def test_ccnet_characters_that_depend_on_neighbours_equal_the_twin(text):
    assert ccnet(texts("a", text, "b")).to_pylist() == ["a", twin(text), "b"]


def test_lines_keep_accents_and_newlines_and_leave_blank_lines_out():
    made = document_lines(texts("Zwölf „Bücher“ 1a\n \n\u0007\n Ende… \r\n", None, "ΣΑΣ\nx"), "lines")
    assert made.lines.to_pylist() == ['zwölf "bücher" 0a', "ende...", "σας", "x"]
    assert made.offsets.tolist() == [0, 2, 2, 4]


@needs_same_unicode
@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_lines_any_text_equals_the_twin(values):
    made = document_lines(texts(*values), "lines")
    expected = [lines_plain(value) for value in values]
    assert made.lines.to_pylist() == [line for lines in expected for line in lines]
    assert np.diff(made.offsets).tolist() == [len(lines) for lines in expected]


def test_document_lines_unknown_scoring_is_named():
    with pytest.raises(ValueError, match="scoring 'line'"):
        document_lines(texts("x"), "line")


def test_normalizers_take_strings_with_short_offsets():
    short = pa.array(["Größe: 12\nZweite", None, "x"], pa.string())
    assert ccnet(short).to_pylist() == ccnet(short.cast(pa.large_string())).to_pylist()
    assert document_lines(short, "lines").lines.to_pylist() == ["größe: 00", "zweite", "x"]
