"""The Unicode table of the text kernels: one uint32 of properties for every code point, and two case foldings.

The table is `unicode.npz` (Unicode 14.0.0, made by `make_tables.py`), the same on every version of Python; so it is
part of the definition of every word and every signal. Kernels get it as an argument: numba would copy a global array
into each compiled kernel.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

# The constants are compiled into every @kernel that uses them; the mention puts this file into their cache's name.
NUM_CODE_POINTS = 0x110000
TABLE_VERSION = 1  # raise when `unicode.npz` changes: part of the version of every step that measures text

# Bits 0-3: the class in word segmentation.
WORD_CLASS = 0xF
SEPARATOR, LETTER, DIGIT, CONNECTOR, CHARACTER = 0, 1, 2, 3, 4
EXTEND, MID_NUMBER_LETTER, MID_LETTER, MID_NUMBER, SYMBOL = 5, 6, 7, 8, 9
# Bits 4-7: the script of a letter.
SCRIPT_SHIFT = 4
NO_SCRIPT, LATIN, HAN, CYRILLIC, GREEK, ARABIC, HEBREW, KANA, HANGUL, THAI, DEVANAGARI, OTHER_SCRIPT = range(12)
# Bits 8 and up: what Python's str methods say (isalpha, \w, isspace, isupper, islower or titlecase, isnumeric), ...
ALPHA, ALNUM, SPACE, UPPER, LOWER, NUMERIC = (1 << bit for bit in range(8, 14))
# ... general categories, and the sets that published filters name.
DECIMAL, NOT_PUNCTUATION, TERMINAL, LINE_BREAK, SENTENCE_END, CLOSING = (1 << bit for bit in range(14, 20))
ANY_PUNCTUATION, ANY_SYMBOL, CONTROL, ASCII_PUNCTUATION = (1 << bit for bit in range(20, 24))


@lru_cache(maxsize=1)
def _file() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("unicode.npz")) as stored:
        return {name: stored[name] for name in stored.files}


def unicode_version() -> str:
    """The Unicode version of the table."""
    return str(_file()["unicode_version"])


def with_tables(version: int) -> int:
    """The version of a step that measures text, with that of the table: itself as long as the table is the first."""
    return version + 1000 * (TABLE_VERSION - 1)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


@lru_cache(maxsize=1)
def property_table() -> np.ndarray:
    """Properties of all code points, uint32 (0x110000,), read-only (4.4 MB, of which a text touches some pages)."""
    stored = _file()
    lengths = np.diff(np.append(stored["run_starts"], NUM_CODE_POINTS))
    return _frozen(np.repeat(stored["run_bits"], lengths))


@lru_cache(maxsize=1)
def lower_table() -> np.ndarray:
    """Simple lower case of all code points, int32 (0x110000,), read-only."""
    table = np.arange(NUM_CODE_POINTS, dtype=np.int32)
    pairs = _file()["lower"]
    table[pairs[:, 0]] = pairs[:, 1]
    return _frozen(table)


@lru_cache(maxsize=1)
def folded_tables() -> tuple[np.ndarray, np.ndarray]:
    """Lower case and NFD of single code points: RedPajama-V2's normalisation, without reordering of marks.

    Returns:
        index: int32 (0x110000,); 0 where a code point stays itself, else the place of its sequence in `pool`.
        pool: int32; at each such place the length of the sequence, then its code points.
    """
    stored = _file()
    lengths = stored["folded_length"].astype(np.int64)
    ends = np.cumsum(lengths)
    pool = [0]
    index = np.zeros(NUM_CODE_POINTS, np.int32)
    for code_point, start, end in zip(stored["folded_from"].tolist(), (ends - lengths).tolist(), ends.tolist()):
        index[code_point] = len(pool)
        pool += [end - start, *stored["folded_to"][start:end].tolist()]
    for syllable in range(11172):  # Hangul syllables decompose by arithmetic: The Unicode Standard, section 3.12
        jamo = [0x1100 + syllable // 588, 0x1161 + syllable % 588 // 28]
        if syllable % 28:
            jamo.append(0x11A7 + syllable % 28)
        index[0xAC00 + syllable] = len(pool)
        pool += [len(jamo), *jamo]
    return _frozen(index), _frozen(np.array(pool, np.int32))
