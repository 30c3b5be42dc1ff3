# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""n-grams by hash: what scoring asks, in lines of 64 bytes, so that one look costs one line of memory.

A line is 16 uint32. In `middle.bin` (orders between the first and the highest) it has five n-grams: fingerprints at
0-4, log10 probabilities (float32) at 5-9, log10 backoffs at 10-14; in `highest.bin` seven: fingerprints at 0-6,
probabilities at 7-13. 15 is 1 when an n-gram that belongs here had to go into a later line. An empty slot is 0.

The hash of an n-gram is made token by token from the first one; its upper half names the line, its lower half is the
fingerprint. The hashes of all orders at a place need no look-up, so their lines are asked from memory many tokens
before they are read: a chain of searches, each of which waits for the one before, took twice as long. No two n-grams
of a model share line and fingerprint (another seed is tried until that is so). An n-gram that the model does not hold
is taken for one of its n-grams once in some 10^9 looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curation.kernels import inline_kernel, kernel, prefetch
from curation.perplexity.ngrams import BEGIN, END

LINE = 16  # uint32 a line
MIDDLE, HIGHEST = 5, 7  # slots of a line
_FILL = {MIDDLE: 3.5, HIGHEST: 5.0}  # n-grams a line; fuller lines (3.6, 5.2) are looked past twice as often
_BLOCK = 64  # tokens whose lines are asked for together: they arrive within the time of some tokens
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_SEEDS = 64


class HashError(RuntimeError):
    """No seed was found under which all n-grams can be told apart."""


@inline_kernel
def _step(value, token):
    """Hash of an n-gram from that of the tokens before its last one."""
    value = (value ^ (np.uint64(token) + np.uint64(1))) * np.uint64(0x9FB21C651E98DF25)
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(29))


@inline_kernel
def _place(value, lines):
    """First uint32 of the line that a hash names."""
    return (((value >> np.uint64(32)) * lines) >> np.uint64(32)) * np.uint64(16)


@inline_kernel
def _fingerprint(value):
    """Lower half of a hash, never 0."""
    return np.uint32(max(value & np.uint64(0xFFFFFFFF), np.uint64(1)))


@inline_kernel
def _find(table, at, fingerprint, slots):
    """Place of a fingerprint from the line at `at` on, or `_NONE`."""
    while True:
        found = -1
        for slot in range(slots):
            if table[at + np.uint64(slot)] == fingerprint:
                found = slot
        if found >= 0:
            return at + np.uint64(found)
        if table[at + np.uint64(15)] == 0:
            return np.uint64(0xFFFFFFFFFFFFFFFF)
        at += np.uint64(16)
        if at >= np.uint64(len(table)):
            at = np.uint64(0)


@kernel
def _insert(table, at, fingerprint, slots):
    """Put a fingerprint into the first free slot from the line at `at` on; its place, or -1 where it stands already."""
    while True:
        for slot in range(slots):
            if table[at + slot] == fingerprint:
                return -1
            if table[at + slot] == 0:
                table[at + slot] = fingerprint
                return at + slot
        table[at + 15] = 1
        at += 16
        if at >= len(table):
            at = 0


