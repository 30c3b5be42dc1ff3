"""From groups that share a band to clusters, in order of preference.

Documents are numbered by rank here, 0 the best. **Star**: through the documents from best to worst, a document is
dropped when it is similar to a document that is kept; so every dropped document is itself similar to the one that stays
for it, and a chain A~B~C cannot swallow C. **Components**: everything connected by similar pairs is one cluster; of
documents that are joined already the first 32 of a band group are compared with later ones too.

A pair counts when it is a candidate (shares a band) and, where similarities are checked, is at least the threshold.
Both kernels work on the similarities known so far and return the pairs they still need; the caller measures those and
calls again until none is asked for. The result is that of checking one pair after another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from curation.dedup.spill import Runs
from curation.kernels import inline_kernel, kernel

MAX_KEPT_IN_RUN = 32  # dissimilar documents of one band group that later ones are compared with; joined ones, too
_ASKED_AT_ONCE = 4  # pairs a document asks for in one round; in the first only one, which mostly settles it
_ASKED_IN_ROUND = 1 << 22  # pairs asked for in one round: 32 MiB
_KEPT, _DROPPED, _PENDING = 0, 1, 2


class Pairs(NamedTuple):
    """Measured pairs: `keys` uint64 sorted (better << 32 | worse), `similarity` float32; NaN counts as similar."""

    keys: np.ndarray
    similarity: np.ndarray


def no_pairs() -> Pairs:
    """An empty list of measured pairs."""
    return Pairs(np.zeros(0, np.uint64), np.zeros(0, np.float32))


def add_pairs(known: Pairs, keys: np.ndarray, similarity: np.ndarray) -> Pairs:
    """Known pairs with newly measured ones."""
    merged, first = np.unique(np.concatenate([known.keys, keys]), return_index=True)
    return Pairs(merged, np.concatenate([known.similarity, similarity])[first])


@kernel
def union_runs(parent: np.ndarray, starts: np.ndarray, members: np.ndarray) -> None:
    """Join the members of each group in a union-find forest whose roots are the smallest members."""
    for run in range(starts.shape[0] - 1):
        root = _find(parent, members[starts[run]])
        for place in range(starts[run] + 1, starts[run + 1]):
            other = _find(parent, members[place])
            if other < root:
                parent[root] = other
                root = other
            elif root < other:
                parent[other] = root


@kernel
def _find(parent: np.ndarray, node: Any) -> Any:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def find_roots(parent: np.ndarray, nodes: np.ndarray, out: np.ndarray) -> None:
    """Root of each node in a union-find forest, into `out`."""
    for place in range(nodes.shape[0]):
        out[place] = _find(parent, nodes[place])


@kernel
def invert_runs(starts: np.ndarray, members: np.ndarray, num_documents: int) -> Any:
    """Groups of each document: document d is in groups `runs[first[d]:first[d + 1]]`."""
    first = np.zeros(num_documents + 1, np.int64)
    for place in range(members.shape[0]):
        first[members[place] + 1] += 1
    for document in range(num_documents):
        first[document + 1] += first[document]
    filled = first[:-1].copy()
    runs = np.zeros(members.shape[0], np.int32)
    for run in range(starts.shape[0] - 1):
        for place in range(starts[run], starts[run + 1]):
            document = members[place]
            runs[filled[document]] = run
            filled[document] += 1
    return first, runs


@inline_kernel
def _known(keys: np.ndarray, similarity: np.ndarray, better: Any, worse: Any) -> Any:
    """Similarity of a measured pair, -1 where it is not measured."""
    key = (np.uint64(better) << np.uint64(32)) | np.uint64(worse)
    place = np.searchsorted(keys, key)
    if place < keys.shape[0] and keys[place] == key:
        return similarity[place]
    return np.float32(-1)


@kernel
def _list_candidates(
    document: int,
    first: np.ndarray,
    runs: np.ndarray,
    kept: np.ndarray,
    room: np.ndarray,
    num_kept: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Documents kept so far in the groups of `document`, best first, each perhaps more than once; returns how many."""
    found = 0
    for place in range(first[document], first[document + 1]):
        run = runs[place]
        for index in range(num_kept[run]):
            candidates[found] = kept[room[run] + index]
            found += 1
    if found > 1:
        candidates[:found] = np.sort(candidates[:found])
    return found


