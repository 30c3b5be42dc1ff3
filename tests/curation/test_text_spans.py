"""Lines, trimming and sentences against Python's own string methods and a regular expression."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.text import properties as p
from curation.text.segment import frozen
from curation.text.sentences import count_sentences, next_sentence
from curation.text.spans import count_characters, next_break, trim_end, trim_start

_ENDS = "".join(chr(c) for c in np.flatnonzero(p.property_table() & p.SENTENCE_END))
_CLOSING = "".join(chr(c) for c in np.flatnonzero(p.property_table() & p.CLOSING))
TEXTS = st.text(st.sampled_from("abC1 2.!?…。！“”„\"')(»\n\r\v\x1c\x85\u2028\t\x00éßz中"), max_size=40)


def _bytes(text: str) -> np.ndarray:
    return frozen(np.frombuffer(text.encode(), np.uint8))


def _lines(text: str) -> list[str]:
    raw, found, i = text.encode(), [], 0
    while i < len(raw):
        stop, after = next_break(_bytes(text), i, len(raw))
        found.append(raw[i:stop].decode())
        i = after
    return found


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_lines_any_text_equal_splitlines(text: str) -> None:
    assert _lines(text) == text.splitlines()


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_trim_any_text_equals_strip(text: str) -> None:
    raw, buf, table = text.encode(), _bytes(text), p.property_table()
    start = trim_start(buf, 0, len(raw), table)
    end = trim_end(buf, start, len(raw), table)
    assert raw[start:end].decode() == text.strip()
    assert count_characters(buf, start, end) == len(text.strip())


def sentences(text: str) -> list[str]:
    raw, buf, table, found = text.encode(), _bytes(text), p.property_table(), []
    i = trim_start(buf, 0, len(raw), table)
    while i < len(raw):
        stop = next_sentence(buf, i, len(raw), table)
        found.append(raw[i:stop].decode())
        i = trim_start(buf, stop, len(raw), table)
    return found


def twin_sentences(text: str) -> list[str]:
    """The rules of `curation.text.sentences` once more, on characters."""
    run, closing = re.compile(f"[.{re.escape(_ENDS)}]+"), _CLOSING
    found, text = [], text.strip()
    while text:
        cut = len(text)
        for match in run.finditer(text):
            full_width = any(c >= "\u3000" for c in match[0])
            close = closing.replace("“", "").replace("‘", "") if full_width else closing
            after = match.end() + len(re.match(f"[{re.escape(close)}]*", text[match.end() :])[0])
            before = re.search(r"(?:^|\W)([^\W\d_]|\d{1,2})$", text[: match.start()])
            rest = text[after:]
            if full_width or not rest:
                cut = after
            elif rest[0].isspace():
                lower = rest.strip() and rest.strip()[0].islower()
                cut = cut if lower or (match[0] == "." and before) else after
                if cut != after:
                    continue
            else:
                continue
            break
        found.append(text[:cut])
        text = text[cut:].strip()
    return found


@given(st.text(st.sampled_from("abC1 2.!?…。！“”„\"')(»\t\x00éßz中"), max_size=40))
@settings(max_examples=400, deadline=None)
def test_sentences_any_line_equal_the_twin(text: str) -> None:
    assert sentences(text.strip()) == twin_sentences(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Am 3. Mai kam J. S. Bach. Er blieb.", ["Am 3. Mai kam J. S. Bach.", "Er blieb."]),
        ("„Ja!“ sagte er. Gut...", ["„Ja!“ sagte er.", "Gut..."]),
        ("今天好。“是吗？”他说。", ["今天好。", "“是吗？”", "他说。"]),
        ("no end", ["no end"]),
        ("   ", []),
    ],
)
def test_sentences_of_known_text_are_as_written(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected
    assert count_sentences(_bytes(text), 0, len(text.encode()), p.property_table()) == len(expected)