@kernel
def _fill(first, last, n, walk, nodes, top, seed, table, values):  # noqa: PLR0913
    """Put the n-grams first…last-1, all of order n, into a table; False where two cannot be told apart.

    walk: an n-gram of each order at or before the first one, as the prefix of order 1, 2, …; values: the table's bytes
    as float32.
    """
    num_nodes = len(nodes) - 1
    in_middle = first < num_nodes
    slots = 5 if in_middle else 7
    lines = np.uint64(len(table) // 16)
    previous, hashes = np.full(n, -1, np.int64), np.zeros(n, np.uint64)
    places, fingerprints = np.empty(64, np.int64), np.empty(64, np.uint32)
    for begin in range(first, last, 64):
        end = min(begin + 64, last)
        for gram in range(begin, end):
            walk[n - 1] = gram
            for level in range(n - 2, -1, -1):
                while nodes[walk[level] + 1].start <= walk[level + 1]:
                    walk[level] += 1
            changed = False
            for level in range(n):
                changed = changed or walk[level] != previous[level]
                if changed:
                    previous[level] = walk[level]
                    word = nodes[walk[level]].word if walk[level] < num_nodes else top[walk[level] - num_nodes].word
                    hashes[level] = _step(hashes[level - 1] if level > 0 else np.uint64(seed), word)
            places[gram - begin] = _place(hashes[n - 1], lines)
            fingerprints[gram - begin] = _fingerprint(hashes[n - 1])
            prefetch(table, places[gram - begin])
        for gram in range(begin, end):
            at = _insert(table, places[gram - begin], fingerprints[gram - begin], slots)
            if at < 0:
                return False
            if in_middle:
                values[at + 5] = nodes[gram].probability
                values[at + 10] = nodes[gram].backoff
            else:
                values[at + 7] = top[gram - num_nodes].probability
    return True


def num_lines(sizes: Sequence[int]) -> tuple[int, int]:
    """Lines of `middle.bin` and `highest.bin` for n-grams of order 1, 2, …"""
    highest = sizes[-1] if len(sizes) > 1 else 0
    return int(sum(sizes[1:-1]) / _FILL[MIDDLE]) + 1, int(highest / _FILL[HIGHEST]) + 1


def write_lookup(folder: Path, sizes: Sequence[int], nodes: np.ndarray, top: np.ndarray) -> int:
    """Write `unigrams.bin`, `middle.bin` and `highest.bin` of a model, mapped; returns the seed of the hash.

    Args:
        folder: the model's folder.
        sizes: n-grams of each order.
        nodes: the trie below the highest order, as in `nodes.bin`.
        top: its n-grams of the highest order, as in `top.bin`.
    """
    unigrams = np.stack([nodes["probability"][: sizes[0]], nodes["backoff"][: sizes[0]]], axis=1)
    unigrams.astype("<f4").tofile(folder / "unigrams.bin")
    bases = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    for attempt in range(_SEEDS):
        seed = np.uint64((0x243F6A8885A308D3 + attempt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
        tables = [
            np.memmap(folder / name, "<u4", "w+", shape=(LINE * lines,))
            for name, lines in zip(("middle.bin", "highest.bin"), num_lines(sizes), strict=True)
        ]
        done = True
        for n in range(2, len(sizes) + 1):
            table = np.asarray(tables[n == len(sizes)])
            walk = bases[: len(sizes)].copy()
            done = done and _fill(bases[n - 1], bases[n], n, walk, nodes, top, seed, table, table.view("<f4"))
        if done:
            return int(seed)
    raise HashError(f"{folder}: two of {bases[-1]} n-grams have the same hash under each of {_SEEDS} seeds")


@kernel
def score_lines(  # noqa: C901, PLR0913
    ids, offsets, tokens, unigrams, middle, middle_values, highest, highest_values, order, longest, seed, single, scores
):
    """log10 probability of each line with its end, after `<s>`.

    ids, offsets: tokens of the lines, as places in `tokens`; unigrams: log10 probability and backoff of each token by
    turns. longest: longest n-gram that is asked for, at most the model's order. `single`: add up in float32 in KenLM's
    order, to give its very numbers; else in float64.

    First the hashes of all n-grams that end at the tokens of a block, whose lines are asked for; then their scores.
    """
    order, most_context = np.uint64(order), np.uint64(longest - 1)
    middle_lines, highest_lines = np.uint64(len(middle) // 16), np.uint64(len(highest) // 16)
    words, ended = np.empty(64, np.uint64), np.empty(64, np.int64)  # token; line that it ends, or -1
    starts = np.empty(64, np.bool_)
    places, fingerprints = np.empty(64 * 8, np.uint64), np.empty(64 * 8, np.uint32)
    hashes = np.zeros(8, np.uint64)  # of the n-grams that end at the token before, by order
    backoffs, next_backoffs = np.zeros(8, np.float32), np.zeros(8, np.float32)
    context = np.uint64(1)  # longest n-gram, below the highest order, that ends at the token before
    total, total_single = 0.0, np.float32(0.0)
    begin_hash = _step(np.uint64(seed), np.uint64(BEGIN))
    line, num_rows = np.uint64(0), np.uint64(len(offsets) - 1)
    at = np.uint64(offsets[0])
    end = at
    fresh = True
    while line < num_rows:
        count = np.uint64(0)
        while count < np.uint64(64) and line < num_rows:
            starts[count] = fresh
            if fresh:
                end = np.uint64(offsets[line + np.uint64(1)])
                hashes[:] = np.uint64(0)
                hashes[1] = begin_hash
                fresh = False
            ended[count] = -1
            if at < end:
                word = np.uint64(tokens[np.uint64(ids[at])])
                at += np.uint64(1)
            else:
                word = np.uint64(END)
                ended[count] = line
                line += np.uint64(1)
                fresh = True
            words[count] = word
            row = count * np.uint64(8)
            n = order
            while n > np.uint64(1):
                value = _step(hashes[n - np.uint64(1)], word)
                hashes[n] = value
                fingerprints[row + n] = _fingerprint(value)
                if n == order:
                    places[row + n] = _place(value, highest_lines)
                    prefetch(highest, places[row + n])
                else:
                    places[row + n] = _place(value, middle_lines)
                    prefetch(middle, places[row + n])
                n -= np.uint64(1)
            hashes[1] = _step(np.uint64(seed), word)
            count += np.uint64(1)
        for token in range(count):
            i = np.uint64(token)
            if starts[i]:
                context = min(np.uint64(1), most_context)
                backoffs[1] = unigrams[np.uint64(2 * BEGIN + 1)]
                total, total_single = 0.0, np.float32(0.0)
            row = i * np.uint64(8)
            probability = unigrams[np.uint64(2) * words[i]]
            next_backoffs[1] = unigrams[np.uint64(2) * words[i] + np.uint64(1)]
            matched = np.uint64(1)
            while matched <= context:
                n = matched + np.uint64(1)
                if n == order:
                    found = _find(highest, places[row + n], fingerprints[row + n], 7)
                    if found != _NONE:
                        probability = highest_values[found + np.uint64(7)]
                        matched = n
                    break
                found = _find(middle, places[row + n], fingerprints[row + n], 5)
                if found == _NONE:
                    break
                probability = middle_values[found + np.uint64(5)]
                next_backoffs[n] = middle_values[found + np.uint64(10)]
                matched = n
            n = matched
            while n <= context:
                probability += backoffs[n]
                n += np.uint64(1)
            context = min(matched, most_context)
            n = np.uint64(1)
            while n <= context:
                backoffs[n] = next_backoffs[n]
                n += np.uint64(1)
            total += probability
            total_single += probability
            if ended[i] >= 0:
                scores[ended[i]] = total_single if single else total
