"""How the processes of a training find each other, and what they tell each other before any collective.

Everything goes through a key-value store with a deadline, so that a process that never comes is named instead of waited
for. Under torchrun the store outlives restarts, and its agents count those differently: there the first process names
each meeting anew, and answers only who is there now.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any

import torch.distributed as dist

from training.exits import Exit
from training.preflight_report import PreflightError

POLL_S = 0.02
# The others see what this process saw within one collective; on a busy machine they may wake late.
PART_S = 10.0


@dataclass(frozen=True)
class Meeting:
    """How the processes of a training find each other.

    Attributes:
        rank: this process.
        world: all of them.
        store: what each can write and all can read.
        wait_s: how long a process is waited for.
    """

    rank: int
    world: int
    store: Any
    wait_s: float

    def exchange(self, topic: str, value: str) -> list[str]:
        """Every process's value, in order of ranks.

        Raises:
            PreflightError: (RANK_LOST) naming the processes that did not come in time.
        """
        keys = [f"{topic}/{rank}" for rank in range(self.world)]
        self.store.set(keys[self.rank], value)
        # Three requests a process, whatever the world's size: one of a thousand asking for each other's one by one
        # would keep the store busy for minutes.
        try:
            self.store.wait(keys, timedelta(seconds=self.wait_s))
        except RuntimeError:  # each store has its own for a deadline
            missing = {rank for rank, key in enumerate(keys) if not self.store.check([key])}
            if missing:
                raise PreflightError([_who_is_missing(missing, self, topic)], Exit.RANK_LOST) from None
        return [value.decode() for value in self.store.multi_get(keys)]

    def part(self) -> None:
        """Wait a moment until all have come this far: all end alike, and none takes another's end for a loss.

        What gloo has received counts for nothing once the other side is gone.
        """
        with suppress(PreflightError, dist.DistError):
            replace(self, wait_s=min(PART_S, self.wait_s)).exchange("parting", "")


def _who_is_missing(missing: set[int], meeting: Meeting, topic: str) -> str:
    named = ", ".join(str(rank) for rank in sorted(missing)[:8]) + (" …" if len(missing) > 8 else "")
    there = sorted(set(range(meeting.world)) - missing)[:8]
    came = ", ".join(f"{rank} on {host}" for rank, host in _hosts(meeting, there)) or "none"
    silent = islice(_hosts(meeting, sorted(missing)), 8)
    hung = "".join(f"; rank {rank} on {host} came and said no more" for rank, host in silent)
    return f"rank {named} sent no {topic} within {meeting.wait_s:.0f} s (came: {came}){hung}; look at its log"


def _hosts(meeting: Meeting, ranks: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Those of some processes that have come, each with its machine."""
    for rank in ranks:
        if meeting.store.check([f"host/{rank}"]):
            yield rank, meeting.store.get(f"host/{rank}").decode()


def meet(rank: int, world: int, wait_s: float) -> Meeting:
    """Open the store that all processes share: the supervisor's file, or torchrun's address.

    Raises:
        PreflightError: if the store cannot be reached, or two processes have one rank.
    """
    if world == 1:
        return Meeting(rank, world, dist.HashStore(), wait_s)
    opened = _open_store(rank, world, wait_s)
    name = _agreed_name(rank, world, opened, wait_s) if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    store = dist.PrefixStore(f"gristmill/{name}", opened)
    store.set(f"host/{rank}", platform.node())
    if store.add(f"taken/{rank}", 1) > 1:
        raise PreflightError([f"rank {rank} is there twice; RANK must differ on every process"])
    return Meeting(rank, world, store, wait_s)


def _agreed_name(rank: int, world: int, opened: Any, wait_s: float) -> str:
    """A name of this meeting that no process of an earlier one knows: the first process makes it up.

    Every other one leaves a word made up for this moment, and waits for the answer to that very word.
    """
    store, own, deadline = dist.PrefixStore("gristmill", opened), uuid.uuid4().hex, time.monotonic() + wait_s
    if rank:
        store.set(f"hello/{rank}", own)
        try:
            store.wait([f"answer/{own}"], timedelta(seconds=wait_s))
        except RuntimeError:  # each store has its own for a deadline
            reason = f"rank 0 did not answer rank {rank} on {platform.node()} within {wait_s:.0f} s"
            raise PreflightError([f"{reason}; look at its log"], Exit.RANK_LOST) from None
        return store.get(f"answer/{own}").decode()
    missing, answered = set(range(1, world)), set[str]()
    here = dist.PrefixStore(own, store)
    here.set("host/0", platform.node())
    while missing:
        for other in [other for other in missing if store.check([f"hello/{other}"])]:
            hello = store.get(f"hello/{other}").decode()
            if hello not in answered:  # one of a process that is gone is answered too, and read by nobody
                store.set(f"answer/{hello}", own)
                answered.add(hello)
        missing = {other for other in missing if not here.check([f"host/{other}"])}
        if missing and time.monotonic() > deadline:
            raise PreflightError([_who_is_missing(missing, Meeting(0, world, here, wait_s), "word")], Exit.RANK_LOST)
        time.sleep(POLL_S if missing else 0)
    return own


def _open_store(rank: int, world: int, wait_s: float) -> Any:
    if "GRISTMILL_MEETING_FILE" in os.environ:
        return dist.FileStore(os.environ["GRISTMILL_MEETING_FILE"], world)
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", 29500))
    # torchrun's agent holds the store; elsewhere the first process does.
    holds = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        return dist.TCPStore(
            address,
            port,
            is_master=holds,
            timeout=timedelta(seconds=wait_s),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except dist.DistError as error:
        reason = f"rank {rank} on {platform.node()}: the store at {address}:{port} was not reached in {wait_s:.0f} s"
        raise PreflightError([f"{reason}; is rank 0 running, and the port open?"], Exit.RANK_LOST) from error
