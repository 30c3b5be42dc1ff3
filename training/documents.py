"""Where documents lie in the sequences of a micro-batch, for attention that keeps them apart.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    def positions(self) -> Tensor:
        """Each token's place in its document, from 0; int64 (B, T)."""
        places_T = torch.arange(self.numbers.shape[1], device=self.numbers.device)
        before_BT = torch.cat([self.numbers[:, :1], self.numbers[:, :-1]], dim=1)
        begins_BT = torch.where(self.numbers != before_BT, places_T, 0)
        return places_T - begins_BT.cummax(1).values


def documents_of(tokens_BT: Tensor, separator: int) -> Documents:
    """Find the documents of sequences; one ends with its separator token, which belongs to it."""
    ends_BT = (tokens_BT == separator).long()
    return Documents(ends_BT.cumsum(-1) - ends_BT)
