"""The registry, row alignment, and texts made to break kernels."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from curation.signals import FAMILIES, SIGNALS, measure
from curation.signals.reference import DOCUMENT, reference_page, tags

NASTY = [
    "", " ", "\n", "\n\n\n", "\x00", "\x00\x00a", "...", "…", "!?!?!?", "😀" * 50,
    "👩‍👩‍👧‍👦 🇩🇪", "\u0301", "a\u0301\u0301",
    "\u202eabc\u202c", "שלום", "\ufeff", "\r\n\r\n", "\u2028", "a" * 5000, "中" * 5000,
    "{", "[", "[1]", "[edit", "\U0010ffff",
]  # fmt: skip


def test_registry_names_are_plain_sql_columns() -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in SIGNALS)
    assert len(SIGNALS) == sum(len(family.signals) for family in FAMILIES)


def test_registry_signals_say_whose_definition_they_follow() -> None:
    assert all(signal.implementation and signal.description and signal.version >= 1 for signal in SIGNALS.values())


def test_measure_unknown_name_suggests_the_known_one() -> None:
    with pytest.raises(KeyError, match="did you mean word_count"):
        measure(pa.array(["x"]), ["word_cont"], "de")


def test_measure_names_keep_order_and_types() -> None:
    measured = measure(pa.array(["a b", None]), ["mean_word_length", "word_count", "c4_lorem_ipsum"], "en")
    assert list(measured) == ["mean_word_length", "word_count", "c4_lorem_ipsum"]
    assert [str(column.type) for column in measured.values()] == ["double", "int64", "bool"]
    assert [column.to_pylist() for column in measured.values()] == [[1.0, None], [2, None], [False, None]]


def test_measure_batch_equals_one_by_one() -> None:
    texts = [*NASTY, None, "Der Müller mahlt. Er mahlt und mahlt und mahlt und mahlt."]
    together = {name: column.to_pylist() for name, column in measure(pa.array(texts), list(SIGNALS), "de").items()}
    for row, text in enumerate(texts):
        alone = measure(pa.array([text], pa.large_string()), list(SIGNALS), "de")
        assert {name: column[0].as_py() for name, column in alone.items()} == {n: c[row] for n, c in together.items()}


def test_measure_slice_string_and_chunks_equal_the_whole() -> None:
    texts = ["zero", "ein Wort", None, "drei Worte hier"]
    whole = measure(pa.array(texts, pa.large_string()), ["word_count"], "de")["word_count"]
    assert measure(pa.array(texts, pa.large_string())[1:], ["word_count"], "de")["word_count"].equals(whole[1:])
    assert measure(pa.array(texts, pa.string()), ["word_count"], "de")["word_count"].equals(whole)
    assert measure(pa.chunked_array([texts[:1], texts[1:]]), ["word_count"], "de")["word_count"].equals(whole)


def test_measure_family_alone_equals_with_the_others() -> None:
    texts = pa.array(["Eine Zeile.\nNoch eine.\n", "", "a b c d e f a b c d e f"])
    everything = measure(texts, list(SIGNALS), "de")
    for family in FAMILIES:
        alone = measure(texts, [signal.name for signal in family.signals], "de")
        assert all(column.equals(everything[name]) for name, column in alone.items())


def test_measure_nothing_is_never_nan() -> None:
    for column in measure(pa.array([*NASTY, None]), list(SIGNALS), "de").values():
        assert not any(value != value for value in column.to_pylist())  # NaN alone differs from itself


def test_measure_no_rows_gives_empty_columns() -> None:
    assert all(len(column) == 0 for column in measure(pa.array([], pa.large_string()), list(SIGNALS), "de").values())


@pytest.mark.parametrize(
    "unit", ["a\n", "中", "a b ", ". ", "{[1]} ", "...", "\n\n", "x", "é", "lorem ipsum ", "1 11 "], ids=repr
)
def test_measure_long_monotonous_text_takes_linear_time(unit: str) -> None:
    seconds = []
    for size in (60_000, 240_000):
        text = pa.array([unit * (size // len(unit.encode()))])
        start = time.process_time()
        measure(text, list(SIGNALS), "de")
        seconds.append(time.process_time() - start)
    assert seconds[1] < 16 * seconds[0] + 0.5  # four times the text; quadratic would be over 16 times


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "中 ", "x\n", "word ", "aé. \n"], ids=repr)
def test_measure_sixty_megabytes_do_not_crash(unit: str) -> None:
    script = (
        "import pyarrow as pa; from curation.signals import *\n"
        f"text = {unit!r} * (60_000_000 // len({unit!r}.encode()))\n"
        "found = measure(pa.array([text], pa.large_string()), list(SIGNALS), 'de')\n"
        "print(found['character_count'][0].as_py() == len(text))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "True"


def test_all_tags_of_redpajama_v2_have_a_place() -> None:
    text = """ccnet bucket language_score length nlines original_length original_nlines perplexity
    rps_doc curly_bracket frac_all_caps_words frac_lines_end_with_ellipsis frac_no_alph_words lorem_ipsum
    mean_word_length stop_word_fraction symbol_to_word_ratio frac_unique_words unigram_entropy word_count num_sentences
    ldnoobw_words ut1_blacklist books_importance openwebtext_importance wikipedia_importance ml_wikiref_score
    ml_palm_score ml_wikipedia_score frac_chars_top_2gram frac_chars_top_3gram frac_chars_top_4gram
    frac_chars_dupe_5grams frac_chars_dupe_6grams frac_chars_dupe_7grams frac_chars_dupe_8grams frac_chars_dupe_9grams
    frac_chars_dupe_10grams
    rps_lines ending_with_terminal_punctution_mark javascript_counts num_words numerical_chars_fraction
    start_with_bulletpoint uppercase_letter_fraction
    minhash signature_0.7 signature_0.8 signature_0.9 signature_1.0"""
    expected, family = set(), ""
    for word in text.split():
        if word in ("ccnet", "rps_doc", "rps_lines", "minhash"):
            family = word
        else:
            expected.add(f"{family}_{word}")
    assert len(expected) == 46
    assert set(tags()) == expected


def test_reference_page_is_generated_from_the_registry() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == reference_page(), "run `python -m curation.signals.reference`"
