"""Write `unicode.npz`, the committed table of Unicode 14.0.0 properties that every text kernel reads.

Run `python -m curation.text.make_tables` with Python 3.11, whose `unicodedata` is Unicode 14.0.0; other versions of
Python are refused, because a table made by them would change measured values. The file holds runs, not code points:
it stays some kilobytes small.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

import numpy as np

from curation.text import properties as p

UNICODE_VERSION = "14.0.0"
TABLE_FILE = Path(__file__).with_name("unicode.npz")

# Letters of scripts written without spaces: each is a word of its own. The prefix of the character's Unicode name
# stands for the Script property, which `unicodedata` lacks.
BY_CHARACTER = (
    "CJK UNIFIED IDEOGRAPH",
    "CJK COMPATIBILITY IDEOGRAPH",
    "CJK RADICAL",
    "KANGXI RADICAL",
    "HANGZHOU NUMERAL",
    "IDEOGRAPHIC",
    "HIRAGANA",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "VERTICAL KANA",
    "THAI",
    "LAO",
    "KHMER",
    "MYANMAR",
    "TAI LE",
    "NEW TAI LUE",
    "TAI THAM",
    "TAI VIET",
    "AHOM",
    "YI SYLLABLE",
    "TANGUT",
    "NUSHU",
    "KHITAN SMALL SCRIPT",
)
SCRIPTS = {
    "LATIN": p.LATIN,
    "FULLWIDTH LATIN": p.LATIN,
    "CJK UNIFIED IDEOGRAPH": p.HAN,
    "CJK COMPATIBILITY IDEOGRAPH": p.HAN,
    "CJK RADICAL": p.HAN,
    "KANGXI RADICAL": p.HAN,
    "IDEOGRAPHIC": p.HAN,
    "HIRAGANA": p.KANA,
    "KATAKANA": p.KANA,
    "HALFWIDTH KATAKANA": p.KANA,
    "CYRILLIC": p.CYRILLIC,
    "GREEK": p.GREEK,
    "ARABIC": p.ARABIC,
    "HEBREW": p.HEBREW,
    "HANGUL": p.HANGUL,
    "HALFWIDTH HANGUL": p.HANGUL,
    "THAI": p.THAI,
    "DEVANAGARI": p.DEVANAGARI,
}
# Word_Break property values of UAX #29 that join letters (MidLetter), numbers (MidNum) or both (MidNumLet).
MID_NUMBER_LETTER = ".'\u2018\u2019\u2024\ufe52\uff07\uff0e"
MID_LETTER = ":\u00b7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a"
MID_NUMBER = ",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe10\ufe14\ufe50\ufe54\uff0c\uff1b"
LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines cuts
# Sentence_Terminal=Yes of Unicode 15 with the three Khmer signs and without the one dot leader, as inclusive ranges:
# the characters that FineWeb counts as the end of a line (datatrove 0.10.1, TERMINAL_PUNCTUATION).
TERMINAL = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 "
    "16B44 16E98 1BC9F 1DA88"
)
# A word of these characters alone is no word for Gopher's counts (datatrove 0.10.1, PUNCTUATION_SET): ASCII
# punctuation and controls, some quotes, dashes and full-width forms (a full-width one among them), and TERMINAL.
PUNCTUATION = (
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-7E 7F-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA 3001-3002 3008-300D "
    "3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E"
)
SENTENCE_END = (
    "!?\u203c\u203d\u2047\u2048\u2049\u3002\uff01\uff1f\uff61\u0964\u0965\u06d4\u061f\u1362\u104b\u17d4\u2026"
)


def code_points(ranges: str) -> set[int]:
    """The code points of inclusive hexadecimal ranges such as `21 3A-40`."""
    found: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return found


def _by_prefix(name: str, prefixes: tuple[str, ...]) -> str | None:
    """The longest of `prefixes` that `name` starts with as whole words."""
    return max((x for x in prefixes if re.match(re.escape(x) + r"\b", name)), key=len, default=None)


def word_class(char: str) -> int:  # noqa: PLR0911 (a list of cases)
    """The class of one character in word segmentation (see `curation.text.segment`)."""
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    if char.isspace() or category in ("Zs", "Zl", "Zp", "Cc") or char == "\u200b":
        return p.SEPARATOR
    for chars, kind in (
        (MID_NUMBER_LETTER, p.MID_NUMBER_LETTER),
        (MID_LETTER, p.MID_LETTER),
        (MID_NUMBER, p.MID_NUMBER),
    ):
        if char in chars:
            return kind
    if category in ("Mn", "Mc", "Me", "Cf") or 0x1F3FB <= ord(char) <= 0x1F3FF:  # format characters, skin tones
        return p.EXTEND
    if category == "Pc":
        return p.CONNECTOR
    if category[0] == "L" or category == "Nl":
        return p.CHARACTER if _by_prefix(name, BY_CHARACTER) else p.LETTER
    if category in ("Nd", "No"):
        return p.DIGIT
    # Ideographs of later Unicode versions lie in planes 2 and 3, which hold nothing else.
    return p.CHARACTER if category == "Cn" and 0x20000 <= ord(char) < 0x3FFFE else p.SYMBOL


def property_bits(char: str, terminal: set[int], punctuation: set[int]) -> int:
    """All properties of one character in the layout of `curation.text.properties`."""
    category, letter = unicodedata.category(char), char.isalpha()
    script = p.NO_SCRIPT
    if letter or category == "Nl":
        found = _by_prefix(unicodedata.name(char, ""), tuple(SCRIPTS))
        script = SCRIPTS[found] if found else p.OTHER_SCRIPT
    flags = {
        p.ALPHA: letter,
        p.ALNUM: char.isalnum() or char == "_",
        p.SPACE: char.isspace(),
        p.UPPER: char.isupper(),
        p.LOWER: char.islower() or category == "Lt",
        p.NUMERIC: char.isnumeric(),
        p.DECIMAL: category == "Nd",
        p.NOT_PUNCTUATION: ord(char) not in punctuation,
        p.TERMINAL: ord(char) in terminal,
        p.LINE_BREAK: char in LINE_BREAKS,
        p.SENTENCE_END: char in SENTENCE_END,
        p.CLOSING: category in ("Pe", "Pf", "Pi") or char in "\"'",
        p.ANY_PUNCTUATION: category[0] == "P",
        p.ANY_SYMBOL: category[0] == "S",
        p.CONTROL: category in ("Cc", "Cf", "Co", "Cn") and not char.isspace(),
        p.ASCII_PUNCTUATION: ord(char) < 128 and category[0] in "PS",
    }
    return word_class(char) | script << p.SCRIPT_SHIFT | sum(bit for bit, holds in flags.items() if holds)


def _lowered(char: str) -> str:
    """The simple (one to one) lower case; a longer mapping (U+0130 alone) keeps its first character."""
    return char.lower()[0]


def make_tables() -> dict[str, np.ndarray]:
    """Properties as runs, and the two mappings as pairs of changed code points."""
    terminal = code_points(TERMINAL)
    punctuation = code_points(PUNCTUATION) | terminal
    chars = [chr(c) for c in range(p.NUM_CODE_POINTS)]
    bits = np.array([property_bits(char, terminal, punctuation) for char in chars], np.uint32)
    starts = np.flatnonzero(np.concatenate(([True], bits[1:] != bits[:-1]))).astype(np.int32)
    lower = [(ord(c), ord(_lowered(c))) for c in chars if _lowered(c) != c]
    folded = {ord(c): unicodedata.normalize("NFD", c.lower()) for c in chars if not 0xAC00 <= ord(c) < 0xD7A4}
    changed = {c: [ord(x) for x in text] for c, text in folded.items() if text != chr(c)}
    return {
        "unicode_version": np.array(UNICODE_VERSION),
        "run_starts": starts,
        "run_bits": bits[starts],
        "lower": np.array(lower, np.int32),
        "folded_from": np.array(list(changed), np.int32),
        "folded_length": np.array([len(x) for x in changed.values()], np.int8),
        "folded_to": np.array([x for xs in changed.values() for x in xs], np.int32),
    }


if __name__ == "__main__":
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(
            f"this Python has Unicode {unicodedata.unidata_version}, the table is Unicode {UNICODE_VERSION}: use 3.11"
        )
    np.savez_compressed(TABLE_FILE, **make_tables())  # type: ignore[arg-type]
