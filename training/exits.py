"""How a training ends: its exit codes. No torch."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `python -m training.launch` and results of `launch`.

    Attributes:
        DONE: all train steps are done and saved.
        ERROR: an error of another kind; its text is in the log.
        REQUEUE: asked to stop; saved, and wants to be started again.
        STALLED: no sign of life for too long: no micro-batch, no growth of a checkpoint.
        RANK_LOST: a process was killed.
        DIVERGED: loss or gradient is no number.
        NO_SPACE: no room for a checkpoint.
        SPIKED: a spike was seen and `spikes` asks for a rollback; status.json says at which step and position.
        UNFIT: nothing was trained: the processes differ, or one cannot read its text or write its folders.
    """

    DONE = 0
    ERROR = 1
    REQUEUE = 10
    STALLED = 20
    RANK_LOST = 21
    DIVERGED = 22
    NO_SPACE = 23
    SPIKED = 24
    UNFIT = 25


# Of several processes' ends the one that tells most: what a lost process does to the others comes last.
MOST_TELLING = (Exit.NO_SPACE, Exit.DIVERGED, Exit.SPIKED, Exit.UNFIT, Exit.STALLED, Exit.ERROR, Exit.RANK_LOST)
