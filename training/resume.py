"""Which checkpoint a run continues from, when it saves, and which checkpoints it keeps.

A checkpoint's identity is its prefix: everything that made it, cut at its position. A run continues from the newest
checkpoint whose prefix is its own, so a longer budget, another later phase or a branch resumes by itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from training.checkpoint import Checkpoint, CheckpointError, canonical, open_checkpoint
from training.spec import Checkpoints

# Checkpoints kept for a rollback to go back to, in each `back` of the token clock: it trains at most a fourth more.
RUNGS = 4


def cut_prefix(prefix: Any, position: int) -> Any:
    """Cut what made a run at a position.

    A value that changes on the way is written `{"from": [[position, value], ...]}`; the cut keeps the entries that
    begin before `position` (and always the first). All other values count whole.

    >>> cut_prefix({"seed": 1, "batch": {"from": [[0, 8], [100, 16]]}}, 100)
    {'seed': 1, 'batch': {'from': [[0, 8]]}}
    """
    if isinstance(prefix, list):
        return [cut_prefix(part, position) for part in prefix]
    if not isinstance(prefix, dict):
        return prefix
    if set(prefix) == {"from"}:
        entries = prefix["from"]
        return {"from": [entry for place, entry in enumerate(entries) if place == 0 or entry[0] < position]}
    return {key: cut_prefix(part, position) for key, part in prefix.items()}


def first_difference(ours: Any, theirs: Any, path: str = "") -> str | None:
    """Name the first place where two prefixes differ, or None."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            found = first_difference(ours.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip_longest(ours, theirs))
        parts = (first_difference(a, b, f"{path}[{place}]") for place, (a, b) in pairs)
        found = next((part for part in parts if part), None)
        if found or len(ours) == len(theirs):
            return found
    return None if ours == theirs else f"{path} is {json.dumps(ours)} here and {json.dumps(theirs)} in the checkpoint"


def is_due(plan: Checkpoints, step: int, num_steps: int) -> bool:
    """Whether a checkpoint is saved after so many train steps."""
    if step == num_steps or step in plan.at:
        return True
    early = plan.early and step <= plan.every and step & (step - 1) == 0
    return early or (step > 0 and step % plan.every == 0)


