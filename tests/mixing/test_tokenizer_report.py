from __future__ import annotations

import pyarrow as pa
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_report import report_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer


def text_of(*documents) -> pa.Array:
    return pa.array(documents, pa.large_string())


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    folder = tmp_path_factory.mktemp("german")
    train_tokenizer([text_of("das Haus und der Garten " * 40)], TokenizerOptions("bpe", 300), folder)
    return load_tokenizer(folder)


def test_report_counts_are_those_of_the_text(german):
    report = report_tokenizer(
        german, [("web", "de", text_of("das Haus", None)), ("web", "de", text_of("der Garten und"))]
    )
    (source,) = report["sources"]
    assert (source["num_documents"], source["num_words"], source["num_characters"]) == (2, 5, 22)
    assert source["num_tokens"] == 7  # five words; das and der without a space before them take two each
    assert source["tokens_per_word"] == 7 / 5
    assert source["bytes_per_token"] == 22 / 7
    assert source["num_not_restored"] == source["num_missing_symbols"] == 0
    assert report["used_tokens"] == source["used_tokens"]
    assert report["used_share"] == report["used_tokens"] / german.vocabulary


def test_report_missing_symbols_are_ranked_by_count(german):
    report = report_tokenizer(german, [("web", "de", text_of("Straße Öl Öl Ö das"))])
    assert report["sources"][0]["missing_symbols"] == [["Ö", 3], ["ß", 1]]  # l and S are one byte, which has a token


def test_report_worst_split_words_come_first(german):
    text = text_of("Gartenzaun Gartenzaun Garten Garten einmal")
    words = report_tokenizer(german, [("web", "de", text)])["sources"][0]["worst_split_words"]
    assert [word for word, _, _ in words] == ["Gartenzaun", "Garten"]
    assert words[1] == ["Garten", 1, 2]


def test_report_worst_split_words_are_words(german):
    text = text_of('(Haus-Garten), $\\frac{ab}$ 家庭的最低 x1y "Haus-Garten" $\\frac{ab}$ 家庭的最低 x1y')
    words = report_tokenizer(german, [("web", "de", text)])["sources"][0]["worst_split_words"]
    assert [(word, count) for word, _, count in words] == [("Haus-Garten", 2)]


def test_report_languages_add_up_their_sources_and_pieces_of_characters_are_counted(german):
    report = report_tokenizer(
        german, [("web", "de", text_of("das Ö")), ("law", "de", text_of("das")), ("x", "en", text_of("und"))]
    )
    german_text, english = report["languages"]
    assert (german_text["language"], german_text["num_tokens"]) == (
        "de",
        sum(s["num_tokens"] for s in report["sources"][:2]),
    )
    assert german_text["tokens_per_word"] == german_text["num_tokens"] / 3
    assert german_text["partial_share"] == 2 / german_text["num_tokens"]  # the two bytes of an umlaut without a token
    assert english["partial_share"] == english["num_unknown"] == 0


def test_report_finds_a_tokenizer_that_loses_text(tmp_path):
    """Metaspace without its decoder, and no token for an umlaut: the published kind of accident."""
    vocabulary = {"<unk>": 0, "▁": 1, "a": 2, "b": 3}
    encoder = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    encoder.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder.decoder = decoders.Fuse()
    encoder.save(str(tmp_path / "tokenizer.json"))
    report = report_tokenizer(load_tokenizer(tmp_path), [("web", "de", text_of("a", "aä", "b"))])
    source = report["sources"][0]
    assert source["num_not_restored"] == 3
    assert source["first_not_restored"] == "'a' came back as '▁a'"
    assert source["missing_symbols"] == [["ä", 1]]


def test_report_of_nothing_has_no_quotients(german):
    report = report_tokenizer(german, [("web", "de", text_of(None))])
    assert report["sources"][0]["tokens_per_word"] is None
    assert report["used_share"] == 0
    assert report_tokenizer(german, [])["sources"] == []


def test_report_sources_are_in_order_whatever_the_order_of_text(german):
    texts = [("web", "de", text_of("das")), ("law", "de", text_of("Haus")), ("web", "en", text_of("und"))]
    assert report_tokenizer(german, texts) == report_tokenizer(german, texts[::-1])
    names = [(source["source"], source["language"]) for source in report_tokenizer(german, texts)["sources"]]
    assert names == [("law", "de"), ("web", "de"), ("web", "en")]
