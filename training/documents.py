"""Where documents lie in the sequences of a micro-batch, for attention that keeps them apart.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

# What attention costs besides its scores: a document's token as many as so many scores, and a group of documents.
# Measured on a CPU (benchmarks/document_attention.py); far from sharp.
SCORES_A_TOKEN, SCORES_A_GROUP = 256, 1 << 16


@dataclass(frozen=True)
class Group:
    """Documents of like lengths, attended to at once as if each were as long as the longest.

    Attributes:
        starts: place of each one's first token among those of all sequences, int64 (S,).
        lengths: its tokens, int64 (S,), descending.
    """

    starts: np.ndarray
    lengths: np.ndarray

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return int(self.lengths[0])


@dataclass(frozen=True)
class Documents:
    """The documents of a micro-batch, made once and shared by all layers.

    Attributes:
        numbers: each token's document, counted from 0 in its sequence; int64 (B, T), never descending in a row.
    """

    numbers: Tensor

    def mask(self) -> Tensor:
        """Which keys a query sees: earlier ones of its document; bool (B, 1, T, T)."""
        same_BTT = self.numbers[:, :, None] == self.numbers[:, None, :]
        return same_BTT.tril().unsqueeze(1)

    def begins(self) -> Tensor:
        """Which tokens begin a document, bool (B, T); a sequence's first does."""
        changes = self.numbers[:, 1:] != self.numbers[:, :-1]
        return torch.cat([torch.ones_like(self.numbers[:, :1], dtype=torch.bool), changes], dim=1)

    def positions(self) -> Tensor:
        """Each token's place in its document, from 0; int64 (B, T)."""
        places_T = torch.arange(self.numbers.shape[1], device=self.numbers.device)
        return places_T - torch.where(self.begins(), places_T, 0).cummax(1).values

    @cached_property
    def cuts(self) -> Tensor:
        """Where documents begin among all tokens, and the number of these at the end, int32; waits for the device."""
        begins = self.begins().flatten().nonzero().flatten().int()
        return torch.cat([begins, begins.new_full((1,), self.numbers.numel())])

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All documents in groups of like lengths, on a CPU; they hold each token once."""
        starts = np.flatnonzero(self.begins().numpy())
        return grouped(starts, np.diff(starts, append=self.numbers.numel()))


def documents_of(tokens_BT: Tensor, separator: int) -> Documents:
    """Find the documents of sequences; one ends with its separator token, which belongs to it."""
    ends_BT = (tokens_BT == separator).long()
    return Documents(ends_BT.cumsum(-1) - ends_BT)


def whole_sequences(num_sequences: int, length: int) -> tuple[Group, ...]:
    """The group of sequences that are not cut into documents."""
    starts = np.arange(num_sequences, dtype=np.int64) * length
    return (Group(starts, np.full(num_sequences, length, dtype=np.int64)),)


def grouped(starts: np.ndarray, lengths: np.ndarray) -> tuple[Group, ...]:
    """Cut documents, longest first, into the groups that cost least.

    A group costs what its documents would if all were as long as its longest, and something for itself. The cuts are
    found exactly, over distinct lengths: n of them take at least n * (n + 1) / 2 tokens, so they are few.
    """
    order = np.lexsort((starts, -lengths))
    starts, lengths = starts[order].astype(np.int64), lengths[order].astype(np.int64)
    ends = np.append(np.flatnonzero(np.diff(lengths)) + 1, len(lengths))  # documents down to each distinct length
    firsts = np.append(0, ends[:-1])
    longest = lengths[firsts]
    costs = longest * (longest + SCORES_A_TOKEN)
    best, came_from = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, dtype=np.int64)
    for place, end in enumerate(ends, start=1):
        found = best[:place] + (end - firsts[:place]) * costs[:place] + SCORES_A_GROUP
        came_from[place] = found.argmin()
        best[place] = found.min()
    cuts = [len(ends)]
    while cuts[-1]:
        cuts.append(int(came_from[cuts[-1]]))
    bounds = [0, *(int(ends[cut - 1]) for cut in cuts[-2::-1])]
    return tuple(Group(starts[a:b], lengths[a:b]) for a, b in pairwise(bounds))