@kernel
def _list_as_kept(
    document: int, first: np.ndarray, runs: np.ndarray, kept: np.ndarray, room: np.ndarray, num_kept: np.ndarray
) -> int:
    """Add `document` to its groups' kept ones; returns in how many groups there was no room."""
    left_out = 0
    for place in range(first[document], first[document + 1]):
        run = runs[place]
        if num_kept[run] < MAX_KEPT_IN_RUN:
            kept[room[run] + num_kept[run]] = document
            num_kept[run] += 1
        else:
            left_out += 1
    return left_out


@kernel
def _star(  # noqa: C901, PLR0913
    starts: np.ndarray,
    first: np.ndarray,
    runs: np.ndarray,
    fixed: np.ndarray,
    keys: np.ndarray,
    similarities: np.ndarray,
    threshold: Any,
    check: Any,
    at_once: int,
    centre: np.ndarray,
    similarity: np.ndarray,
    asked: np.ndarray,
) -> Any:
    """One pass; returns (pairs asked for, documents left out of full groups). `centre` is -1 where pending."""
    num_documents = first.shape[0] - 1
    status = np.zeros(num_documents, np.int8)
    num_kept = np.zeros(starts.shape[0] - 1, np.int32)
    room = np.zeros(starts.shape[0], np.int64)
    for run in range(starts.shape[0] - 1):
        room[run + 1] = room[run] + min(starts[run + 1] - starts[run], MAX_KEPT_IN_RUN)
    kept = np.zeros(room[-1], np.int32)
    most = 1
    for document in range(num_documents):
        most = max(most, first[document + 1] - first[document])
    candidates = np.zeros(most * MAX_KEPT_IN_RUN, np.int32)
    num_asked, num_unlisted = 0, 0
    for document in range(num_documents):
        found = _list_candidates(document, first, runs, kept, room, num_kept, candidates)
        centre[document], similarity[document] = document, np.float32(np.nan)
        unsettled, asked_here = False, 0
        for index in range(found):
            other = candidates[index]
            if fixed[document]:
                break
            if index > 0 and other == candidates[index - 1]:
                continue
            value = np.float32(np.nan)
            if check:
                value = _known(keys, similarities, other, document)
                if value == np.float32(-1):
                    unsettled = True
                    if asked_here < at_once and num_asked < asked.shape[0]:
                        asked[num_asked] = (np.uint64(other) << np.uint64(32)) | np.uint64(document)
                        num_asked += 1
                        asked_here += 1
                    if asked_here >= at_once:
                        break
                    continue
                if value < threshold:
                    continue
            if status[other] == _PENDING:
                unsettled = True
                continue
            if not unsettled:
                status[document] = _DROPPED
                centre[document], similarity[document] = other, value
            break
        if status[document] == _DROPPED:
            continue
        if unsettled:
            status[document] = _PENDING
            centre[document] = -1
        num_unlisted += _list_as_kept(document, first, runs, kept, room, num_kept)
    return num_asked, num_unlisted


