"""Dedup normalisation: what a code point becomes before words are hashed.

One table per normalisation: code point -> folded code point with flags, 0 where it separates words.

* `words`: compatibility decomposition and case folding; letters, marks and digits stay, the rest separates.
  Full-width and half-width, composed and decomposed, ß and ss, upper and lower case are the same.
* `numbers`: the same, every digit becomes 0 (documents that differ in numbers only are copies).
* `base`: `numbers` without diacritics (ä is a), like datatrove and RedPajama.
* `raw`: nothing is folded, white space separates as in Python's `str.split` (and so does NUL).

A letter of a script that writes no spaces between words (Han, Kana, Thai, Lao, Khmer, Burmese, Tibetan …) is a word of
its own, so that no language is without shingles. The tables are made once, of the Unicode version named in the file, by
`python -m curation.dedup.fold`; they are part of the step's version.
"""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

NORMALIZATIONS = ("words", "numbers", "base", "raw")
SINGLE = 1 << 31  # a word of its own
EXPANDS = 1 << 30  # the low bits are an index into the expansions
MARK = 1 << 29  # joins the word before it
CODE_POINT = (1 << 21) - 1
SPACE = 1 << 31  # of the line table: what str.strip takes off a line's ends
REMOVED = 1 << 30
# Code points that CCNet deletes beside control characters (cc_net/text_normalizer.py)
_CCNET_PUNCTUATION = frozenset("，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►")
_CODE_POINTS = 0x110000
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x312F),  # Han radicals, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xF900, 0xFAFF),
    (0x17000, 0x18DFF),  # Tangut, Khitan
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_FILE = Path(__file__).with_name("fold_tables.npz")


class Fold(NamedTuple):
    """Table of one normalisation, as the kernels take it.

    `table` uint32 (0x110000,): folded code point with flags, or `EXPANDS | index`; expansion i is
    `expansions[starts[i]:starts[i + 1]]` (uint32, with flags).
    """

    table: np.ndarray
    starts: np.ndarray
    expansions: np.ndarray


@functools.cache
def load_fold(normalize: str) -> Fold:
    """Table of a normalisation by name.

    Raises:
        ValueError: for an unknown name.
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize {normalize!r} is unknown; choose one of {', '.join(NORMALIZATIONS)}")
    with np.load(_FILE) as tables:
        steps = tables[f"{normalize}_steps"]
        table = np.cumsum(steps, dtype=np.uint32)
        return Fold(table, tables[f"{normalize}_starts"], tables[f"{normalize}_expansions"])


@functools.cache
def unicode_version() -> str:
    """Unicode version that the tables were made of."""
    with np.load(_FILE) as tables:
        return str(tables["unicode_version"])


@functools.cache
def load_line_fold() -> np.ndarray:
    """CCNet's line normalisation, uint32 (0x110000,): lower case, digits to 0, with `SPACE` and `REMOVED`."""
    with np.load(_FILE) as tables:
        return np.cumsum(tables["ccnet_steps"], dtype=np.uint32)


def fold_character(character: str, normalize: str) -> list[int]:
    """Folded code points of one character, with flags; empty where it separates words. The tables' definition."""
    if normalize == "raw":
        return [] if character.isspace() or character == "\0" else [ord(character)]
    decomposed = unicodedata.normalize("NFKD", character)
    folded = unicodedata.normalize("NFKD", decomposed.casefold())
    kept = [_flagged(part, normalize) for part in folded if unicodedata.category(part)[0] in "LMN"]
    return [part for part in kept if part]


def _flagged(character: str, normalize: str) -> int:
    category = unicodedata.category(character)
    if category[0] == "M":
        return 0 if normalize == "base" else ord(character) | MARK
    if category == "Nd" and normalize != "words":
        return ord("0")
    code_point = ord(character)
    single = category[0] == "L" and any(low <= code_point <= high for low, high in _SPACELESS)
    return code_point | SINGLE if single else code_point


def _make_table(normalize: str) -> Fold:
    table = np.zeros(_CODE_POINTS, np.uint32)
    starts, expansions = [0], []
    for code_point in range(_CODE_POINTS):
        if 0xD800 <= code_point < 0xE000:
            continue
        folded = fold_character(chr(code_point), normalize)
        if len(folded) == 1:
            table[code_point] = folded[0]
        elif folded:
            table[code_point] = EXPANDS | (len(starts) - 1)
            expansions.extend(folded)
            starts.append(len(expansions))
    return Fold(table, np.array(starts, np.int64), np.array(expansions, np.uint32))


def line_fold_character(character: str) -> int:
    """Entry of the line table for one character; the dotted capital I, whose lower case is two, stays itself."""
    code_point = ord(character)
    if unicodedata.category(character) == "Nd":
        return ord("0")
    lower = character.lower()
    entry = ord(lower) if len(lower) == 1 else code_point
    control = code_point < 32 or 127 <= code_point < 160
    removed = REMOVED if control or lower in _CCNET_PUNCTUATION else 0
    return entry | removed | (SPACE if character.isspace() else 0)


def _write_tables() -> None:
    arrays: dict[str, np.ndarray] = {"unicode_version": np.array(unicodedata.unidata_version)}
    for normalize in NORMALIZATIONS:
        fold = _make_table(normalize)
        arrays[f"{normalize}_steps"] = np.diff(fold.table, prepend=np.uint32(0))  # steps compress to a few KiB
        arrays[f"{normalize}_starts"] = fold.starts
        arrays[f"{normalize}_expansions"] = fold.expansions
    lines = [line_fold_character(chr(code_point)) for code_point in range(_CODE_POINTS)]
    arrays["ccnet_steps"] = np.diff(np.array(lines, np.uint32), prepend=np.uint32(0))
    np.savez_compressed(_FILE, allow_pickle=False, **arrays)


if __name__ == "__main__":
    _write_tables()
