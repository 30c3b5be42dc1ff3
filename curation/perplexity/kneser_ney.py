"""Train an n-gram model from pip alone: token stream -> sorted windows -> trie -> discounts -> model folder.

Everything that grows with the text lies in arrays that are held in memory where they fit `memory`, else in mapped
files of a working folder. Steps that walk them go front to back, or through links, which rise within each first
token.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from curation.perplexity import model
from curation.perplexity.estimate import EstimationError, adjust, check_pruning, discounts, estimate, link
from curation.perplexity.ngrams import (
    END,
    Packing,
    Trie,
    append_windows,
    count_levels,
    merged_runs,
    packing,
    sorted_run,
    write_run,
)

MAX_ORDER = 6
_BYTES_PER_GRAM = 28  # words, raw, starts, links, adjusted, probability, backoff or number
_LIMIT = 1 << 32  # tokens and n-grams are numbered in 32 bits


@dataclass(frozen=True)
class Options:
    """How to estimate: `order` 1-6; `prune` raw counts dropped per order; `fallback` discounts for small or odd text;
    `memory` in bytes for what is sorted and held at once.
    """

    order: int = 5
    prune: tuple[int, ...] = ()
    fallback: bool = True
    memory: int = 2 << 30


class Named(Protocol):
    """Who numbered the tokens: `vocabulary`, token strings by token; `finder`, as in a model's `tokens.bin`."""

    vocabulary: list[str]

    @property
    def finder(self) -> np.ndarray:
        """What scoring finds tokens by."""
        ...


class _Arrays:
    """Arrays that grow with the text: in memory where all of them fit, else mapped files of a folder."""

    def __init__(self, folder: Path, in_memory: bool):
        self.folder, self.in_memory = folder, in_memory

    def zeros(self, name: str, dtype: str, size: int) -> np.ndarray:
        if self.in_memory or size == 0:
            return np.zeros(size, dtype)
        return np.memmap(self.folder / name, dtype, "w+", shape=(size,))


def train(
    sentences: Iterable[np.ndarray],
    named: Named,
    options: Options,
    folder: Path,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Estimate an interpolated modified Kneser-Ney model and write its folder.

    Args:
        sentences: arrays of token ids (uint32), whole sentences as BEGIN … END; tokens numbered by first appearance.
        named: token strings and how scoring finds them; read after the sentences, so it may grow while they are made.
        options: order, pruning, memory.
        folder: where to write; a subfolder `work` is used and removed.
        about: more for the card (training text, licence, pieces).

    Returns:
        The card, as in `model.json`.

    Raises:
        EstimationError: no text, an order out of range, thresholds that fall, or too many tokens.
    """
    if not 1 <= options.order <= MAX_ORDER:
        raise EstimationError(f"order {options.order}: 1 to {MAX_ORDER} are supported")
    prune = check_pruning(options.prune, options.order)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        num_tokens = _spool(sentences, work / "tokens.bin")
        shape = packing(options.order, len(named.vocabulary))
        trie, arrays = _count(work, num_tokens, shape, options.memory)
        num_grams = int(trie.bases[-1])
        links = arrays.zeros("links.bin", "u4", num_grams)
        link(trie, links)
        adjusted = arrays.zeros("adjusted.bin", "u4", num_grams)
        adjust(trie, links, adjusted)
        taken = discounts(trie, links, adjusted, options.fallback)
        linear = arrays.zeros("linear.bin", "f4", num_grams)
        backoff = arrays.zeros("backoff.bin", "f4", int(trie.bases[max(options.order - 1, 1)]))
        backoff[: trie.bases[1]] = 1.0
        estimate(trie, links, adjusted, taken, prune, linear, backoff)
        del adjusted, links
        numbers = arrays.zeros("numbers.bin", "u4", num_grams + 1)
        sentences_read = int(trie.raw[END])
        training = {"tokens": num_tokens - 2 * sentences_read, "sentences": sentences_read, **(about or {})}
        return model.write(
            folder, trie, linear, backoff, numbers,
            prune=prune, vocabulary=named.vocabulary, token_finder=named.finder, discounts=taken, training=training,
        )  # fmt: skip
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _spool(sentences: Iterable[np.ndarray], path: Path) -> int:
    """Write the token stream to a file; returns its length."""
    num_tokens = 0
    with path.open("wb") as stream:
        for tokens in sentences:
            tokens.astype(np.uint32, copy=False).tofile(stream)
            num_tokens += len(tokens)
    if num_tokens == 0:
        raise EstimationError("no sentences to train on: the training text is empty")
    if num_tokens >= _LIMIT:
        raise EstimationError(f"{num_tokens} tokens: at most {_LIMIT - 1} can be counted; train on a sample")
    return num_tokens


@dataclass(frozen=True)
class _Windows:
    """The sorted distinct windows of a text with their counts: one run in memory, or several in spill files."""

    work: Path
    shape: Packing
    run: tuple[np.ndarray, np.ndarray] | None
    run_rows: tuple[int, ...]
    output_rows: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self.run is not None:
            return iter([self.run])
        return merged_runs(self.work, self.run_rows, self.shape, self.output_rows)


def _sort_windows(work: Path, num_tokens: int, shape: Packing, memory: int) -> _Windows:
    """Sort the windows of the whole stream, in runs whose two buffers keep within `memory`."""
    at_once = max(1 << 12, memory // (2 * 8 * shape.words + 4 + 4))
    rows: list[int] = []
    for start in range(0, num_tokens, at_once):
        windows = min(at_once, num_tokens - start)
        ahead = min(windows + shape.order - 1, num_tokens - start)
        tokens = np.fromfile(work / "tokens.bin", np.uint32, ahead, offset=4 * start)
        keys, counts = sorted_run(tokens, windows, shape)
        if windows == num_tokens:
            return _Windows(work, shape, (keys, counts), (), 0)
        rows.append(write_run(work, len(rows), keys, counts))
    return _Windows(work, shape, None, tuple(rows), max(1 << 10, at_once // 4))


def _count(work: Path, num_tokens: int, shape: Packing, memory: int) -> tuple[Trie, _Arrays]:
    """Count all n-grams: one pass over the sorted windows for the sizes, one that builds the trie."""
    windows = _sort_windows(work, num_tokens, shape, memory // 2)
    bases = np.concatenate(([0], np.cumsum(count_levels(windows, shape))))
    num_grams = int(bases[-1])
    if num_grams >= _LIMIT:
        raise EstimationError(f"{num_grams} n-grams: at most {_LIMIT - 1} can be numbered; train on a sample")
    arrays = _Arrays(work, in_memory=_BYTES_PER_GRAM * num_grams <= memory // 2)
    trie = Trie(
        shape.order,
        bases,
        words=arrays.zeros("words.bin", "u4", num_grams),
        raw=arrays.zeros("raw.bin", "u4", num_grams),
        starts=arrays.zeros("starts.bin", "u4", int(bases[max(shape.order - 1, 1)]) + 1),
    )
    append_windows(windows, shape, trie)
    return trie, arrays
