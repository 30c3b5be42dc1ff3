"""The numbers of a fine-tuning: draws, train steps, learning rate, parameters, and the lines that say them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from recipes.pretraining.shapes import fitted_rate, tokens_of
from training.learning_rate import LearningRate
from training.models.shape import ModelShape, linear_layers, num_parameters

if TYPE_CHECKING:
    from training.tuning.prepare import Prepared, PreparedSet
    from training.tuning.tokens import Encoder

# Share of the train steps over which the learning rate rises, where the recipe says none.
_WARMUP = 0.03
# Below it a tuning hardly moves the model, whatever its learning rate.
_FEW_STEPS = 10


def table(wanted: Any, prepared: Prepared, encoder: Encoder, shape: ModelShape) -> list[str]:
    """Lines that say what is trained on: counts of each set, what was dropped, steps, parameters."""
    from training.tuning.stream import draws_of

    drawn = draws_of(prepared.sets, wanted.epochs)
    lines = [
        f"{'set':<16} {'rows':>9} {'kept':>9} {'held out':>8} {'cut':>7} {'tokens':>11} {'answers':>11} "
        f"{'sequences':>9} {'padding':>8} {'epochs':>7}"
    ]
    for one in prepared.sets:
        epochs = drawn[one.name] / one.sequences if one.sequences else 0
        lines.append(
            f"{one.name:<16} {one.rows:>9,} {one.kept:>9,} {one.held_out:>8,} {one.cut:>7,} {one.tokens:>11,} "
            f"{one.answer_tokens:>11,} {one.sequences:>9,} {_padding(one, prepared.context):>8.1%} {epochs:>7.4g}"
        )
        if wanted.held_out and one.kept and not one.held_out:
            lines.append(
                f"  nothing of {one.name} is held out: {wanted.held_out:g} of {one.kept:,} examples came to none, so "
                "no held-out loss will be shown; raise finetuning.held_out"
            )
        if one.dropped:
            lines.append("  dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in one.dropped.items()))
    batch, steps = steps_of(wanted, prepared)
    rate = learning_rate_of_tuning(wanted, prepared)
    lines.append(
        f"{steps:,} train step{'s' * (steps > 1)} of {batch:,} sequences of {prepared.context:,} tokens; learning rate "
        f"{rate.peak:g} ({rate.shape}), warm-up over {rate.warmup_tokens // (batch * prepared.context):,} steps"
    )
    if steps < _FEW_STEPS:
        lines.append(
            f"{steps:,} train step{'s are' if steps > 1 else ' is'} few: lower finetuning.batch, or raise "
            "finetuning.epochs"
        )
    grown = replace(shape, vocabulary=max(shape.vocabulary, encoder.vocabulary))
    lines.append(_parameters(wanted, grown, bool(encoder.new)))
    if encoder.new:
        lines.append(f"{len(encoder.new)} new tokens; their rows begin as the mean of what spelt them before")
    if prepared.joined:
        lines.append(
            f"{prepared.joined:,} answers begin inside a token: asked, the model may begin them otherwise; end the "
            "prompt with a special token, or with a line break where no answer begins with white space"
        )
    if prepared.stop is None:
        lines.append("the template ends answers with no special token: generation will not know where to stop")
    return lines


def _padding(one: PreparedSet, context: int) -> float:
    """Share of positions without a token; separators count as tokens."""
    places = (one.sequences + one.held_out_sequences) * (context + 1)
    return max(0.0, 1 - (one.tokens + one.kept) / places) if places else 0.0


def _parameters(wanted: Any, shape: ModelShape, embeddings: bool) -> str:
    """How many parameters are trained; `embeddings`: embedding and output layer too, whatever `lora` says."""
    whole = num_parameters(shape)
    if wanted.lora is None:
        return f"all {whole:,} parameters are trained"
    trained, targets = num_trained(wanted, shape, embeddings), targets_of(wanted, shape)
    beside = ""
    if embeddings:
        beside = f", and {_outer(shape):,} of embedding and output layer, for the template's new tokens"
    updated = f"rank {wanted.lora.rank} on {', '.join(targets)}{beside}"
    return f"{trained:,} parameters are trained ({updated}); the model has {whole:,}"


def _outer(shape: ModelShape) -> int:
    """Parameters of the embedding and the output layer."""
    return shape.vocabulary * shape.width * (1 if shape.tied else 2)


def num_trained(wanted: Any, shape: ModelShape, embeddings: bool) -> int | None:
    """Parameters that low-rank updates train, with embedding and output layer where asked; None: all are trained."""
    if wanted.lora is None:
        return None
    layers = linear_layers(shape)
    inner = wanted.lora.rank * shape.layers * sum(sum(layers[name]) for name in targets_of(wanted, shape))
    return int(inner) + (_outer(shape) if embeddings else 0)


def targets_of(wanted: Any, shape: ModelShape) -> tuple[str, ...]:
    """Layers that are adapted; `all` means those that the model has."""
    return tuple(linear_layers(shape)) if wanted.lora.targets == ("all",) else tuple(wanted.lora.targets)


def steps_of(wanted: Any, prepared: Prepared) -> tuple[int, int]:
    """Sequences of a train step, and train steps; the last one may be smaller."""
    batch = max(1, tokens_of(wanted.batch, prepared.context, 0) // prepared.context)
    return batch, -(-positions_of_tuning(wanted, prepared) // batch)


def positions_of_tuning(wanted: Any, prepared: Prepared) -> int:
    """Sequences of the whole run."""
    from training.tuning.stream import draws_of

    return sum(draws_of(prepared.sets, wanted.epochs).values())


def learning_rate_of_tuning(wanted: Any, prepared: Prepared) -> LearningRate:
    """Its course over the run; without one in the recipe, linear from a usual peak.

    A course that falls to 0 ends one train step behind the run, as transformers' schedules do: a rate counts to the end
    of its step, so the last train step, and the only one of a small file, would train nothing.
    """
    batch, steps = steps_of(wanted, prepared)
    step, total = batch * prepared.context, positions_of_tuning(wanted, prepared) * prepared.context
    given = wanted.learning_rate
    if given is not None:
        course = fitted_rate(given, prepared.context, tokens_of(wanted.batch, prepared.context, 0), total)
        if course.final:
            return course
        longer = course.decay_tokens + step if course.decay_tokens else 0
        return replace(course, total_tokens=total + step, decay_tokens=longer)
    # A warm-up of one train step is none: the first one has the peak.
    warmup = min(total, max(1, round(_WARMUP * steps)) * step)
    return LearningRate(wanted.default_peak, total + step, warmup, shape="linear")
