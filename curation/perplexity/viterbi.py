# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Kernels of unigram encoding: a double-array trie of pieces, normalising, and the best way through each text.

Source: SentencePiece's `EncodeOptimized` (Kudo 2018, arXiv:1804.10959), with its order and its roundings to float32.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import eight_bytes, kernel, prefetch
from curation.perplexity.normalize import code_point

_MOST_PIECES = 13  # of a word that is remembered: it fits a line of 64 bytes
NODE = np.dtype([("check", "<i4"), ("base", "<i4"), ("piece", "<i4"), ("score", "<f4")])
NEW, PLAIN, HARD, REPLACED = 0, 1, 2, 3  # classes of characters; from REPLACED on, the number of a replacement


@kernel
def _fit(used, children, first_free):
    """Least base, with its first child not before `first_free`, from which all children fall on free places."""
    base = max(first_free - np.int64(children[0]), 1)
    while True:
        fits = True
        for byte in children:
            if used[base + byte]:
                fits = False
                break
        if fits:
            return base
        base += 1


@kernel
def build_trie(pool, places, pieces, scores, nodes, used):
    """Fill a double-array trie from sorted, distinct byte strings; returns the number of places used, or -1 if full.

    Worked breadth-first: a queue of (place, first string, last string, depth).
    """
    count = len(pieces)
    queue = np.empty((len(pool) + 2, 4), np.int64)
    queue[0] = np.array([0, 0, count, 0])
    head, tail = 0, 1
    used[0] = True
    highest = 1
    first_free = 257  # lower places could not be reached by every byte, and would be looked at for ever
    many_free = 257  # where nodes with several children look: searching the dense part again each time is quadratic
    children = np.empty(256, np.int64)
    firsts = np.empty(257, np.int64)
    while head < tail:
        place, first, last, depth = queue[head]
        head += 1
        if places[first] + depth == places[first + 1]:
            nodes[place].piece = pieces[first]
            nodes[place].score = scores[first]
            first += 1
        number = 0
        for at in range(first, last):
            byte = pool[places[at] + depth]
            if number == 0 or children[number - 1] != byte:
                children[number] = byte
                firsts[number] = at
                number += 1
        firsts[number] = last
        if number == 0:
            continue
        while used[first_free]:
            first_free += 1
        base = _fit(used, children[:number], first_free if number == 1 else max(first_free, many_free))
        if number > 1 and base + children[0] > many_free + 64:
            many_free = base + children[0] - 64
        if base + 512 >= len(nodes):
            return -1
        nodes[place].base = base
        for i in range(number):
            child = base + children[i]
            used[child] = True
            nodes[child].check = place
            queue[tail, 0], queue[tail, 1], queue[tail, 2], queue[tail, 3] = child, firsts[i], firsts[i + 1], depth + 1
            tail += 1
            highest = max(highest, child + 1)
    return highest + 256


@kernel
def normalize(  # noqa: C901, PLR0913
    text, offsets, classes, pool, places, out, ends, hard, unseen
):
    """Write each text as SentencePiece normalises it: spaces collapsed and stripped, one put in front.

    classes: class of each character. A text with a hard character is left empty and marked; characters without a
    class are collected in `unseen` (its length in unseen[0]), and the caller asks for them and comes again.
    """
    written = 0
    for row in range(len(offsets) - 1):
        begin = written
        after_space = True
        out[written] = 32
        written += 1
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            byte = text[at]
            if byte < 0x80:
                code, size = np.uint32(byte), 1
            else:
                code, size = code_point(text, at)
            kind = classes[code]
            if kind == PLAIN:
                if byte == 32:
                    if not after_space:
                        out[written] = 32
                        written += 1
                    after_space = True
                else:
                    for i in range(at, at + size):
                        out[written] = text[i]
                        written += 1
                    after_space = False
            elif kind >= REPLACED:
                for i in range(places[kind - REPLACED], places[kind - REPLACED + 1]):
                    if pool[i] != 32 or not after_space:
                        out[written] = pool[i]
                        written += 1
                    after_space = pool[i] == 32
            elif kind == HARD:
                hard[row] = True
            else:
                hard[row] = True
                if unseen[0] + 1 < len(unseen):
                    unseen[0] += 1
                    unseen[unseen[0]] = code
                    classes[code] = HARD
            at += size
        while written > begin and out[written - 1] == 32:
            written -= 1
        if hard[row]:
            written = begin
        ends[row] = written
    return written


