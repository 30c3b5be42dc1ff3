"""Signs of life: what keeps a training from being taken for stalled while it evaluates, saves or compiles.

A watchdog looks for signs, not for train steps alone: each micro-batch of a train step and of an evaluation, each
growth of what a checkpoint writes, each beginning and end of a compilation. So `stall` may be shorter than any of
those, and what hangs inside one of them is still found.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
POLL_S = 1.0


def result_of(
    work: Future[Result], progress: Callable[[], Any], beat: Callable[[], None], poll_s: float = POLL_S
) -> Result:
    """Wait for work of another thread, giving a sign whenever its progress has changed.

    Args:
        work: what is waited for; raises what it raises.
        progress: any value that changes as the work goes on.
        beat: gives a sign, in this thread.
        poll_s: seconds between looks.
    """
    seen = progress()
    while wait([work], poll_s).not_done:
        if (now := progress()) != seen:
            seen = now
            beat()
    return work.result()


def bytes_in(folder: Path) -> int:
    """Bytes of a folder's files, which grow while processes write there."""
    found = 0
    for path in folder.glob("*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:  # renamed meanwhile
            continue
    return found


def on_compiling(begun: Callable[[], None], ended: Callable[[], None]) -> None:
    """Have functions called whenever `torch.compile` begins and ends to compile in this process."""
    from torch._dynamo.callback import callback_handler

    callback_handler.register_start_callback(lambda _: begun())
    callback_handler.register_end_callback(lambda _: ended())
