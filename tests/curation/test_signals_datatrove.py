"""Gopher, C4 and FineWeb signals against datatrove's own filters, which get our words and sentences.

A filter tells a value only by its threshold: it must pass a document at our value and drop it one float beside it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.c4_filters import C4ParagraphFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.word_tokenizers import WordTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.signals import SIGNALS, measure
from curation.text.properties import property_table
from curation.text.scan import segments_of
from curation.text.segment import frozen
from curation.text.sentences import next_sentence
from curation.text.spans import trim_start
from curation.text.stop_words import GOPHER_STOP_WORDS

NAMES = [name for name, signal in SIGNALS.items() if signal.family in ("gopher", "c4", "fineweb")]


class OurWords(WordTokenizer):
    """Our words and sentences in datatrove's tokenizer slot."""

    def word_tokenize(self, text: str) -> list[str]:
        return [segment for segment, _ in segments_of(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raw, spans = text.encode(), []
        buf, table = frozen(np.frombuffer(raw, np.uint8)), property_table()
        i = trim_start(buf, 0, len(raw), table)
        while i < len(raw):
            stop = next_sentence(buf, i, len(raw), table)
            spans.append((len(raw[:i].decode()), len(raw[:stop].decode())))
            i = trim_start(buf, stop, len(raw), table)
        return spans

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[a:b] for a, b in self.span_tokenize(text)]


WORDS = OurWords("any")
DOCUMENTS = {
    "de": [
        "Der Müller mahlt das Korn.\n\n- Weizen …\n• Roggen...\n"
        "Der Müller mahlt das Korn.\n\nDer Müller mahlt das Korn.\n",
        "1 11 1 11 1 11 11 1 1 11 1 11 1 11 11 1 11 1 1 11 # # ## und der die und der die und der die und der die.",
        "  \r\n Kopf \x0b\n\n\n\n Fuß. \n\n\n\n Kopf \u2028 Fuß. [1] [edit]",
        "wort " * 400 + "ende.",
    ],
    "en": [
        "Lorem Ipsum dolor sit amet.\nNo javascript here, please.\nA line that uses {brackets} here.\n"
        "This is kept [12].\nAnd this one is kept too.\nWe use cookies on this site.\nToo short.\n"
        "One more line is kept. And two sentences.\n",
        "the be to of and that have with it.\n" * 30,
        "word" * 300 + " is a long word.\nA good line of text stands here.\nA good line of text stands here. ",
        "x " * 3,
    ],
    "zh": [
        "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？\n\n"
        "子曰：巧言令色，鲜矣仁。\n子曰：巧言令色，鲜矣仁。",
        "的年在月是和日了。" * 20,
    ],
}


def _measured(texts: list[str], language: str) -> dict[str, list]:
    return {
        name: column.to_pylist()
        for name, column in measure(pa.array(texts, pa.large_string()), NAMES, language).items()
    }


def _quality(language: str, **thresholds: float | None) -> GopherQualityFilter:
    off = dict.fromkeys(["min_doc_words", "min_avg_word_length", *(option for option, _, _ in QUALITY.values())])
    return GopherQualityFilter(**{**off, **thresholds}, stop_words=list(GOPHER_STOP_WORDS[language]), language=WORDS)


# signal -> filter option, reason, whether the option is an upper bound
QUALITY = {
    "word_count": ("max_doc_words", "gopher_long_doc", True),
    "mean_word_length": ("max_avg_word_length", "gopher_above_avg_threshold", True),
    "hash_word_ratio": ("max_symbol_word_ratio", "gopher_too_many_hashes", True),
    "bullet_line_share": ("max_bullet_lines_ratio", "gopher_too_many_bullets", True),
    "ellipsis_line_share": ("max_ellipsis_lines_ratio", "gopher_too_many_end_ellipsis", True),
    "alpha_word_share": ("max_non_alpha_words_ratio", "gopher_below_alpha_threshold", False),
    "stop_word_count": ("min_stop_words", "gopher_enough_stop_words", False),
}


@pytest.mark.parametrize("language", DOCUMENTS)
@pytest.mark.parametrize("signal", QUALITY)
def test_quality_signals_equal_datatroves_filter_at_the_threshold(signal: str, language: str) -> None:
    option, reason, upper = QUALITY[signal]
    for text, value in zip(DOCUMENTS[language], _measured(DOCUMENTS[language], language)[signal]):
        if not value:  # datatrove reads a threshold of 0 as "off"
            kept = _quality(language, **{option: 1e-9 if upper else None}).filter(Document(text, "0"))
            assert kept is True or kept[1] != reason
            continue
        at, beyond = (value, np.nextafter(value, 0)) if upper else (value, np.nextafter(value, 2e9))
        passed = _quality(language, **{option: at}).filter(Document(text, "0"))
        assert passed is True or passed[1] != reason
        assert _quality(language, **{option: beyond}).filter(Document(text, "0")) == (False, reason)


def _repetition(text: str) -> dict[str, float]:
    """What GopherRepetitionFilter compares with its thresholds, by its own functions."""
    words, size, expected = WORDS.word_tokenize(text), len(text), {}
    for name, parts in (("line", re.split(r"\n+", text)), ("paragraph", re.split(r"\n{2,}", text.strip()))):
        duplicates, characters = find_duplicates(parts)
        expected[f"duplicate_{name}_share"] = duplicates / len(parts)
        expected[f"duplicate_{name}_char_share"] = characters / size
    for n in (2, 3, 4):
        grams = get_n_grams(words, n)
        expected[f"top_{n}gram_char_share"] = find_top_duplicate(grams) / size if grams else 0.0
    for n in range(5, 11):
        expected[f"duplicate_{n}gram_char_share"] = find_all_duplicate(words, n) / size
    return expected


def _check_repetition(texts: list[str], language: str) -> None:
    measured = _measured(texts, language)
    for row, text in enumerate(texts):
        for name, value in _repetition(text).items():
            assert measured[name][row] == value, (name, text[:80])


@pytest.mark.parametrize("language", DOCUMENTS)
def test_repetition_signals_equal_datatroves_functions(language: str) -> None:
    _check_repetition(DOCUMENTS[language], language)


@given(
    st.lists(
        st.sampled_from(["1", "11", "a", "a", "b", "ab", "中", "文", "\n", "\n\n", ".", "…", "ö"]),
        min_size=1,
        max_size=120,
    )
)
@settings(max_examples=200, deadline=None)
def test_repetition_signals_repetitive_text_equal_datatroves_functions(parts: list[str]) -> None:
    _check_repetition([" ".join(parts), "".join(parts)], "de")


def test_repetition_filter_itself_agrees_on_the_first_reason() -> None:
    text = DOCUMENTS["en"][1]
    value = _measured([text], "en")["duplicate_line_share"][0]
    off = {
        "dup_para_frac": None,
        "dup_para_char_frac": None,
        "dup_line_char_frac": None,
        "top_n_grams": (),
        "dup_n_grams": (),
    }
    assert GopherRepetitionFilter(dup_line_frac=value, **off, language=WORDS).filter(Document(text, "0")) is True
    below = GopherRepetitionFilter(dup_line_frac=np.nextafter(value, 0), **off, language=WORDS)
    assert below.filter(Document(text, "0")) == (False, "dup_line_frac")


FINEWEB = {
    "fineweb_short_line_share": ("short_line_thr", "short_line_ratio"),
    "fineweb_duplicate_char_share": ("char_duplicates_ratio", "char_dup_ratio"),
    "fineweb_newline_word_ratio": ("new_line_ratio", "list_ratio"),
    "fineweb_terminal_line_share": ("line_punct_thr", "line_punct_ratio"),
}


@pytest.mark.parametrize("language", DOCUMENTS)
@pytest.mark.parametrize("signal", FINEWEB)
def test_fineweb_signals_equal_datatroves_filter_at_the_threshold(signal: str, language: str) -> None:
    option, reason = FINEWEB[signal]
    wide = {"short_line_thr": 9.0, "char_duplicates_ratio": 9.0, "new_line_ratio": 99.0, "line_punct_thr": -1.0}
    for text, value in zip(DOCUMENTS[language], _measured(DOCUMENTS[language], language)[signal]):
        beyond = np.nextafter(value, 9 if option == "line_punct_thr" else -9)
        assert FineWebQualityFilter(**{**wide, option: value}, language=WORDS).filter(Document(text, "0")) is True
        dropped = FineWebQualityFilter(**{**wide, option: beyond}, language=WORDS).filter(Document(text, "0"))
        assert dropped == (False, reason)


def _c4_reason(measured: dict[str, list], row: int) -> set[str]:
    found = {"lorem_ipsum"} if measured["c4_lorem_ipsum"][row] else set()
    found |= {"curly_bracket"} if measured["c4_curly_bracket"][row] else set()
    return found or ({"too_few_sentences"} if measured["c4_sentence_count"][row] < 5 else {"kept"})


def _check_c4(texts: list[str], language: str) -> None:
    measured = _measured(texts, language)
    for row, text in enumerate(texts):
        verdict = C4QualityFilter(language=WORDS).filter(Document(text, "0"))
        assert ("kept" if verdict is True else verdict[1]) in _c4_reason(measured, row), text[:80]
        long_lines = C4ParagraphFilter().paragraph_filter(text)
        assert long_lines == (measured["c4_long_line_count"][row] >= 3)


@pytest.mark.parametrize("language", DOCUMENTS)
def test_c4_verdicts_equal_datatroves_filter(language: str) -> None:
    _check_c4(DOCUMENTS[language], language)


LINES = st.sampled_from(
    [
        "A line of text ends. So it does.",
        "no end here",
        "It uses cookies here.",
        "JavaScript is on.",
        "Lorem ipsum it is.",
        "{x} is y.",
        "A mark[1].",
        "A mark [edit]",
        "Two words.",
        "",
        "Really? Yes! No... ",
        "中文的句子。",
        'He said "yes."',
    ]
)


@given(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n", "\u2028", "\n\n"]))
@settings(max_examples=150, deadline=None)
def test_c4_verdicts_any_lines_equal_datatroves_filter(lines: list[str], line_break: str) -> None:
    _check_c4([line_break.join(lines)], "en")


@pytest.mark.shared_data
@pytest.mark.parametrize("source", ["de_wiki", "de_tech", "zh_tech", "en_math", "code_python"])
def test_signals_real_documents_equal_datatrove(source: str) -> None:
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    if not folder:
        pytest.skip("GRISTMILL_TEST_DATA names no folder of real documents")
    texts = pq.read_table(Path(folder) / "text" / f"{source}.parquet").column("text").slice(0, 25).to_pylist()
    texts = [text for text in texts if text.strip()]
    _check_repetition(texts, "de")
    _check_c4(texts, "de")
    measured = _measured(texts, "de")
    for row, text in enumerate(texts):
        words = WORDS.word_tokenize(text)
        assert measured["segment_count"][row] == len(words)
        assert measured["alpha_word_share"][row] == sum(any(c.isalpha() for c in w) for w in words) / len(words)
        assert measured["ellipsis_word_ratio"][row] == (text.count("...") + text.count("…")) / len(words)
        assert measured["fineweb_newline_word_ratio"][row] == text.count("\n") / len(words)
