"""RedPajama-V2 signals against a twin in plain Python, written from their definitions."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.signals import SIGNALS, measure
from curation.text.stop_words import STOP_WORDS

NAMES = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]
BULLETS = tuple("\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013")
HAN = "([\u3400-\u9fff])"
HAN_WITH_MARKS = "([\u3400-\u9fff]\u0301*)"  # a normalised word keeps its marks


def normalised(text: str) -> str:
    kept = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", kept))


def spaced(text: str, letter: str = HAN) -> str:
    """Han letters stand alone: what is ours in the definition."""
    return re.sub(letter, r" \1 ", text)


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def ngram_shares(words: list[str]) -> dict[str, float]:
    total, found = sum(map(len, words)), {}
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        if n < 5:
            gram, times = counts.most_common(1)[0] if grams else ((), 0)
            found[f"rps_doc_frac_chars_top_{n}gram"] = sum(map(len, gram)) * times / total if times > 1 else 0.0
        else:
            covered = {k for i, gram in enumerate(grams) if counts[gram] > 1 for k in range(i, i + n)}
            found[f"rps_doc_frac_chars_dupe_{n}grams"] = sum(len(words[k]) for k in covered) / total if grams else 0.0
    return found


def twin(text: str, language: str) -> dict[str, float | None]:
    raw, norm = re.findall(r"\w+|[^\w\s]+", spaced(text)), normalised(text)
    words = spaced(norm, HAN_WITH_MARKS).split()
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    normal = [normalised(line) for line in lines]
    symbols = text.count("#") + text.count("...") + text.count("…")
    shares = [count / len(words) for count in Counter(words).values()]
    return {
        **dict.fromkeys(("ccnet_length", "ccnet_original_length"), len(text)),  # no step edited the text
        **dict.fromkeys(("ccnet_nlines", "ccnet_original_nlines"), text.count("\n") + 1),
        "rps_doc_word_count": len(words),
        "rps_doc_mean_word_length": share(sum(map(len, words)), len(words)),
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "rps_doc_symbol_to_word_ratio": share(symbols, len(raw)),
        "rps_doc_frac_lines_end_with_ellipsis": share(
            sum(x.rstrip().endswith(("...", "…")) for x in lines), len(lines)
        ),
        "rps_doc_frac_no_alph_words": 1 - sum(bool(re.search("[a-zA-Z]", w)) for w in raw) / len(raw) if raw else None,
        "rps_doc_frac_unique_words": share(len(set(words)), len(words)),
        "rps_doc_unigram_entropy": -sum(x * math.log(x) for x in shares) if words else None,
        "rps_doc_frac_all_caps_words": share(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_stop_word_fraction": sum(w in STOP_WORDS[language] for w in raw) / len(raw) if raw else 0.0,
        "rps_doc_lorem_ipsum": norm.count("lorem ipsum") / len(norm) if norm else 0.0,
        "rps_doc_curly_bracket": (text.count("{") + text.count("}")) / len(text) if text else 0.0,
        **ngram_shares(words),
        "rps_lines_ending_with_terminal_punctution_mark_mean": share(
            sum(x.rstrip().endswith((".", "!", "?", "”")) for x in lines), len(lines)
        ),
        "rps_lines_javascript_counts_sum": sum(x.split().count("javascript") for x in normal),
        "rps_lines_num_words_mean": share(sum(len(spaced(x, HAN_WITH_MARKS).split()) for x in normal), len(lines)),
        "rps_lines_numerical_chars_fraction_mean": share(
            sum(sum(map(str.isnumeric, x)) / len(x) for x in normal if x), len(lines)
        ),
        "rps_lines_start_with_bulletpoint_mean": share(sum(x.lstrip().startswith(BULLETS) for x in lines), len(lines)),
        "rps_lines_uppercase_letter_fraction_mean": share(
            sum(sum(map(str.isupper, x)) / len(x) for x in lines), len(lines)
        ),
    }


def check(texts: list[str], language: str) -> None:
    measured = {name: column.to_pylist() for name, column in measure(pa.array(texts), NAMES, language).items()}
    for row, text in enumerate(texts):
        expected = twin(text, language)
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
