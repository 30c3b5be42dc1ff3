"""The one datatrove step that gristmill's own stages run as: a task's inputs go in, its files come out.

Documents do not pass through the datatrove pipeline here: each task reads its rows as Arrow batches and writes its own
layer. datatrove gives tasks, executors (local, Slurm, Ray), logs and statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

Counts = Mapping[str, Any]


class Output(Protocol):
    """Where a task writes; given from above, so that a stage knows nothing of keys or commit."""

    def path(self, suffix: str) -> Path:
        """Private path for the file with this suffix."""
        ...

    def commit(self, counts: Counts) -> None:
        """Put the files in place, with what was counted."""
        ...

    def abandon(self) -> None:
        """Remove what was written."""
        ...

    def held(self) -> Any:
        """Context in which the stage's worker lock is held."""
        ...


Work = Callable[[Any, Any, Output], Counts]


@dataclass(frozen=True)
class Task:
    """A stage's unit of work: a name, plain inputs, and where it writes."""

    name: str
    inputs: Any
    output: Output


class StageStep(PipelineStep):  # type: ignore[misc]
    """Runs `work(inputs, options, output)` for the tasks of its rank.

    It holds a function's name, options and paths only, so that it pickles; models, kernels and writers are opened
    inside `work`.
    """

    type = "gristmill"

    def __init__(self, name: str, work: Work, options: Any, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.name = name
        self.work = work
        self.options = options
        self.tasks = list(tasks)
        self.rank: int | None = None  # where it holds the tasks of one rank alone

    def of_rank(self, rank: int, world_size: int) -> StageStep:
        """The step with the tasks of one rank alone: what a worker is sent must not grow with the number of all."""
        step = StageStep(self.name, self.work, self.options, self.tasks[rank::world_size])
        step.rank = rank
        return step

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Do the tasks of this rank. Takes and yields no documents."""
        assert self.rank in (None, rank)
        for task in self.tasks if self.rank is not None else self.tasks[rank::world_size]:
            with self.track_time(), task.output.held():
                try:
                    counts = self.work(task.inputs, self.options, task.output)
                    task.output.commit(counts)
                except BaseException:
                    task.output.abandon()
                    raise
            for name, value in counts.items():
                if isinstance(value, int | float):
                    self.stat_update(name, value=value)
        yield from ()