@kernel
def _components(
    starts: np.ndarray,
    members: np.ndarray,
    keys: np.ndarray,
    similarities: np.ndarray,
    threshold: Any,
    at_once: int,
    parent: np.ndarray,
    asked: np.ndarray,
) -> Any:
    """One pass over the groups; joins similar documents in `parent`; returns (pairs asked for, left out)."""
    for document in range(parent.shape[0]):
        parent[document] = document
    listed = np.zeros(2 * MAX_KEPT_IN_RUN, np.int32)
    num_asked, num_unlisted = 0, 0
    for run in range(starts.shape[0] - 1):
        num_apart, num_joined = 0, 0
        for place in range(starts[run], starts[run + 1]):
            document = members[place]
            joined, unsettled, asked_here = False, False, 0
            for index in range(num_apart + num_joined):
                root, other = _find(parent, document), _find(parent, listed[index])
                if root == other:
                    joined = True
                    continue
                value = _known(keys, similarities, listed[index], document)
                if value == np.float32(-1):
                    unsettled = True
                    if asked_here >= at_once or num_asked >= asked.shape[0]:
                        break
                    asked[num_asked] = (np.uint64(listed[index]) << np.uint64(32)) | np.uint64(document)
                    num_asked += 1
                    asked_here += 1
                elif not value < threshold:
                    parent[max(root, other)] = min(root, other)
                    joined = True
            if unsettled:
                continue
            if not joined and num_apart == MAX_KEPT_IN_RUN:
                num_unlisted += 1
            elif not joined or num_joined < MAX_KEPT_IN_RUN:
                listed[num_apart + num_joined] = document
                num_joined += joined
                num_apart += not joined
    return num_asked, num_unlisted


class Clustering(NamedTuple):
    """Documents by rank: `centre` int32 is the kept document each stands for (itself if kept), `similarity` to it.

    `asked` uint64 are the pairs whose similarity is still needed; with any, the rest is not final. `unlisted` counts
    documents beyond `MAX_KEPT_IN_RUN` dissimilar ones of a band group, which later ones were not compared with.
    """

    centre: np.ndarray
    similarity: np.ndarray
    asked: np.ndarray
    unlisted: int


def star(
    runs: Runs, inverse: tuple[np.ndarray, np.ndarray], fixed: np.ndarray, known: Pairs, threshold: float | None
) -> Clustering:
    """Star clustering with the similarities known so far.

    Args:
        runs: groups of ranks that share a band, members ascending.
        inverse: `invert_runs` of them.
        fixed: bool by rank; documents that are never dropped.
        known: measured pairs.
        threshold: least similarity that counts; null counts every candidate.
    """
    first, groups = inverse
    num_documents = len(first) - 1
    centre, similarity = np.zeros(num_documents, np.int32), np.zeros(num_documents, np.float32)
    asked = np.zeros(0 if threshold is None else min(_ASKED_AT_ONCE * num_documents, _ASKED_IN_ROUND), np.uint64)
    least = np.float32(0 if threshold is None else threshold)
    num_asked, unlisted = _star(
        runs.starts,
        first,
        groups,
        fixed,
        known.keys,
        known.similarity,
        least,
        threshold is not None,
        _ASKED_AT_ONCE if len(known.keys) else 1,
        centre,
        similarity,
        asked,
    )
    return Clustering(centre, similarity, np.unique(asked[:num_asked]), unlisted)


def components(runs: Runs, num_documents: int, known: Pairs, threshold: float | None) -> Clustering:
    """Connected components with the similarities known so far; each centre is the component's best rank.

    Args and result as of `star`; similarity is that to the centre where the pair was measured, else NaN.
    """
    parent = np.arange(num_documents, dtype=np.int32)
    asked, unlisted = np.zeros(0, np.uint64), 0
    if threshold is None:
        union_runs(parent, runs.starts, runs.members)
    else:
        asked = np.zeros(min(_ASKED_AT_ONCE * len(runs.members), _ASKED_IN_ROUND), np.uint64)
        num_asked, unlisted = _components(
            runs.starts,
            runs.members,
            known.keys,
            known.similarity,
            np.float32(threshold),
            _ASKED_AT_ONCE if len(known.keys) else 1,
            parent,
            asked,
        )
        asked = np.unique(asked[:num_asked])
    centre = np.zeros(num_documents, np.int32)
    find_roots(parent, np.arange(num_documents, dtype=np.int32), centre)
    return Clustering(centre, np.full(num_documents, np.nan, np.float32), asked, unlisted)
