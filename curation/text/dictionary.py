"""Words of Han text by a dictionary: the most probable path through its words, as jieba without its model.

A dictionary is a file of lines `word frequency [tag]`, as jieba's. In a run of Han letters every sequence of its words
(and of single letters where none begins) has a probability, the product of frequency / sum of all frequencies; the
most probable one is taken, of equal ones the one whose first word is longer. Floats are added in jieba's order, so the
words of a run equal `jieba.cut(run, HMM=False)`. Runs are of U+4E00 to U+9FD5, jieba's range, three bytes a letter.

The words stand in a trie whose nodes are the places of one hash table, 16 bytes each: a child is found by its parent's
place and its letter. It is built once a dictionary and kept beside the compiled kernels, memory-mapped, so workers
share its pages. jieba's 349,046 words take 17 MB and 2 s to build.
"""

# mypy: disable-error-code="assignment, return-value, no-any-return, arg-type, operator"
# (numba infers the types inside kernels; the annotations tell readers what is passed)
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import shutil
import uuid
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curation.kernels import cache_folder, kernel, prefetch
from curation.text.segment import Array, frozen

SEGMENTATION = "Han by dictionary, most probable path (1)"
FIRST_HAN, LAST_HAN = 0x4E00, 0x9FD5
_STORED = ("first", "nodes", "unknown")
_PARENT, _LETTER = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd, of the hash of a node
_AHEAD = 6  # letters from the one looked at to the one whose memory is asked for
_BUILD = 1  # raise when the arrays of a dictionary change
NO_JOINS = frozen(np.zeros(0, np.uint8))  # Han letters are words of their own


class DictionaryError(ValueError):
    """A dictionary that cannot be used: the file, the line and what it wants."""


class Dictionary(NamedTuple):
    """A dictionary's words as a trie in a hash table, read-only.

    first: int32 (LAST_HAN - FIRST_HAN + 1,), place of the word or beginning that is one letter, -1 for none.
    nodes: int32 (4 * places,), of each place: its parent's place (-1: free), its letter, and 8 bytes of its weight.
    weights: float64 (2 * places,), the same memory: at odd places the log of a word's probability, -inf for none.
    unknown: float64 (1,), that of a letter which is no word.
    """

    first: Array
    nodes: Array
    weights: Array
    unknown: Array


def installed_dictionary() -> Path:
    """The dictionary that the package jieba ships; it is not imported.

    Raises:
        DictionaryError: where it is not installed.
    """
    found = importlib.util.find_spec("jieba")
    places = list(found.submodule_search_locations or ()) if found else []
    path = Path(places[0]) / "dict.txt" if places else None
    if path is None or not path.is_file():
        raise DictionaryError("the package jieba is not installed: `pip install jieba`, or name a dictionary's file")
    return path


def named_dictionary(han: str) -> Path | None:
    """The file of the words of Han text by its name: `characters` has none, `jieba` is that of the package.

    Raises:
        DictionaryError: where the package is not installed.
    """
    if han == "characters":
        return None
    return installed_dictionary() if han == "jieba" else Path(han)


@lru_cache(maxsize=4)
def load_dictionary(path: str | Path) -> Dictionary:
    """Read a dictionary: from the cache where it was built before, by the file's content, else built and put there.

    Building takes about 2 s for jieba's 5 MB; reading from the cache a few ms.

    Raises:
        DictionaryError: for a line that is not `word frequency [tag]`, or a file without words of Han letters.
    """
    raw = Path(path).read_bytes()
    name = hashlib.blake2b(raw + str(_BUILD).encode(), digest_size=12).hexdigest()
    folder = cache_folder() / f"dictionary-{name}"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return _seen_twice(*(np.load(folder / f"{field}.npy", mmap_mode="r") for field in _STORED))
    built = _build(*_read(raw, str(path)))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no result
        _store(built, folder)
    return built


def _seen_twice(first: Array, nodes: Array, unknown: Array) -> Dictionary:
    """The dictionary of some arrays; its weights are seen through the nodes."""
    return Dictionary(*map(frozen, map(np.asarray, (first, nodes, nodes.view(np.float64), unknown))))


