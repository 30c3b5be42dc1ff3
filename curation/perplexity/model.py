# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""A language model as a folder of memory-mapped arrays that all workers share.

    model.json    order, sizes, discounts, training counts, hash
    nodes.bin     16 bytes per n-gram below the highest order: last token, log10 probability, log10 backoff, start of
                  children; one order after the other, each sorted by its tokens, the first token first
    top.bin       8 bytes per n-gram of the highest order: last token, log10 probability
    unigrams.bin, middle.bin, highest.bin   the same n-grams by hash, for scoring: see `lookup`
    vocabulary.txt  one token per line: <unk>, <s>, </s>, then in order of first appearance
    tokens.bin    what finds a token: uint32 token of every piece id, or (words) sorted uint64 hashes and their tokens

An n-gram's number is its place in nodes.bin, and then top.bin. Its children go from its start to the next one's.
Scoring reads only the arrays by hash; those in order are for ARPA text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.kernels import kernel
from curation.perplexity.estimate import Discount
from curation.perplexity.lookup import LINE, num_lines, write_lookup
from curation.perplexity.ngrams import END, Trie

FORMAT = 2
"""Raised when the files or the meaning of a model folder change."""

NODE = np.dtype([("word", "<u4"), ("probability", "<f4"), ("backoff", "<f4"), ("start", "<u4")])
TOP = np.dtype([("word", "<u4"), ("probability", "<f4")])
_LOOKUP = ("unigrams.bin", "middle.bin", "highest.bin")
_ARRAYS = ("nodes.bin", "top.bin", *_LOOKUP, "tokens.bin", "vocabulary.txt")

_BLOCK = 1 << 20  # n-grams written at a time


class ModelError(ValueError):
    """A model that cannot be read or does not fit its pieces."""


@dataclass(frozen=True)
class Model:
    """An opened model folder; the arrays are memory-mapped and read-only. lookup: unigrams, middle, highest."""

    folder: Path
    order: int
    num_tokens: int
    nodes: np.ndarray
    top: np.ndarray
    lookup: tuple[np.ndarray, np.ndarray, np.ndarray]
    tokens: np.ndarray
    card: dict[str, Any]


@kernel
def _number_kept(first, last, unigrams, raw, threshold, numbers, number):
    """Give the n-grams first…last-1 that are not pruned their new numbers; returns the next one."""
    for gram in range(first, last):
        numbers[gram] = number
        if (unigrams and gram <= END) or raw[gram] > threshold:
            number += 1
    return number


@kernel
def _gather(first, last, numbers, starts, linear, backoff, words, nodes):
    """Copy the kept n-grams of first…last-1 with their new numbers; returns how many."""
    written = 0
    for gram in range(first, last):
        if numbers[gram + 1] == numbers[gram]:
            continue
        nodes[written].word = numbers[words[gram]]
        nodes[written].probability = min(0.0, np.log10(linear[gram]))
        nodes[written].backoff = np.log10(backoff[gram])
        nodes[written].start = numbers[starts[gram]]
        written += 1
    return written


@kernel
def _gather_top(first, last, numbers, linear, words, top):
    written = 0
    for gram in range(first, last):
        if numbers[gram + 1] == numbers[gram]:
            continue
        top[written].word = numbers[words[gram]]
        top[written].probability = min(0.0, np.log10(linear[gram]))
        written += 1
    return written


