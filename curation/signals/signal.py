"""What a signal is, and how a family of signals is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from curation.text.dictionary import NO_JOINS


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
    text is null; `joined` tells which Han letters go on a word of a dictionary (`joined_letters`).
    """

    content: np.ndarray
    offsets: np.ndarray
    present: np.ndarray
    joined: np.ndarray = field(default_factory=lambda: NO_JOINS)


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
