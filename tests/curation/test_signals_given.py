"""Signals that need a file of the user, importance, and the values of lines, against plain Python."""

import math
import re
import tracemalloc
import unicodedata

import fasttext
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.layers import read_layer
from curation.passes import GivenSignal, ShardInputs, SignalOptions, make_rows, make_signals
from curation.signals import measure
from curation.signals.given import host_of, open_given
from curation.signals.importance import counted, read_weights, write_weights
from curation.signals.per_line import LINE_COLUMNS, line_values
from curation.signals.raw_words import raw_words
from curation.signals.signal import GivenFileError
from curation.source import Reader

TEXTS = ["Ein böses Wort, ein BÖSES wort!\nsehr schlimm", None, "", "nichts davon", "schlimm\n\nschlimm sehr schlimm."]


def texts(values=TEXTS):
    return pa.array(values, pa.large_string())


def no_urls(count=5):
    return pa.nulls(count, pa.large_string())


def plain_words(text):
    """RedPajama-V2's normalised words of spaced scripts."""
    bare = re.sub(r"[!-/:-@\[-`{-~]", "", text)
    return unicodedata.normalize("NFD", bare.lower()).split()


def test_listed_words_count_sequences_of_normalised_words(tmp_path):
    path = tmp_path / "words.txt"
    entries = unicodedata.normalize("NFD", "böses wort\nschlimm\nsehr schlimm\n\n")
    path.write_text(entries, encoding="utf-8")
    found = open_given("rps_doc_ldnoobw_words", str(path))(texts(), no_urls())
    assert found.to_pylist() == [4, None, 0, 0, 4]
    path.write_text("böses wort\nschlimm\nSehr schlimm\nsehr  schlimm\nwort!\n", encoding="utf-8")  # as written
    assert open_given("rps_doc_ldnoobw_words", str(path))(texts(), no_urls()).to_pylist() == [1, None, 0, 0, 3]


