"""A training that was begun goes on, or says why it cannot: it never begins anew without a word."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from recipes.errors import RunError
from training.exits import Exit

if TYPE_CHECKING:
    from recipes.pretraining.train import Training
    from training.checkpoint import Checkpoint


class TrainingFailed(RunError):  # noqa: N818
    """A training ended before its last step."""


def refuse_lost(training: Training, step: int, back_tokens: int, why: str) -> None:
    """Stop before a rollback to where checkpoints are gone: what follows would train all from the beginning.

    Args:
        training: that saw a spike.
        step: train step that spiked, counted from 1.
        back_tokens: how far the rollback would go back.
        why: what was seen.

    Raises:
        TrainingFailed: if a checkpoint was saved before the place, and none that is left lies there. Early in a run,
            before its first checkpoint, the beginning is near.
    """
    from training.batches import tokens_after

    spec = training.spec
    spiked = tokens_after(spec.spans, step)  # a rollback counts from behind the train step that spiked
    first = tokens_after(spec.spans, min(spec.checkpoints.every, step))
    left = [one.manifest["tokens"] for one in _own(training) if one.manifest["tokens"] < spiked]
    if spiked - back_tokens < first or not left or left[0] <= spiked - back_tokens:
        return
    error = TrainingFailed(
        f"{why}; `training.spikes.back` goes {back_tokens:,} tokens back, and the oldest checkpoint of this run that "
        f"is left lies {spiked - left[0]:,} before the spike: everything would be trained from the beginning. Set "
        f"training.spikes.back to {spiked - left[0]} tokens or less, or train on through the spike with "
        "`training.spikes: warn`, and run the same command"
    )
    error.exit_code = int(Exit.SPIKED)
    raise error


def _own(training: Training) -> list[Checkpoint]:
    from training.resume import cut_prefix, own_checkpoints

    return own_checkpoints(training.checkpoints, partial(cut_prefix, training.spec.prefix))
