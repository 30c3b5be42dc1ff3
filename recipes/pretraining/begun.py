"""A training that was begun goes on, or says why it cannot: it never begins anew without a word."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from recipes.errors import RunError
from recipes.pretraining.pinned import first_lines, training_values, under_way
from recipes.pretraining.training_log import PINNED
from recipes.schema.resolved import differing
from training.exits import Exit

if TYPE_CHECKING:
    from recipes.pretraining.train import Training
    from recipes.run import Run
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


def refuse_restart(run: Run, training: Training) -> None:
    """Stop where an unfinished training has checkpoints and the recipe's values let it continue from none of them.

    Raises:
        RunError: with the values that differ, and both ways on.
    """
    from training.resume import checkpoints_in, cut_prefix, difference, own_checkpoints

    found = under_way(run)
    if found is None or found[0]["log"] != str(training.log):
        return  # another model's training: its checkpoints and log lie elsewhere
    if any(one.step <= training.spec.num_steps for one in _own(training)):
        return
    began, step = found
    prefix = began.get("prefix")
    if prefix is not None:
        saved = own_checkpoints(training.checkpoints, partial(cut_prefix, prefix))
    else:  # noted by an earlier version
        saved = [one for one in checkpoints_in(training.checkpoints) if one.state.get("log") == training.log.name]
    if not saved:
        return  # ended before its first checkpoint
    now = training_values(run.recipe)
    changed = differing(began.get("trained_by", now), now)
    told = [f"{path}: {before or 'nothing'} -> {after or 'nothing'}" for path, (before, after) in changed.items()]
    first = difference(saved[-1], partial(cut_prefix, training.spec.prefix))
    raise RunError(
        "\n".join(
            [
                f"{run.recipe.path}: {step:,} of {began['num_steps']:,} train steps were trained with other values "
                "than the recipe now gives, and no checkpoint of them can be continued; nothing was trained. What "
                "changed:",
                *first_lines(told),
                f"  {saved[-1].folder.name}: {first or 'it lies behind the end of the run'}",
                "To go on: put back what changed and run the same command. `training.amendments` change learning_rate, "
                "optimizer and batch from a place on that has a checkpoint before it",
                "To train from the beginning: save the recipe under another name, or remove "
                f"{run.folder / PINNED}.json (the checkpoints stay, and the tables so far, in {training.log / 'cut'})",
            ]
        )
    )


def _own(training: Training) -> list[Checkpoint]:
    from training.resume import cut_prefix, own_checkpoints

    return own_checkpoints(training.checkpoints, partial(cut_prefix, training.spec.prefix))
