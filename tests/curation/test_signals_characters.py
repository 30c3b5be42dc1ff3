"""Character signals against a twin in plain Python."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.signals import SIGNALS, measure

NAMES = [name for name, signal in SIGNALS.items() if signal.family == "characters"]


def lz4(raw: bytes) -> int:
    """Bytes of the greedy parse that `lz4_size` describes."""
    latest: dict[int, int] = {}
    size, literals, i = 0, 0, 0

    def extra(length: int) -> int:
        return 0 if length < 15 else 1 + (length - 15) // 255

    while i + 4 <= len(raw):
        slot = (int.from_bytes(raw[i : i + 4], "little") * 2654435761 % 2**32) >> 20
        before = latest.get(slot)
        latest[slot] = i
        if before is None or i - before > 65535 or raw[before : before + 4] != raw[i : i + 4]:
            literals, i = literals + 1, i + 1
            continue
        length = 4
        while i + length < len(raw) and raw[before + length] == raw[i + length]:
            length += 1
        size += 3 + literals + extra(literals) + extra(length - 4)
        literals, i = 0, i + length
    literals += len(raw) - i
    return size + 1 + literals + extra(literals)


def twin(text: str) -> dict[str, float | None]:
    size, letters = len(text), [c for c in text if c.isalpha()]
    categories = [unicodedata.category(c) for c in text]
    lines = text.split("\n")
    expected: dict[str, float | None] = {
        "character_count": size,
        "replacement_count": text.count("\ufffd"),
        "longest_word_length": max(map(len, text.split()), default=0),
        "longest_line_length": max(map(len, lines)),
        "mean_line_length": sum(map(len, lines)) / len(lines),
        "compression_ratio": lz4(text.encode()) / len(text.encode()) if text else None,
        "uppercase_share": sum(c.isupper() for c in letters) / len(letters) if letters else None,
        "distinct_character_share": len(set(text)) / size if text else None,
    }
    counts = {
        "letter_share": len(letters),
        "digit_share": categories.count("Nd"),
        "whitespace_share": sum(map(str.isspace, text)),
        "punctuation_share": sum(x[0] == "P" for x in categories),
        "symbol_share": sum(x[0] == "S" for x in categories),
        "control_share": sum(x in ("Cc", "Cf", "Co", "Cn") and not c.isspace() for x, c in zip(categories, text)),
    }
    return expected | {name: count / size if size else None for name, count in counts.items()}


@given(st.text(st.sampled_from("aaabÄß 1²…中が한я\n\t\x00\ufffd😀\u0301ͅ"), max_size=300))
@settings(max_examples=200, deadline=None)
def test_characters_any_text_equal_the_twin(text: str) -> None:
    measured = {name: column.to_pylist()[0] for name, column in measure(pa.array([text]), NAMES, "de").items()}
    for name, value in twin(text).items():
        assert measured[name] == (pytest.approx(value, abs=0) if value is not None else None), name


def test_characters_scripts_are_shares_of_letters() -> None:
    text = "ab中文字かきアд 12"
    measured = measure(
        pa.array([text]), ["latin_share", "han_share", "kana_share", "cyrillic_share", "thai_share"], "zh"
    )
    assert [column[0].as_py() for column in measured.values()] == [2 / 9, 3 / 9, 3 / 9, 1 / 9, 0.0]


def test_characters_compression_ratio_tells_repetition_from_prose() -> None:
    prose = "The miller grinds the corn that farmers bring from far villages, rain or shine, at dawn."
    values = measure(pa.array([prose, "la " * 500]), ["compression_ratio"], "en")["compression_ratio"].to_pylist()
    assert values[0] > 0.8
    assert values[1] < 0.02


def test_characters_compression_ratio_does_not_depend_on_earlier_rows() -> None:
    texts = ["abcdefgh" * 9, "abcdefgh" * 9, "xyz"]
    together = measure(pa.array(texts), ["compression_ratio"], "en")["compression_ratio"].to_pylist()
    assert together == [
        measure(pa.array([t]), ["compression_ratio"], "en")["compression_ratio"][0].as_py() for t in texts
    ]


@pytest.mark.parametrize("name", NAMES)
def test_characters_measured_alone_equal_those_measured_together(name: str) -> None:
    texts = pa.array(["Ein Satz, 3 Wörter.\n\nEin Satz, 3 Wörter.\n", None, "", "中文 a" * 90])
    assert measure(texts, [name], "de")[name].equals(measure(texts, NAMES, "de")[name])
