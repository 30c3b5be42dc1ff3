"""Segmentation against a twin that runs a regular expression over character classes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.text import make_tables
from curation.text import properties as p
from curation.text.scan import segments_of, words

# One character for each class in `curation.text.properties`, in the order of their numbers.
_CLASSES = np.array(list(" LN_CMqmnX"))
_TWIN = re.compile(r"CM*|(?:LM*(?:[qm]M*(?=L))?|NM*(?:[qn]M*(?=N))?|_M*)+|[^ ]")
ALPHABET = (
    "abÄßé1²_ .,:;'’·-–…#中文。がﾊ가ไ\u0e34\u0301\u200d\u200b\u00ad\ufeff\x00\x1c\n\r\t\u2028א\u05b7ш👍🏽🇩\u0378𠀀"
)


def twin_segments(text: str) -> list[str]:
    """The rules of `curation.text.segment` said once more, character by character."""
    kinds = "".join(_CLASSES[p.property_table()[[ord(c) for c in text]] & p.WORD_CLASS]) if text else ""
    found, at = [], 0
    while match := _TWIN.search(kinds, at):
        start, stop = match.span()
        if kinds[start] not in "LN_C":
            while stop < len(text) and (kinds[stop] == "M" or text[stop] == text[start]):
                stop += 1
        found.append(text[start:stop])
        at = stop
    return found


@given(st.one_of(st.text(st.sampled_from(ALPHABET), max_size=40), st.text(max_size=40)))
@settings(max_examples=400, deadline=None)
def test_segments_any_text_equal_the_twin(text: str) -> None:
    text = text.encode(errors="ignore").decode()
    assert [segment for segment, _ in segments_of(text)] == twin_segments(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe: 1.000,50 € z.B. don't", ["Größe", "1.000,50", "z.B", "don't"]),
        ("E-Mail-Adresse", ["E", "Mail", "Adresse"]),
        ("我们是中文", ["我", "们", "是", "中", "文"]),
        ("テスト", ["テ", "ス", "ト"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("soft\u00adhyphen", ["soft\u00adhyphen"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("a\x00b", ["a", "b"]),
        ("", []),
        ("!!! ... \x00", []),
    ],
)
def test_words_of_known_text_are_as_written(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_segments_symbols_run_together_only_when_equal() -> None:
    assert segments_of("...!? 👍🏽👍🏽") == [("...", False), ("!", False), ("?", False), ("👍🏽👍🏽", False)]


@pytest.mark.parametrize(
    "script", ["中文字", "ひらがな", "ภาษา", "ພາສາ", "ភាសា", "မြန်မာ", "ꀀꀁ", "हिन्दी", "አማርኛ", "Ελλάδα"]
)
def test_words_of_every_script_are_some(script: str) -> None:
    assert len(words(script)) >= 1


def test_table_sampled_characters_equal_unicodedata() -> None:
    if unicodedata.unidata_version != p.unicode_version():
        pytest.skip(f"this Python has Unicode {unicodedata.unidata_version}; the table is made with 3.11")
    terminal = make_tables.code_points(make_tables.TERMINAL)
    punctuation = make_tables.code_points(make_tables.PUNCTUATION) | terminal
    table = p.property_table()
    for code in [*range(0x600), *range(0x2000, 0x3100), *range(0, p.NUM_CODE_POINTS, 211)]:
        assert table[code] == make_tables.property_bits(chr(code), terminal, punctuation), hex(code)


@pytest.mark.slow
def test_table_whole_file_is_what_the_script_makes() -> None:
    if unicodedata.unidata_version != p.unicode_version():
        pytest.skip("the table is made with Python 3.11")
    made = make_tables.make_tables()
    with np.load(make_tables.TABLE_FILE) as stored:
        assert sorted(stored.files) == sorted(made)
        assert all(np.array_equal(stored[name], made[name]) for name in stored.files)


def test_table_sets_equal_those_of_datatrove() -> None:
    text = pytest.importorskip("datatrove.utils.text")
    table = p.property_table()
    assert {chr(c) for c in np.flatnonzero(table & p.TERMINAL)} == text.TERMINAL_PUNCTUATION
    assert {chr(c) for c in np.flatnonzero(table & p.NOT_PUNCTUATION == 0)} == text.PUNCTUATION_SET


def test_folded_tables_equal_lower_and_nfd() -> None:
    index, pool = p.folded_tables()
    for code in [*range(0x250), 0x1E9E, 0xAC01, 0xD7A3, 0xF900, 0x304C]:
        place = index[code]
        folded = "".join(map(chr, pool[place + 1 : place + 1 + pool[place]])) if place else chr(code)
        assert folded == unicodedata.normalize("NFD", chr(code).lower())


def test_lower_table_is_one_to_one_lower_case() -> None:
    lower = p.lower_table()
    assert "".join(chr(lower[ord(c)]) for c in "ÄÖÜẞΣДİ中") == "äöüßσдi中"


def test_table_of_another_content_has_another_version(monkeypatch):
    """Keys of signals and lines hold the table's version: raise it together with this digest."""
    digest = hashlib.sha256((Path(p.__file__).parent / "unicode.npz").read_bytes()).hexdigest()[:16]
    assert (p.TABLE_VERSION, digest) == (1, "7b2cc0aff867fe46")
    assert p.with_tables(3) == 3
    monkeypatch.setattr(p, "TABLE_VERSION", 2)
    assert p.with_tables(3) not in range(100)