@settings(deadline=None)
@given(st.lists(st.text("ab c.\n", max_size=30), min_size=1, max_size=4))
def test_listed_words_equal_plain_python(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("list") / "words.txt"
    entries = ["a", "b a", "ab ab c"]
    path.write_text("\n".join(entries))
    expected = []
    for text in values:
        words = plain_words(text)
        grams = [" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)]
        expected.append(sum(gram in entries for gram in grams))
    found = open_given("rps_doc_ldnoobw_words", str(path))(texts(values), no_urls(len(values)))
    assert found.to_pylist() == expected


def test_a_list_without_words_is_an_error(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("...\n\n")
    with pytest.raises(GivenFileError, match="none of its 2 lines"):
        open_given("rps_doc_ldnoobw_words", str(path))


URLS = {
    "https://www.bad.example/x": "games,phishing",
    "http://user@sub.evil.org:80/": "phishing",
    "EVIL.org/path": "phishing",
    "https://notevil.org/": "",
    "": None,
    "http://[broken": None,
}


@pytest.mark.parametrize("form", ["folder", "file"])
def test_blacklist_names_the_categories_of_a_host_and_of_domains_above_it(tmp_path, form):
    listed = {"games": ["bad.example"], "phishing": ["evil.org", "Bad.example"]}
    path = tmp_path / "lists"
    if form == "folder":
        for category, domains in listed.items():
            (path / category).mkdir(parents=True)
            (path / category / "domains").write_text("\n".join(domains) + "\n")
    else:
        path.write_text("".join(f"{d} {category}\n" for category, domains in listed.items() for d in domains))
    found = open_given("rps_doc_ut1_blacklist", str(path))(texts(["x"] * len(URLS)), texts(list(URLS)))
    assert found.to_pylist() == list(URLS.values())


def test_blacklist_of_many_lines_takes_some_bytes_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{n}.example games\n" for n in range(40_000)))
    tracemalloc.start()
    measure_one = open_given("rps_doc_ut1_blacklist", str(path))
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = measure_one(texts(["", ""]), texts(["http://39999.example/", "http://40000.example/"]))
    assert found.to_pylist() == ["games", ""]
    assert most_bytes < 100 * 40_000


def test_hosts_are_bare():
    assert host_of("https://Example.ORG.:8080/a?b") == "example.org"
    assert host_of("example.org/a") == "example.org"


@pytest.mark.parametrize("web", ["cc", "rest"])
def test_classifier_score_is_the_probability_of_not_being_web(tmp_path, web):
    """RedPajama-V2: the best label's probability, or 1 less it for `__label__cc`; else the first label by name."""
    path = tmp_path / "train.txt"
    path.write_text(f"__label__book satz nummer\n__label__{web} kauf jetzt\n__label__wiki lies\n" * 50)
    model = fasttext.train_supervised(str(path), epoch=3, dim=4, thread=1, verbose=0)
    model.save_model(str(tmp_path / "model.bin"))
    values = ["satz\x0bnummer eins", "kauf\njetzt\r\nkauf ", None, "", " \n"]
    found = open_given("rps_doc_ml_wikiref_score", str(tmp_path / "model.bin"))(texts(values), no_urls()).to_pylist()
    for text, score in zip(values[:2], found):
        told = model.f.predict(" ".join(text.splitlines()).strip() + "\n", -1, 0.0, "strict")
        best, label = told[0]
        expected = {label: p for p, label in told}["__label__book"]
        if web == "cc":
            expected = 1 - best if label == "__label__cc" else best
        assert score == round(min(1.0, expected), 8)
    assert found[0] > found[1]
    assert found[2:] == [None, None, None]


@settings(deadline=None)
@given(st.lists(st.text("aB ä.,中文\n_9", max_size=20), min_size=1, max_size=4))
def test_raw_words_are_counted_as_plain_python_cuts_them(values):
    spaced = [re.sub("([中文])", r" \1 ", text) for text in values]
    cut = [re.findall(r"\w+|[^\w\s]+", text) for text in spaced]
    found = raw_words(texts(values))
    assert np.diff(found.offsets).tolist() == list(map(len, cut))
    told = dict(zip((word for words in cut for word in words), found.hashes.tolist()))
    assert [told[word] for words in cut for word in words] == found.hashes.tolist()
    assert len(set(told.values())) == len(told)


def test_importance_is_the_sum_of_log_odds_of_words_and_pairs(tmp_path):
    target, source = texts(["der hund bellt", "der hund"]), texts(["die katze", "der kauf"])
    counts = counted([target]), counted([source])
    assert [int(x.sum()) for x in counts] == [3 + 2 + 2 + 1, 2 + 1 + 2 + 1]
    write_weights(tmp_path / "w.npz", *counts)
    weights = read_weights(tmp_path / "w.npz")
    found = weights.measure(texts(["der hund", "die katze", "", None, " \n"])).to_pylist()
    one, two, pair = (math.log(a / 8 + 1e-8) - math.log(b / 6 + 1e-8) for a, b in ((2, 1), (2, 0), (2, 0)))
    assert found[0] == pytest.approx(one + two + pair)
    assert found[1] < 0
    assert found[2:4] == [None, None]
    assert found[4] == 0.0


def test_importance_of_another_file_is_an_error(tmp_path):
    (tmp_path / "w.npz").write_bytes(b"nothing")
    with pytest.raises(GivenFileError, match=r"curation\.signals\.importance"):
        read_weights(tmp_path / "w.npz")


MEANS = [name for name in LINE_COLUMNS if name.endswith("_mean")]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text("aB1 •.\n,", max_size=40)), min_size=1, max_size=5))
def test_values_of_lines_sum_to_the_documents_value(values):
    lines = line_values(texts(values), list(LINE_COLUMNS), "de")
    documents = measure(texts(values), list(LINE_COLUMNS), "de")
    for name, column in LINE_COLUMNS.items():
        for text, each, whole in zip(values, lines[column].to_pylist(), documents[name].to_pylist()):
            if text is None:
                assert each is None
                continue
            assert len(each) == len(text.splitlines(keepends=True)) if "\r" not in text else True
            total = sum(each) / (len(each) if name in MEANS and each else 1)
            assert whole is None or total == pytest.approx(whole, abs=1e-7)


class Files:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name

    def path(self, suffix):
        return self.folder / f"{self.name}{suffix}"


def test_a_signals_layer_holds_them_beside_the_others(tmp_path):
    shard, words, domains = tmp_path / "a.jsonl", tmp_path / "words.txt", tmp_path / "domains.txt"
    pl.DataFrame({"text": ["a b\nb", "c"], "url": ["http://x.org/", None]}).write_ndjson(shard)
    words.write_text("b")
    domains.write_text("x.org games\n")
    inputs = ShardInputs("s", "a.jsonl", str(shard), "de", Reader("jsonl"))
    make_rows(inputs, None, Files(tmp_path, "rows"))
    inputs = ShardInputs("s", "a.jsonl", str(shard), "de", Reader("jsonl"), layers=(str(tmp_path / "rows.parquet"),))
    asked = (GivenSignal("rps_doc_ldnoobw_words", str(words)), GivenSignal("rps_doc_ut1_blacklist", str(domains)))
    options = SignalOptions(names=("rps_lines_num_words_mean",), given=asked, per_line=("rps_lines_num_words_mean",))
    make_signals(inputs, options, Files(tmp_path, "signals"))
    (batch,) = read_layer(tmp_path / "signals.parquet")
    assert batch.drop_columns(["row"]).to_pydict() == {
        "rps_lines_num_words_mean": [1.5, 1.0],
        "rps_lines_num_words": [[2.0, 1.0], [1.0]],
        "rps_doc_ldnoobw_words": [2, 0],
        "rps_doc_ut1_blacklist": ["games", None],
    }


def test_originals_are_the_sources_own_text():
    found = measure(texts(["ab\nc"]), ["ccnet_original_length", "ccnet_original_nlines"], "de")
    assert [column.to_pylist() for column in found.values()] == [[4], [2]]
    assert np.isfinite(found["ccnet_original_length"].to_numpy()).all()
