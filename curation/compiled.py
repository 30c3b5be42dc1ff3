"""What steps are compiled to: stages of one source or of several, and the program that they make up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

# Raised when the same options give another output. The signals have versions of their own.
VERSIONS = {
    "rows": 1,
    "signals": 1,
    "decisions": 3,
    "text": 3,
    "model": 3,
    "cutoffs": 2,
    "signatures": 1,
    "texts": 1,
    "duplicates": 4,
    "index": 1,
    "overlap": 1,
    "copies": 2,
}


class ProgramError(ValueError):
    """A step that cannot be compiled: its path in the recipe, the value, the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class LocalStage:
    """A layer of one source, made shard by shard.

    Attributes:
        source: the source.
        layer: signals | decisions | text | signatures.
        label: the steps it serves, for people.
        work: (ShardInputs, options, output) -> counts.
        options: the work's options.
        needs: names of global artifacts it reads.
        reads_layers: whether earlier layers (decisions) enter its key, or only the text.
        steps: steps whose drops it decides, each with its `max_drop`.
        joins: whether its file is one of the row-aligned layers of the ledger.
    """

    source: str
    layer: str
    label: str
    work: Callable[..., Any]
    options: Any
    needs: tuple[str, ...] = ()
    reads_layers: bool = False
    steps: tuple[tuple[str, float], ...] = ()
    joins: bool = True


@dataclass(frozen=True)
class GlobalStage:
    """What is made of several sources at once: a language model, cutoffs, duplicates.

    Attributes:
        name: name of the artifact, for the stages that need it.
        layer: model | cutoffs | duplicates.
        label: the step it serves.
        sources: sources it reads, sorted.
        work: (GlobalInputs, options, output) -> counts.
        options: the work's options.
        suffix: suffix of the file that is the artifact, "/" for the stage's folder; None where each shard gets a layer.
        steps: as for a local stage.
    """

    name: str
    layer: str
    label: str
    sources: tuple[str, ...]
    work: Callable[..., Any]
    options: Any
    suffix: str | None
    needs: tuple[str, ...] = ()
    steps: tuple[tuple[str, float], ...] = ()


Stage = LocalStage | GlobalStage


@dataclass(frozen=True)
class Program:
    """A recipe's curation: its stages in order of work, and the layer column of each bare name, by source."""

    stages: list[Stage]
    columns: dict[str, dict[str, str]]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a source's name is named or matched by one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