def num_staying(plan: Checkpoints, num_steps: int, step_tokens: int = 1) -> int:
    """Most checkpoints of a run that lie on disk at once: what its policy keeps, and the one being written.

    Args:
        plan: when it saves and what it keeps.
        num_steps: train steps of the run.
        step_tokens: fewest tokens of a train step; so many that go back no further than a few checkpoints keep few.
    """
    regular = num_steps // plan.every + bool(num_steps % plan.every)
    early = min(plan.every, num_steps).bit_length() + 1 if plan.early else 0
    if plan.keep_last is None:
        return regular + early + len(plan.at)
    for_ever = len(plan.at) + (num_steps // plan.keep_every + plan.early if plan.keep_every else 0)
    rungs = 0 if plan.back is None else min(RUNGS, plan.back // (plan.every * step_tokens) + early) + 2
    return min(regular + early + len(plan.at), for_ever + max(1, plan.keep_last) + rungs + 1)


def staying(plan: Checkpoints, clock: Mapping[int, int]) -> set[int]:
    """Train steps of the checkpoints that a run's policy keeps.

    A rollback goes `plan.back` tokens back from a spike that no one foresees: the newest checkpoint that lies so far
    behind stays, and the first of every fourth of `back` since, for the spikes to come.

    Args:
        plan: what to keep.
        clock: of the run's checkpoints so far, train step -> tokens.
    """
    steps = sorted(clock)
    if plan.keep_last is None or not steps:
        return set(steps)
    kept = {*steps[-max(1, plan.keep_last) :], *plan.at}
    kept |= {step for step in steps if plan.keep_every is not None and step % plan.keep_every == 0}
    if plan.back is not None:
        behind = clock[steps[-1]] - plan.back
        rung = max(1, -(-plan.back // RUNGS))
        first = {clock[step] // rung: step for step in reversed(steps)}
        kept |= {step for step in first.values() if clock[step] > behind}
        kept |= set([step for step in steps if clock[step] <= behind][-1:])
    return kept & set(steps)


def find_resume(
    root: Path,
    prefix_at: Callable[[int], Any],
    say: Callable[[str], None] = lambda text: None,
    max_step: int | None = None,
) -> Checkpoint | None:
    """Find the newest whole checkpoint that this run would have made itself.

    Args:
        root: folder of all checkpoints; need not exist.
        prefix_at: the run's own prefix cut at a position, such as `partial(cut_prefix, prefix)`.
        say: told why a newer checkpoint is passed over.
        max_step: pass over checkpoints behind this train step, of a run with a longer budget.
    """
    folders = sorted((path for path in root.glob("step-*") if path.is_dir()), reverse=True) if root.exists() else []
    for folder in folders:
        try:
            found = open_checkpoint(folder, verify=False)
            if max_step is not None and found.step > max_step:
                continue
            if different := difference(found, prefix_at):
                say(f"{folder.name} is another run's: {different}")
                continue
            return open_checkpoint(folder)
        except CheckpointError as error:
            say(f"passed over: {error}")
    return None


def difference(checkpoint: Checkpoint, prefix_at: Callable[[int], Any]) -> str | None:
    """The first difference between what made a checkpoint and this run's own prefix at its position; None: its own."""
    ours, theirs = json.loads(canonical(prefix_at(checkpoint.position))), checkpoint.manifest["prefix"]
    old = theirs.get("spikes")
    # Words of earlier versions, which counted what only warns as well, and told no `sigma`.
    if old in ("warn", "rollback"):
        theirs = {**theirs, "spikes": None}
    elif old == "drop_update" and isinstance(ours.get("spikes"), list):
        theirs = {**theirs, "spikes": ours["spikes"]}
    return first_difference(ours, theirs)


def checkpoints_in(root: Path) -> list[Checkpoint]:
    """Whole checkpoints of a folder, of all runs, oldest first; files are looked at for their sizes only."""
    found = []
    for folder in sorted(root.glob("step-*")):
        with suppress(CheckpointError):
            found.append(open_checkpoint(folder, verify=False))
    return found


def own_checkpoints(root: Path, prefix_at: Callable[[int], Any]) -> list[Checkpoint]:
    """Whole checkpoints of a folder that this run would have made itself, oldest first; others may lie beside them."""
    return [found for found in checkpoints_in(root) if difference(found, prefix_at) is None]


def seen_steps(checkpoint: Checkpoint) -> list[list[float]]:
    """Loss and gradient norm of the train steps before a checkpoint, that the next ones are judged by.

    Earlier versions remembered means over lines of the log where a spike was only warned of. They vary less than train
    steps do, so each of these would be a spike beside them; watching begins anew there.
    """
    by_step = checkpoint.manifest["prefix"].get("spikes") in ("drop_update", "rollback")
    return checkpoint.state["spikes"] if by_step or checkpoint.state.get("spikes_of") == "train steps" else []


def prune(
    root: Path, plan: Checkpoints, prefix_at: Callable[[int], Any], log: str | None = None, saved: int | None = None
) -> list[Path]:
    """Remove this run's checkpoints that its policy does not keep; returns what was removed.

    Those of `plan.at` stay: other phases and longer runs begin there. Other runs' checkpoints in the same folder, and
    unfinished ones, stay; so do those that a run of another `log` saved on the way that both share, and those behind
    `saved`, the train step just saved: a run that passed over a damaged one, or has a shorter budget than before, lies
    before them, and they would take the places of what it saves.
    """
    if plan.keep_last is None:
        return []
    mine = [found for found in own_checkpoints(root, prefix_at) if found.state.get("log") == log]
    mine = [found for found in mine if saved is None or found.step <= saved]
    kept = staying(plan, {found.step: found.manifest["tokens"] for found in mine})
    removed = [found.folder for found in mine if found.step not in kept]
    for folder in removed:
        (folder / "manifest.json").unlink()  # first: a half-removed folder is no checkpoint
        shutil.rmtree(folder)
    return removed
