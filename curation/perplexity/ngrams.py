# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Count the n-grams of all orders at once: sort the windows of the longest order, and read a trie off the sorted list.

A *window* is the `order` tokens that start at one position, cut after the end of the sentence and padded with 0.
Windows are packed into one to three uint64 words so that comparing integers compares token by token. Sorted windows
with their counts are a depth-first walk of the trie of all n-grams (first token first), so all orders come out of one
sort.

Memory: a run of windows is sorted in memory and spilled when it is full; runs are merged by reading them side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.kernels import kernel

UNKNOWN, BEGIN, END = 0, 1, 2
"""Token ids of `<unk>`, `<s>` and `</s>` inside a model; the others follow in order of first appearance."""

_DIGIT_BITS = 11  # 2,048 counters and write streams stay inside the first-level cache and the TLB


@dataclass(frozen=True)
class Packing:
    """How a window becomes integers: `words` uint64 of `per_word` tokens, each of `bits` bits, first token highest."""

    order: int
    bits: int
    per_word: int
    words: int


def packing(order: int, vocabulary_size: int) -> Packing:
    """Choose the narrowest packing for windows of `order` tokens below `vocabulary_size`."""
    bits = max(1, int(vocabulary_size - 1).bit_length())
    per_word = min(order, 64 // bits)
    return Packing(order, bits, per_word, -(-order // per_word))


@kernel
def _pack(tokens, order, bits, per_word, keys):
    """Write the windows that start at the first tokens into `keys` (windows, words); the others are looked ahead to."""
    for i in range(len(keys)):
        for word in range(keys.shape[1]):
            keys[i, word] = 0
        ended = False
        for j in range(order):
            word = j // per_word
            token = np.uint64(0)
            if not ended and i + j < len(tokens):
                token = np.uint64(tokens[i + j])
                ended = tokens[i + j] == END
            keys[i, word] = (keys[i, word] << np.uint64(bits)) | token


@kernel
def _sort(keys, other, used_bits, digit_bits):
    """Sort rows by counting on one digit after the other, lowest first; True if the result lies in `other`."""
    mask = np.uint64((1 << digit_bits) - 1)
    places = np.zeros(1 << digit_bits, np.int64)
    source, target = keys, other
    swapped = False
    width = keys.shape[1]
    for word in range(width - 1, -1, -1):
        for shift in range(0, used_bits[word], digit_bits):
            places[:] = 0
            for i in range(len(source)):
                places[(source[i, word] >> np.uint64(shift)) & mask] += 1
            total = 0
            constant = False
            for digit in range(len(places)):
                constant = constant or places[digit] == len(source)
                total, places[digit] = total + places[digit], total
            if constant:
                continue
            for i in range(len(source)):
                digit = (source[i, word] >> np.uint64(shift)) & mask
                at = places[digit]
                places[digit] = at + 1
                for column in range(width):
                    target[at, column] = source[i, column]
            source, target = target, source
            swapped = not swapped
    return swapped


@kernel
def _count_equal(keys, counts):
    """Keep one of equal neighbouring rows, in place, and write how many there were; returns the number kept."""
    kept = -1
    for i in range(len(keys)):
        same = kept >= 0
        for column in range(keys.shape[1]):
            same = same and keys[i, column] == keys[kept, column]
        if same:
            counts[kept] += 1
        else:
            kept += 1
            for column in range(keys.shape[1]):
                keys[kept, column] = keys[i, column]
            counts[kept] = 1
    return kept + 1


@kernel
def _less(keys, a, b):
    for column in range(keys.shape[1]):
        if keys[a, column] != keys[b, column]:
            return keys[a, column] < keys[b, column]
    return False


@kernel
def _sift(heap, size, at, keys, cursors):
    """Let the run at `heap[at]` sink until it is not larger than its children."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and _less(keys, cursors[heap[child + 1]], cursors[heap[child]]):
            child += 1
        if not _less(keys, cursors[heap[child]], cursors[heap[at]]):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@kernel
def _merge(keys, counts, cursors, ends, merged_keys, merged_counts):
    """Merge sorted runs until the output is full or all are read; equal rows are added up. Returns rows written.

    The last row of a full output may go on in the next call, so it is held back (its runs are not yet passed).
    """
    heap = np.empty(len(cursors), np.int64)
    size = 0
    for run in range(len(cursors)):
        if cursors[run] < ends[run]:
            heap[size] = run
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift(heap, size, at, keys, cursors)
    written = 0
    while size > 0:
        row = cursors[heap[0]]
        if written == len(merged_keys):
            return written
        for column in range(keys.shape[1]):
            merged_keys[written, column] = keys[row, column]
        total = np.uint32(0)
        while size > 0:
            run = heap[0]
            same = True
            for column in range(keys.shape[1]):
                same = same and keys[cursors[run], column] == merged_keys[written, column]
            if not same:
                break
            total += counts[cursors[run]]
            cursors[run] += 1
            if cursors[run] == ends[run]:
                size -= 1
                heap[0] = heap[size]
            _sift(heap, size, 0, keys, cursors)
        merged_counts[written] = total
        written += 1
    return written


def sorted_run(tokens: np.ndarray, windows: int, shape: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Sort and count the windows that start at the first `windows` tokens.

    Args:
        tokens: token ids, whole sentences as BEGIN … END; `order - 1` more than windows, to look ahead to.
        windows: how many windows to count.
        shape: the packing.

    Returns:
        Distinct windows, ascending, uint64 (rows, words), and how often each was seen, uint32 (rows,).
    """
    keys = np.empty((windows, shape.words), np.uint64)
    other = np.empty_like(keys)
    _pack(tokens, shape.order, shape.bits, shape.per_word, keys)
    lengths = [min(shape.per_word, shape.order - word * shape.per_word) for word in range(shape.words)]
    if _sort(keys, other, np.array(lengths) * shape.bits, _DIGIT_BITS):
        keys, other = other, keys
    del other
    counts = np.empty(windows, np.uint32)
    rows = _count_equal(keys, counts)
    return keys[:rows], counts[:rows]


def write_run(folder: Path, number: int, keys: np.ndarray, counts: np.ndarray) -> int:
    """Append a sorted run to the spill files of `folder`; returns its number of rows."""
    mode = "wb" if number == 0 else "ab"
    for name, values in (("keys.bin", keys), ("counts.bin", counts)):
        with (folder / name).open(mode) as spilled:
            values.tofile(spilled)
    return len(keys)


def merged_runs(
    folder: Path, rows: Sequence[int], shape: Packing, output_rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Merge the spilled runs in ascending order, `output_rows` windows at a time, each window once.

    Memory: the output, and the pages of the spill files that are being read.
    """
    bounds = np.concatenate(([0], np.cumsum(rows)))
    cursors, ends = bounds[:-1].copy(), bounds[1:]
    merged_keys = np.empty((output_rows, shape.words), np.uint64)
    merged_counts = np.empty(output_rows, np.uint32)
    while (cursors < ends).any():
        # opened anew for each piece: pages that were read leave this process's memory
        keys = np.memmap(folder / "keys.bin", np.uint64, "r").reshape(-1, shape.words)
        counts = np.memmap(folder / "counts.bin", np.uint32, "r")
        written = _merge(keys, counts, cursors, ends, merged_keys, merged_counts)
        del keys, counts
        yield merged_keys[:written], merged_counts[:written]


@kernel
def _level_sizes(keys, order, bits, per_word, previous, sizes):
    """Add to `sizes` the n-grams of each order that sorted windows begin; `previous` (order,) carries over calls."""
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(keys)):
        new = False
        for j in range(order):
            word = j // per_word
            last = min(order, (word + 1) * per_word) - 1
            token = (keys[i, word] >> np.uint64(bits * (last - j))) & mask
            new = new or token != previous[j]
            previous[j] = token
            if new and token != 0:
                sizes[j] += 1


@kernel
def _append(  # noqa: PLR0913
    keys, counts, order, bits, per_word, previous, bases, sizes, words, raw, starts
):
    """Append the n-grams that sorted windows begin to the trie, and add their counts.

    n-grams of order j+1 fill `words` and `raw` from `bases[j]` on; `starts[g]` is where the children of n-gram g begin.
    """
    mask = np.uint64((1 << bits) - 1)
    for i in range(len(keys)):
        new = False
        for j in range(order):
            word = j // per_word
            last = min(order, (word + 1) * per_word) - 1
            token = (keys[i, word] >> np.uint64(bits * (last - j))) & mask
            new = new or token != previous[j]
            previous[j] = token
            if token == 0:
                continue
            if new:
                at = bases[j] + sizes[j]
                sizes[j] += 1
                words[at] = token
                raw[at] = 0
                if j + 1 < order:
                    starts[at] = bases[j + 1] + sizes[j + 1]
            raw[bases[j] + sizes[j] - 1] += counts[i]


@dataclass
class Trie:
    """All n-grams of a text, first token first. An n-gram is its place in `words`; those of one order lie together.

    words: last token of each n-gram, uint32. raw: how often it occurs, uint32. starts: where its children begin,
    uint32, one more than there are n-grams below the highest order. bases: first n-gram of each order, and the end
    (order + 1,). N-gram 0 is `<unk>`, which the text never holds; the unigram of token t is n-gram t.
    """

    order: int
    bases: np.ndarray
    words: np.ndarray
    raw: np.ndarray
    starts: np.ndarray

    def level(self, n: int) -> slice:
        """Where the n-grams of order n (from 1) lie."""
        return slice(int(self.bases[n - 1]), int(self.bases[n]))


def count_levels(windows: Iterable[tuple[np.ndarray, np.ndarray]], shape: Packing) -> np.ndarray:
    """How many n-grams of each order sorted windows hold, with `<unk>` among the unigrams: int64 (order,)."""
    previous, sizes = np.zeros(shape.order, np.uint64), np.zeros(shape.order, np.int64)
    sizes[0] = 1
    for keys, _ in windows:
        _level_sizes(keys, shape.order, shape.bits, shape.per_word, previous, sizes)
    return sizes


def append_windows(windows: Iterable[tuple[np.ndarray, np.ndarray]], shape: Packing, trie: Trie) -> None:
    """Fill a trie of the right size (`count_levels`) from sorted windows and their counts."""
    previous, sizes = np.zeros(shape.order, np.uint64), np.zeros(shape.order, np.int64)
    sizes[0] = 1  # <unk> has no children, and no count
    trie.starts[0] = trie.bases[1]
    for keys, counts in windows:
        _append(
            keys, counts, shape.order, shape.bits, shape.per_word,
            previous, trie.bases, sizes, trie.words, trie.raw, trie.starts,
        )  # fmt: skip
    trie.starts[-1] = trie.bases[-1]
    if shape.order == 1:
        trie.starts[:] = trie.bases[-1]