def _store(built: Dictionary, folder: Path) -> None:
    """Put the arrays in place by one rename; who comes second leaves the first's."""
    made = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    made.mkdir(parents=True)
    try:
        for field in _STORED:
            np.save(made / f"{field}.npy", getattr(built, field))
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _read(raw: bytes, path: str) -> tuple[dict[str, int], int]:
    """Frequencies of the words of Han letters, of a word that stands twice its last; and the sum of all lines'."""
    words: dict[str, int] = {}
    total = 0
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip():
            continue
        try:
            word, frequency = line.decode().strip().split(" ")[:2]
            count = int(frequency)
        except ValueError:
            count = -1
        if count < 0:
            shown = line[:60].decode(errors="replace")
            raise DictionaryError(f"{path}:{number}: {shown!r} is not `word frequency [tag]`, such as `磨坊 12 n`")
        total += count
        if all(FIRST_HAN <= ord(letter) <= LAST_HAN for letter in word):
            words[word] = count
    if not words or not total:
        raise DictionaryError(
            f"{path}: no words of Han letters with a frequency; it wants lines `word frequency [tag]`"
        )
    return words, total


def _build(words: dict[str, int], total: int) -> Dictionary:
    """The trie of some words with their frequencies. Memory: about 200 bytes a word while it is built."""
    ordered = sorted(words)
    spelled = np.frombuffer("".join(ordered).encode("utf-16-le"), np.uint16).astype(np.int64) - FIRST_HAN
    ends = np.cumsum([0, *map(len, ordered)])
    log_total = math.log(total)
    weights = np.array([math.log(words[w]) - log_total if words[w] else -math.inf for w in ordered])
    shared = _shared(spelled, ends)
    places = 1 << max(4, int(2 * (ends[-1] - shared.sum()) - 1).bit_length())  # at most half of them are taken
    nodes = np.full(4 * places, -1, np.int32)
    first = np.full(LAST_HAN - FIRST_HAN + 1, -1, np.int32)
    _insert(spelled, ends, shared, weights, Dictionary(first, nodes, nodes.view(np.float64), weights))
    return _seen_twice(first, nodes, np.array([math.log(1) - log_total]))


@kernel
def _shared(spelled: Array, ends: Array) -> Array:
    """Letters that each word has in common with the one before, int64."""
    shared = np.zeros(ends.shape[0] - 1, np.int64)
    for k in range(1, ends.shape[0] - 1):
        before, here = ends[k - 1], ends[k]
        while shared[k] < min(here - before, ends[k + 1] - here):
            if spelled[before + shared[k]] != spelled[here + shared[k]]:
                break
            shared[k] += 1
    return shared


@kernel
def _insert(spelled: Array, ends: Array, shared: Array, weights: Array, words: Dictionary) -> None:
    """Put sorted words into an empty trie; a place's parent is put in before it."""
    path = np.zeros(spelled.shape[0] + 1, np.int64)  # place by depth
    for k in range(shared.shape[0]):
        length = ends[k + 1] - ends[k]
        for depth in range(shared[k], length):
            letter = spelled[ends[k] + depth]
            parent = path[depth - 1] if depth else np.int64(words.first.shape[0])  # of one letter: no place has it
            place = _slot(words.nodes, parent, letter)
            words.nodes[4 * place], words.nodes[4 * place + 1] = parent, letter
            words.weights[2 * place + 1] = -np.inf
            path[depth] = place
            if depth == 0:
                words.first[letter] = place
        words.weights[2 * path[length - 1] + 1] = weights[k]


