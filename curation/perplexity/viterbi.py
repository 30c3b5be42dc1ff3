# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Kernels of unigram encoding: a double-array trie of pieces, normalising, and the best way through each text.

Source: SentencePiece's `EncodeOptimized` (Kudo 2018, arXiv:1804.10959), with its order and its roundings to float32.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.perplexity.normalize import code_point

_LONGEST_WORD = 64  # bytes of words that are remembered
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
    is.
    """
    size = end - begin
    froms[: size + 1] = -1
    best[0] = 0.0
    at = 0
    while at < size:
        lead = text[begin + at]
        width = 1 if lead < 0xC0 else (2 if lead < 0xE0 else (3 if lead < 0xF0 else 4))
        till_here = best[at]
        single = False
        place = np.int64(0)
        to = at
        while to < size:
            child = np.int64(nodes[place].base) + text[begin + to]
            if nodes[child].check != place:
                break
            place = child
            to += 1
            piece = nodes[place].piece
            if piece >= 0:
                score = nodes[place].score + till_here
                if froms[to] < 0 or score > best[to]:
                    best[to] = score
                    froms[to] = at
                    found[to] = piece
                if to - at == width:
                    single = True
        if not single:
            to = at + width
            guess = unknown_score + till_here
            if froms[to] < 0 or guess > best[to]:
                best[to] = guess
                froms[to] = at
                found[to] = unknown
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
        to = froms[to]
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
def encode_words(text, ends, nodes, unknown, unknown_score, ids, starts, offsets):
    """Encode texts word by word (pieces never cross a space); a word met before in these texts is looked up.

    table: place, length, first piece and number of pieces of the word that last had a hash.
    """
    table = np.full((1 << 16, 4), -1, np.int64)
    best = np.empty(1 << 10, np.float32)
    froms, found = np.empty(1 << 10, np.int32), np.empty(1 << 10, np.int32)
    written = 0
    at = 0
    for row in range(len(ends)):
        offsets[row] = written
        while at < ends[row]:
            begin = at
            value = np.uint64(14695981039346656037)
            while True:
                value = (value ^ np.uint64(text[at])) * np.uint64(1099511628211)
                at += 1
                if at == ends[row] or text[at] == 32:
                    break
            entry = np.int64((value >> np.uint64(40)) & np.uint64(0xFFFF))
            same = table[entry, 1] == at - begin
            place = table[entry, 0]
            i = 0
            while same and i < at - begin:
                same = text[place + i] == text[begin + i]
                i += 1
            if same:
                first = table[entry, 2]
                for i in range(first, first + table[entry, 3]):
                    ids[written] = ids[i]
                    written += 1
                continue
            if at - begin >= len(best):
                best = np.empty(2 * (at - begin), np.float32)
                froms, found = np.empty(len(best), np.int32), np.empty(len(best), np.int32)
            after = _encode(text, begin, at, nodes, unknown, unknown_score, best, froms, found, ids, starts, written)
            if at - begin <= _LONGEST_WORD:
                table[entry, 0], table[entry, 1] = begin, at - begin
                table[entry, 2], table[entry, 3] = written, after - written
            written = after
    offsets[len(ends)] = written
    return written


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
