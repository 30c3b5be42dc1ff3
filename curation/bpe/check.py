"""Strings that are hard to encode the same way twice: what an encoder is compared on when it is opened.

Every border of every class of characters stands in every context that a pattern asks about; beside them what went
wrong elsewhere: contractions in capitals, line ends, runs of spaces before everything, marks, joined emoji, digits of
all kinds; and strings drawn from all of these.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np

from curation.bpe.classes import class_table

_DRAWN = 600
_PIECES = (
    # contractions, also in capitals and with U+017F
    *(
        "'s",
        "'S",
        "'T",
        "'RE",
        "'Ve",
        "'m",
        "'LL",
        "'lL",
        "'d",
        "'ſ",
        "'l",
        "'r",
        "''s",
        "don't",
        "DON'T",
        "’s",
        "it's.",
    ),
    # line ends, spaces of all kinds, what is no space
    *(" ", "\r\n", "\n", "\r", "\n\n", "\r\n\r\n", "\t", "\t\t", "\x0b", "\x0c", "\x85", "\xa0", "\u2028", "\u3000"),
    *("\ufeff", "\u200b", "\u200d", "\x00", "\x01", "\x7f"),
    # marks, jamo, Indic and Thai vowels; joined emoji, flags, variation selectors
    *("e\u0301", "\u0301", "n\u0303\u0323", "\u0915\u094d\u0937", "\u0e01\u0e33", "\uac00", "\u1100\u1161\u11a8"),
    *("👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇨🇳", "👍🏽", "1️⃣", "☃︎"),
    # numbers of all kinds
    *(
        "1",
        "12",
        "123",
        "1234",
        "12345678",
        "¼",
        "²",
        "ⅷ",
        "〇",
        "〡〢",
        "٣٤",
        "३४",
        "１２",
        "𝟘𝟙",
        "一二三",
        "㊀",
        "㍿",
    ),
    # scripts
    *(
        "ß",
        "ẞ",
        "ﬁ",
        "İ",
        "ı",
        "Straße",
        "Übergrößenträger",
        "中文分词",
        "中文a日本",
        "々",
        "⺀",
        "カタカナ",
        "ひらがな",
    ),
    *("한국어", "ไทยภาษา", "العربية", "עברית", "﷽"),
    # what tokens are called; code
    *(
        "<0x41>",
        "<unk>",
        "<s>",
        "</s>",
        "<|endoftext|>",
        "▁",
        "▁▁",
        "▁a",
        "Ġ",
        "Ċ",
        "__init__",
        "a_b",
        "::=",
        "!!!",
        "...",
    ),
    *("–––", "—", "(", ")", "[]", "])};", "////", "####", "$1,000.00", "x=1;y+=2", "if(a<b)", "0xFF", "1e-9"),
    *("http://a.b/c?d=e&f", "a" * 70, "-" * 70),
)
_CONTEXTS = "a{0}b {0}a {0}{0}1{0}2 {0}\n{0} \t {0}'{0}s,{0},{0}  {0}"


@lru_cache(maxsize=1)
def hard_strings() -> tuple[str, ...]:
    """The strings, the same every time."""
    chance = random.Random(1)
    borders = [chr(code) for code in _border_points()]
    contexts = [_CONTEXTS.format(character) for character in borders]
    pool = [*_PIECES, *[" "] * 40, "  ", "    ", *chance.sample(borders, 200)]
    drawn = ["".join(chance.choices(pool, k=chance.randint(1, 24))) for _ in range(_DRAWN)]
    spaces = [
        f"{before}{run}{after}"
        for run in (" ", "  ", "   ", "\n", " \n", "\n ", " \n ", "\r\n", "\t", " \t", "\xa0", " \xa0 ", "\u3000 ")
        for before in ("", "a", "1", ".", "中")
        for after in ("", "a", "1", ".", "中", "'s", "é")
    ]
    return ("", *_PIECES, *contexts, *spaces, *drawn)


def _border_points() -> list[int]:
    """First and last code points of all runs of one class, surrogates left out."""
    table = class_table()
    firsts = np.flatnonzero(np.diff(table)) + 1
    found = np.unique(np.concatenate(([0], firsts, firsts - 1, [len(table) - 1])))
    return [int(code) for code in found if not 0xD800 <= code < 0xE000]
