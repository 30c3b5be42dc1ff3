"""The preflight of a recipe's training alone: what `gristmill train --preflight` does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.pretraining.several import owned
from recipes.pretraining.train import Training, failure_of, launch_watched
from training.exits import Exit

if TYPE_CHECKING:
    from recipes.run import Run


def check_only(run: Run, training: Training) -> Path:
    """Start the processes, let them compare what they are and have, and end before the first train step.

    Returns:
        The folder of preflight.json and the processes' logs.

    Raises:
        TrainingFailed: with what they differ in or lack, and the exit code that a training would have ended with.
    """
    log = training.log / "preflight"  # of its own: what the training last said of itself stays
    alone = replace(training.spec.execution, preflight="only")
    only = replace(training, spec=replace(training.spec, folder=str(log), execution=alone), log=log)
    run.end_workers()
    with owned(training.folder, run):
        result = launch_watched(run, only, "preflight")
    if result is not Exit.DONE:
        raise failure_of(log, result)
    return log
