"""What a signal is, and how a family of signals is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Signal:
    """A number measured on a document.

    `implementation` names whose definition it is, because the same "Gopher" share differs between implementations and
    thresholds do not transfer. `version` is raised when a value may change.
    """

    name: str
    family: str
    dtype: str  # float64 | int64 | bool
    version: int
    implementation: str
    description: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """Row-aligned texts as kernels read them.

    `content` are UTF-8 bytes (uint8, read-only), `offsets` int64 (rows + 1), `present` bool (rows,): false where the
    text is null.
    """

    content: np.ndarray
    offsets: np.ndarray
    present: np.ndarray


# Texts, language code, wanted names, what earlier families measured -> float64 (rows,) by name, NaN where undefined.
# More than was asked may come back.
Columns = dict[str, np.ndarray]
Measure = Callable[[Texts, str, frozenset[str], Columns], Columns]


@dataclass(frozen=True)
class Family:
    """Signals that one pass measures together."""

    name: str
    signals: tuple[Signal, ...]
    measure: Measure


class GivenFileError(ValueError):
    """A file of the user that a signal cannot be measured with."""