def write(  # noqa: PLR0913
    folder: Path,
    trie: Trie,
    linear: np.ndarray,
    backoff: np.ndarray,
    numbers: np.ndarray,
    *,
    prune: Sequence[int],
    vocabulary: Sequence[str],
    token_finder: np.ndarray,
    discounts: Sequence[Discount],
    training: dict[str, Any],
) -> dict[str, Any]:
    """Write a model folder and return its card (`model.json`).

    `linear` and `backoff` come from `estimate`; `numbers` is uint32 working space, one more than there are n-grams.
    `prune`: raw counts up to which n-grams of each order are left out. `vocabulary`: token strings as counted.
    `token_finder`: what `tokens.bin` holds, uint32 tokens by piece id, or a structured array of hashes and tokens.
    """
    bases, number, sizes = trie.bases, 0, []
    for n in range(1, trie.order + 1):
        before = number
        number = _number_kept(int(bases[n - 1]), int(bases[n]), n == 1, trie.raw, prune[n - 1], numbers, number)
        sizes.append(int(number - before))
    numbers[bases[-1]] = number
    _write_arrays(folder, trie, linear, backoff, numbers)
    seed = write_lookup(folder, sizes, _mapped(folder / "nodes.bin", NODE), _mapped(folder / "top.bin", TOP))
    kept = numbers[1 : len(vocabulary) + 1] > numbers[: len(vocabulary)]
    names = [name for name, keep in zip(vocabulary, kept) if keep]
    (folder / "vocabulary.txt").write_text("".join(name + "\n" for name in names), encoding="utf-8", newline="\n")
    finder = token_finder.copy()
    tokens = finder if finder.dtype.names is None else finder["token"]
    tokens[...] = np.where(kept, numbers[: len(vocabulary)], 0)[tokens]
    finder.tofile(folder / "tokens.bin")
    card = {
        "format": FORMAT,
        "order": trie.order,
        "ngrams": sizes,
        "ngrams_counted": np.diff(bases).tolist(),
        "prune": list(prune),
        "discounts": [asdict(discount) for discount in discounts],
        "words": finder.dtype.names is not None,
        "token_finder_size": len(finder),
        "hash_seed": seed,
        **training,
        "sha256": arrays_hash(folder),
    }
    (folder / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return card


def _write_arrays(folder: Path, trie: Trie, linear: np.ndarray, backoff: np.ndarray, numbers: np.ndarray) -> None:
    """Write the kept n-grams, a block at a time."""
    num_nodes, num_grams = int(trie.bases[max(trie.order - 1, 1)]), int(trie.bases[-1])
    with (
        (folder / "nodes.bin").open("wb") as nodes_file,
        (folder / "top.bin").open("wb") as top_file,
    ):
        nodes, top = np.empty(_BLOCK, NODE), np.empty(_BLOCK, TOP)
        for first in range(0, num_nodes, _BLOCK):
            last = min(first + _BLOCK, num_nodes)
            written = _gather(first, last, numbers, trie.starts, linear, backoff, trie.words, nodes)
            nodes[:written].tofile(nodes_file)
        np.array([(0, 0.0, 0.0, numbers[num_grams])], NODE).tofile(nodes_file)
        for first in range(num_nodes, num_grams, _BLOCK):
            last = min(first + _BLOCK, num_grams)
            written = _gather_top(first, last, numbers, linear, trie.words, top)
            top[:written].tofile(top_file)


def arrays_hash(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a model folder's arrays."""
    digest = hashlib.sha256()
    for name in _ARRAYS:
        digest.update(f"{name} {(folder / name).stat().st_size}\n".encode())
        with (folder / name).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _mapped(path: Path, dtype: np.dtype[Any], size: int | None = None) -> np.ndarray:
    size_bytes = path.stat().st_size if path.exists() else -1
    size = size_bytes // dtype.itemsize if size is None else size
    if size_bytes != size * dtype.itemsize:
        raise ModelError(
            f"{path}: {size_bytes} bytes, {size * dtype.itemsize} expected; the model folder is damaged, train it again"
        )
    return np.memmap(path, dtype, "r") if size else np.empty(0, dtype)


def read_card(folder: Path) -> dict[str, Any]:
    """Read `model.json` of a model folder."""
    path = Path(folder) / "model.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: no model.json, so this is no language model folder") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); the model folder is damaged, train it again") from error
    if card.get("format") != FORMAT:
        raise ModelError(f"{path}: format {card.get('format')!r}, this version reads {FORMAT}; train the model again")
    return card


def open_model(folder: Path, verify: bool = False) -> Model:
    """Open a model folder for scoring.

    Args:
        folder: as `write` left it.
        verify: also compare the arrays' hash with the card (reads everything once).

    Raises:
        ModelError: a missing, cut or changed file.
    """
    folder = Path(folder)
    card = read_card(folder)
    order, sizes = int(card["order"]), [int(size) for size in card["ngrams"]]
    num_nodes = sum(sizes[: max(order - 1, 1)])
    middle, highest = num_lines(sizes)
    finder = np.dtype([("hash", "<u8"), ("token", "<u4")]) if card["words"] else np.dtype("<u4")
    tokens = folder / "tokens.bin"
    if not tokens.exists():
        raise ModelError(f"{tokens}: missing; the model folder is damaged, train it again")
    model = Model(
        folder=folder,
        order=order,
        num_tokens=sizes[0],
        nodes=_mapped(folder / "nodes.bin", NODE, num_nodes + 1),
        top=_mapped(folder / "top.bin", TOP, sum(sizes) - num_nodes),
        lookup=(
            _mapped(folder / "unigrams.bin", np.dtype("<f4"), 2 * sizes[0]),
            _mapped(folder / "middle.bin", np.dtype("<u4"), LINE * middle),
            _mapped(folder / "highest.bin", np.dtype("<u4"), LINE * highest),
        ),
        tokens=_mapped(tokens, finder, int(card["token_finder_size"])),
        card=card,
    )
    if verify and arrays_hash(folder) != card["sha256"]:
        raise ModelError(f"{folder}: the arrays do not match the hash in model.json; train the model again")
    return model


def read_vocabulary(folder: Path) -> list[str]:
    """Token strings by token."""
    return (Path(folder) / "vocabulary.txt").read_text("utf-8").split("\n")[:-1]