@kernel
def _encode(  # noqa: PLR0913
    text, begin, end, nodes, unknown, unknown_score, best, froms, found, ids, starts, written
):
    """Append the pieces of text[begin:end]; consecutive unknown characters are one piece. Returns the number of pieces.

    best, froms, found: working space, score of the best way to each place, where its last piece begins, and which it
    is. Places are unsigned, for which numba does not ask whether they count from the end.
    """
    one, size = np.uint64(1), np.uint64(end - begin)
    shift = np.uint64(begin)
    for i in range(size + one):
        best[np.uint64(i)] = -np.inf
    best[np.uint64(0)] = 0.0
    at = np.uint64(0)
    while at < size:
        lead = text[shift + at]
        width = one if lead < 0xC0 else np.uint64(2 if lead < 0xE0 else (3 if lead < 0xF0 else 4))
        till_here = best[at]
        single = at + width
        place = np.int32(0)
        to = at
        while to < size:
            child = nodes[np.uint64(place)].base + np.int32(text[shift + to])
            node = nodes[np.uint64(child)]
            if node.check != place:
                break
            place = child
            to += one
            if node.piece >= 0:
                score = node.score + till_here
                if score > best[to]:
                    best[to] = score
                    froms[to] = at
                    found[to] = node.piece
                if to == at + width:
                    single = np.uint64(0)
        if single > 0:
            guess = unknown_score + till_here
            if guess > best[single]:
                best[single] = guess
                froms[single] = at
                found[single] = unknown
        at += width
    # walk back, then turn the pieces round
    first = written
    to = size
    while to > 0:
        piece = found[to]
        if piece == unknown and written > first and ids[written - 1] == unknown:
            starts[written - 1] = begin + froms[to]
        else:
            ids[written] = piece
            starts[written] = begin + froms[to]
            written += 1
        to = np.uint64(froms[to])
    low, high = first, written - 1
    while low < high:
        ids[low], ids[high] = ids[high], ids[low]
        starts[low], starts[high] = starts[high], starts[low]
        low += 1
        high -= 1
    return written


@kernel
def encode_texts(text, ends, nodes, unknown, unknown_score, ids, starts, offsets):
    """Encode texts that lie one after the other; returns the number of pieces."""
    longest = 0
    begin = 0
    for row in range(len(ends)):
        longest = max(longest, ends[row] - begin)
        begin = ends[row]
    best = np.empty(longest + 1, np.float32)
    froms, found = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    written = 0
    begin = 0
    for row in range(len(ends)):
        offsets[row] = written
        if ends[row] > begin:
            written = _encode(
                text, begin, ends[row], nodes, unknown, unknown_score, best, froms, found, ids, starts, written
            )
        begin = ends[row]
    offsets[len(ends)] = written
    return written


@kernel
def _mixed(value, part):
    value = (value ^ part) * np.uint64(0x9FB21C651E98DF25)
    return value ^ (value >> np.uint64(32))


@kernel
def _first_space(part):
    """The highest bit of the first byte that is a space, 0 where there is none."""
    other = part ^ np.uint64(0x2020202020202020)  # 0 where a space was
    zeros = (other - np.uint64(0x0101010101010101)) & ~other & np.uint64(0x8080808080808080)
    return zeros & (~zeros + np.uint64(1))  # bytes above the first may be marked wrongly


