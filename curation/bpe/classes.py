r"""Which code points the patterns of tokenizers mean by `\p{L}`, `\s` and so on.

Unicode grows, and engines follow at their own time: a table of another version would cut some new script elsewhere. So
`classes.npz` was read off the `tokenizers` library itself, by asking it for every code point, and holds for the version
named in it; under another version the library is asked again (some 20 s) and its answer kept in the cache folder.

    python -m curation.bpe.classes        # ask the installed library and write classes.npz
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, pre_tokenizers

from curation.kernels import cache_folder

NUM_CODE_POINTS = 0x110000  # a `@kernel` of `curation.bpe.parts` compiles it in: this file counts for their cache
LETTER, MARK, NUMBER, HAN, SPACE, PUNCTUATION, SYMBOL = (1 << bit for bit in range(7))
_PATTERNS = {
    LETTER: r"\p{L}",
    MARK: r"\p{M}",
    NUMBER: r"\p{N}",
    HAN: r"\p{Han}",
    SPACE: r"\s",
    PUNCTUATION: r"\p{P}",
    SYMBOL: r"\p{S}",
}
_FILE = Path(__file__).with_name("classes.npz")


@lru_cache(maxsize=1)
def class_table() -> np.ndarray:
    """Classes of all code points as bits, uint8 (0x110000,), read-only."""
    asked = cache_folder() / f"classes-{tokenizers.__version__}.npz"
    table = _stored(_FILE)
    if table is None:
        table = _stored(asked)
    if table is None:
        table = ask_library()
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no result
            _store(table, asked)
    table.setflags(write=False)
    return table


def _stored(path: Path) -> np.ndarray | None:
    """The table of a file, if it is there and of the installed library."""
    if not path.exists():
        return None
    with np.load(path) as stored:
        known = str(stored["library"]) == tokenizers.__version__
        return from_runs(stored["starts"], stored["bits"]) if known else None


def _store(table: np.ndarray, path: Path) -> None:
    starts, bits = to_runs(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}-{os.getpid()}.npz")
    np.savez_compressed(unfinished, starts=starts, bits=bits, library=tokenizers.__version__)
    unfinished.replace(path)


def ask_library() -> np.ndarray:
    """The table as the installed library has it, uint8 (0x110000,)."""
    characters = "".join(chr(code) for code in range(NUM_CODE_POINTS) if not 0xD800 <= code < 0xE000)
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for bit, pattern in _PATTERNS.items():
        matches = pre_tokenizers.Split(Regex(pattern + "+"), "removed", invert=True).pre_tokenize_str(characters)
        for found, (start, stop) in matches:
            if start != stop:  # a run across the surrogates, which no text has, is cut there
                first, last = ord(found[0]), ord(found[-1])
                assert last - first == stop - start - 1, (pattern, hex(first))
                table[first : last + 1] |= bit
    return table


def to_runs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First code point and bits of each run of equal bits."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(table)) + 1)).astype(np.int32)
    return starts, table[starts]


def from_runs(starts: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The table of `to_runs`, uint8 (0x110000,)."""
    return np.repeat(bits, np.diff(np.append(starts, NUM_CODE_POINTS)))


if __name__ == "__main__":
    _store(ask_library(), _FILE)
