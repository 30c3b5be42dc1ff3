"""A recipe's model and training values as the plain numbers that training takes."""

from __future__ import annotations

from typing import Any

from curation.amounts import Amount, in_tokens
from training.learning_rate import LearningRate
from training.models.shape import ModelShape
from training.spec import Optimizer


def shape_of(model: Any, vocabulary: int) -> ModelShape:
    """The shape of a recipe's model at a vocabulary."""
    return ModelShape(
        family=model.family,
        vocabulary=vocabulary,
        width=model.width,
        layers=model.layers,
        heads=model.heads,
        feedforward=model.feedforward,
        context=model.context,
        kv_heads=model.kv_heads,
        tied=model.tied,
        rope_base=model.rope_base,
        norm_epsilon=model.norm_epsilon,
        window=model.window or 256,
    )


def tokens_of(size: Amount, context: int, batch_tokens: int) -> int:
    """Tokens of an amount of training."""
    return in_tokens(size, batch_tokens=batch_tokens, context=context)


def phase_tokens(recipe: Any) -> list[int]:
    """Tokens of each phase of a recipe's schedule, for its model; sequences are those of the phase's own context."""
    context, batch = recipe.model.context, batch_tokens_of(recipe.training, recipe.model.context)
    if any(phase.tokens.unit == "train steps" for phase in recipe.schedule) and len(recipe.training.batch) > 1:
        stepped = [sum(number * tokens for number, tokens in runs) for runs in steps_of_phases(recipe)]
    else:
        stepped = [phase.tokens.number * batch for phase in recipe.schedule]
    return [
        tokens if phase.tokens.unit == "train steps" else tokens_of(phase.tokens, phase.context or context, 0)
        for phase, tokens in zip(recipe.schedule, stepped, strict=True)
    ]


def steps_of_phases(recipe: Any) -> list[list[tuple[int, int]]]:
    """(train steps, tokens of each) of each stretch of equal train steps, by phase, as the plan cuts them.

    Raises:
        ScheduleError: for a phase shorter than one train step.
    """
    from mixing.schedule import Amount, BatchLine, Phase, cut_steps  # numpy, which validating a recipe rarely needs

    context = recipe.model.context
    batch = [BatchLine(start, size) for start, size in batch_lines(recipe.training, context)]
    phases = [
        Phase(phase.name, Amount(phase.tokens.number, phase.tokens.unit), {}, phase.context or context)
        for phase in recipe.schedule
    ]
    return [
        [(run.num_steps, run.sequences * phase.context) for run in runs]
        for phase, runs in zip(phases, cut_steps(phases, batch), strict=True)
    ]


def batch_lines(values: Any, context: int) -> list[tuple[int, int]]:
    """(tokens trained before it, tokens of a train step) of each batch size, for a model of this context."""
    return [(tokens_of(line.start, context, 0), tokens_of(line.size, context, 0)) for line in values.batch]


def batch_tokens_of(values: Any, context: int) -> int:
    """Tokens of the first train step's batch."""
    return tokens_of(values.batch[0].size, context, 0)


def learning_rate_of(values: Any, context: int, total_tokens: int) -> LearningRate:
    """The course of the learning rate over a run of `total_tokens`; warm-up and decay are cut to fit."""
    return fitted_rate(values.learning_rate, context, batch_tokens_of(values, context), total_tokens)


def fitted_rate(rate: Any, context: int, batch_tokens: int, total_tokens: int) -> LearningRate:
    """A recipe's `learning_rate` over a run of `total_tokens`, in train steps of `batch_tokens`."""
    decay = 0 if rate.decay is None else tokens_of(rate.decay, context, batch_tokens)
    return rate_over(rate, tokens_of(rate.warmup, context, batch_tokens), decay, total_tokens)


def rate_over(rate: Any, warmup: int, decay: int, total_tokens: int) -> LearningRate:
    """A recipe's `learning_rate` with its warm-up and decay in tokens, which are cut to fit into `total_tokens`."""
    return LearningRate(
        peak=rate.peak,
        total_tokens=total_tokens,
        warmup_tokens=min(warmup, max(0, total_tokens - decay)),
        final=rate.final,
        shape=rate.shape,
        decay_tokens=min(decay, total_tokens),
    )


def optimizer_of(values: Any) -> Optimizer:
    """AdamW's numbers."""
    made = values.optimizer
    return Optimizer(betas=made.betas, weight_decay=made.weight_decay, clip=made.clip, z_loss=made.z_loss)