@kernel
def _hashed(nodes: Array, parent: int, letter: int) -> int:
    """Where the search for a node begins."""
    value = np.uint64(parent) * np.uint64(_PARENT) + np.uint64(letter) * np.uint64(_LETTER)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(_LETTER)
    return np.int64((value >> np.uint64(24)) & np.uint64(nodes.shape[0] // 4 - 1))


@kernel
def _slot(nodes: Array, parent: int, letter: int) -> int:
    """Place of the child of `parent` by `letter`, or the free one where it would stand."""
    mask = nodes.shape[0] // 4 - 1
    place = _hashed(nodes, parent, letter)
    while nodes[4 * place] != -1 and (nodes[4 * place] != parent or nodes[4 * place + 1] != letter):
        place = (place + 1) & mask
    return place


# ---------------------------------------------------------------- cutting text


@kernel
def _letter(buf: Array, i: int, end: int) -> int:
    """Number of the Han letter at byte `i`, from 0, or -1 where there is none (or no whole one)."""
    if i + 2 >= end or not 0xE4 <= buf[i] <= 0xE9:
        return -1
    found = (np.int64(buf[i]) & 0x0F) << 12 | (np.int64(buf[i + 1]) & 0x3F) << 6 | np.int64(buf[i + 2]) & 0x3F
    return found - FIRST_HAN if FIRST_HAN <= found <= LAST_HAN else -1


class _Scratch(NamedTuple):
    """Of one run: its letters (int32), log probability of the best path from each on, letters of its first word."""

    letters: Array
    best: Array
    lengths: Array


@kernel
def _join_run(buf: Array, start: int, count: int, words: Dictionary, scratch: _Scratch, joined: Array) -> None:
    """Mark the letters of one run of `count` letters that go on a word."""
    letters, best, lengths = scratch
    nodes, weights = words.nodes, words.weights
    for k in range(count):
        letters[k] = _letter(buf, start + 3 * k, start + 3 * count)
    best[count] = 0.0
    for k in range(count - 1, -1, -1):
        if k >= _AHEAD:  # ask early for the first two letters of a path that is walked soon
            parent = np.int64(words.first[letters[k - _AHEAD]])
            prefetch(nodes, 4 * _hashed(nodes, parent, letters[k - _AHEAD + 1]))
        most, length, j = -np.inf, 1, k
        place = np.int64(words.first[letters[k]])
        while place >= 0:
            j += 1
            value = weights[2 * place + 1] + best[j]
            if value >= most and value > -np.inf:
                most, length = value, j - k
            if j == count:
                break
            place = _slot(nodes, place, letters[j])
            if nodes[4 * place] == -1:
                break
        best[k], lengths[k] = most if most > -np.inf else words.unknown[0] + best[k + 1], length
    k = 0
    while k < count:
        for j in range(k + 1, k + lengths[k]):
            joined[start + 3 * j] = 1
        k += lengths[k]


@kernel
def _runs(buf: Array, start: int, end: int, words: Dictionary, scratch: _Scratch, joined: Array) -> int:
    """Letters of a text's longest run; with room for it in `scratch`, its words are marked, too."""
    longest, i = 0, start
    while i < end:
        if buf[i] < 0xE4 or _letter(buf, i, end) < 0:
            i += 1
            continue
        first = i
        while _letter(buf, i, end) >= 0:
            i += 3
        longest = max(longest, (i - first) // 3)
        if scratch.best.shape[0]:
            _join_run(buf, first, (i - first) // 3, words, scratch, joined)
    return longest


@kernel
def _scratch(count: int) -> _Scratch:
    return _Scratch(np.empty(count, np.int32), np.empty(count, np.float64), np.empty(count, np.int32))


@kernel
def _join_rows(buf: Array, offsets: Array, present: Array, words: Dictionary, joined: Array) -> None:
    longest, none = 0, _scratch(0)
    for row in range(present.shape[0]):
        if present[row]:
            longest = max(longest, _runs(buf, offsets[row], offsets[row + 1], words, none, joined))
    scratch = _scratch(longest + 1)
    for row in range(present.shape[0]):
        if present[row]:
            _runs(buf, offsets[row], offsets[row + 1], words, scratch, joined)


def joined_letters(content: Array, offsets: Array, present: Array, words: Dictionary | None) -> Array:
    """Which Han letters go on a word that begins before them.

    Args:
        content: UTF-8 bytes of row-aligned texts, uint8.
        offsets: int64 (rows + 1,).
        present: bool (rows,): false where a text is null.
        words: the dictionary; None: every Han letter is a word.

    Returns:
        uint8, read-only, 1 at the first byte of each such letter; empty without a dictionary. Memory: a byte for each
        of `content`, and 16 bytes for each letter of the longest run.
    """
    if words is None:
        return NO_JOINS
    joined = np.zeros(len(content), np.uint8)
    _join_rows(content, offsets, present, words, joined)
    return frozen(joined)


def cut(text: str, words: Dictionary) -> list[str]:
    """Words of one text: runs of Han letters by the dictionary, everything else left whole between them."""
    raw = frozen(np.frombuffer(text.encode(), np.uint8))
    joined = joined_letters(raw, frozen(np.array([0, len(raw)])), frozen(np.ones(1, bool)), words)
    pieces, i = [], 0
    starts = [k for k in range(len(raw)) if raw[k] & 0xC0 != 0x80]
    han = [_letter(raw, k, len(raw)) >= 0 for k in starts]
    bounds = [k for n, k in enumerate(starts) if not joined[k] and (han[n] or (n and han[n - 1]))]
    for stop in [*bounds, len(raw)]:
        if stop > i:
            pieces.append(raw[i:stop].tobytes().decode())
        i = stop
    return pieces
