"""What a fine-tuning will cost, said before it is spent."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.finetuning.finetune import explained, finished_tuning, prepared_dry
from recipes.finetuning.numbers import learning_rate_of_tuning, num_trained, positions_of_tuning, steps_of
from recipes.finetuning.start import start_of
from recipes.pretraining.training_cost import TrainingForecast, cost_of_training, training_flops, training_is_there
from training.spec import Optimizer
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run


def tuning_forecast(run: Run) -> TrainingForecast | None:
    """Foretell a recipe's fine-tuning; None for a recipe that asks for none.

    Its examples are prepared in a folder that is thrown away, which takes as long as `finetune --dry-run`. The time is
    that of training all weights: low-rank updates take less.

    Raises:
        RunError: for what is tuned, examples or a template that are not there, and before the tokenizer is made.
    """
    from recipes.pretraining.train import execution_of

    wanted: Any = run.recipe.finetuning
    if wanted is None:
        return None
    start = start_of(run, dry=True)
    with explained(), tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        prepared, encoder = prepared_dry(run, start, Path(folder))
        batch, steps = steps_of(wanted, prepared)
        shape = replace(start.shape, vocabulary=max(start.shape.vocabulary, encoder.vocabulary))
        tokens = positions_of_tuning(wanted, prepared) * prepared.context
        rate, trained = learning_rate_of_tuning(wanted, prepared), num_trained(wanted, shape, bool(encoder.new))
        is_there = start.path is not None or training_is_there(run)
        there = is_there and finished_tuning(run, start_of(run))
    timed = SwarmOptions(
        shape=replace(shape, context=prepared.context),
        tokens=tokens,
        batch_tokens=batch * prepared.context,
        learning_rate=rate,
        optimizer=Optimizer(),
        precision=wanted.precision,
        evaluate=1,
        max_held_out=1,
        threads=execution_of(run).threads,
    )
    told = (steps, training_flops(shape, [(tokens, prepared.context)]), batch * prepared.context)
    return cost_of_training(run, timed, told, [prepared.context], trained=trained, there=there)