@kernel
def _next_word(text, at):
    """Hash and bytes of the word that begins with the space at `at` and ends before the next space."""
    value, begin = np.uint64(0x243F6A8885A308D3), at
    part = np.uint64(eight_bytes(text, at)) & np.uint64(0xFFFFFFFFFFFFFF00)
    space = _first_space(part)
    while space == 0:
        value = _mixed(value, part)
        at += np.uint64(8)
        part = np.uint64(eight_bytes(text, at))
        space = _first_space(part)
    before = (space >> np.uint64(7)) - np.uint64(1)
    ones = (before & np.uint64(0x0101010101010101)) * np.uint64(0x0101010101010101)
    size = at - begin + (ones >> np.uint64(56))
    return _mixed(_mixed(value, part & before) ^ size, np.uint64(0)), size


@kernel
def encode_words(text, ends, nodes, unknown, unknown_score, memory, ids, starts, offsets):  # noqa: PLR0913
    """Encode texts word by word (pieces never cross a space); a word met before is looked up by its hash.

    text: as `normalize` writes it, so that each text begins with a space; eight spaces more after the last one.
    memory: (words, 16) uint32, kept between calls: the two halves of the 64-bit hash of the word that was last here,
    how many pieces it has (0: none yet), and the pieces. `starts` is working space here.

    The places of a block of words in `memory` are asked for before the first is read.
    """
    best = np.empty(1 << 10, np.float32)
    froms, found = np.empty(1 << 10, np.int32), np.empty(1 << 10, np.int32)
    hashes, begins = np.empty(32, np.uint64), np.empty(33, np.uint64)
    remembered = memory.reshape(-1)
    mask = np.uint64(len(memory) - 1)
    written = np.uint64(0)
    at = np.uint64(0)
    for row in range(len(ends)):
        offsets[row] = written
        end = np.uint64(ends[row])
        while at < end:
            words = np.uint64(0)
            while words < np.uint64(32) and at < end:
                value, size = _next_word(text, at)
                prefetch(remembered, (value & mask) * np.uint64(16))
                hashes[words], begins[words] = value, at
                words += np.uint64(1)
                at += size
            begins[words] = at
            for number in range(words):
                word = np.uint64(number)
                value = hashes[word]
                place = (value & mask) * np.uint64(16)
                low, high = np.uint32(value & np.uint64(0xFFFFFFFF)), np.uint32(value >> np.uint64(32))
                count = np.uint64(remembered[place + np.uint64(2)])
                known = remembered[place] == low and remembered[place + np.uint64(1)] == high
                if count > 0 and known:
                    for i in range(count):
                        ids[written + np.uint64(i)] = remembered[place + np.uint64(3) + np.uint64(i)]
                    written += count
                    continue
                first, last = np.int64(begins[word]), np.int64(begins[word + np.uint64(1)])
                if last - first >= len(best):
                    best = np.empty(2 * (last - first), np.float32)
                    froms, found = np.empty(len(best), np.int32), np.empty(len(best), np.int32)
                before = np.int64(written)
                after = _encode(
                    text, first, last, nodes, unknown, unknown_score, best, froms, found, ids, starts, before
                )
                if after - before <= _MOST_PIECES:
                    remembered[place], remembered[place + np.uint64(1)] = low, high
                    remembered[place + np.uint64(2)] = after - before
                    for i in range(after - before):
                        remembered[place + np.uint64(3) + np.uint64(i)] = ids[before + i]
                written = np.uint64(after)
    offsets[len(ends)] = written
    return np.int64(written)


@kernel
def join(text, starts, offsets, ends, out, out_offsets):
    """Write each text's pieces with spaces between them, and "▁" for the spaces inside them."""
    written = 0
    begin = 0
    for row in range(len(ends)):
        out_offsets[row] = written
        piece = offsets[row]
        for at in range(begin, ends[row]):
            if piece < offsets[row + 1] and starts[piece] == at:
                if at > begin:
                    out[written] = 32
                    written += 1
                piece += 1
            if text[at] == 32:
                out[written], out[written + 1], out[written + 2] = 0xE2, 0x96, 0x81
                written += 3
            else:
                out[written] = text[at]
                written += 1
        begin = ends[row]
    out_offsets[len(ends)] = written
    return written
