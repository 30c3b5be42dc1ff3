"""What training the target model will cost, said before it is spent: train steps, time, checkpoints and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.ablation.swarm import PROXY_HELD_OUT
from recipes.pretraining.gpus import visible_gpus
from recipes.pretraining.shapes import (
    batch_lines,
    batch_tokens_of,
    learning_rate_of,
    optimizer_of,
    phase_tokens,
    shape_of,
    steps_of_phases,
)
from training.footprint import (
    SAVED_BYTES,
    STATE_BYTES,
    TRAINER_BYTES,
    checkpoint_bytes,
    footprint,
    free_bytes,
    mesh_shape,
    predicted_micro_batch,
)
from training.models.shape import ModelShape, flops_per_token, num_parameters
from training.peak import peak_of
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run

# Share of a GPU's peak that is counted on where nothing was timed on it; docs/training.md has what others reach.
ASSUMED_MFU = 0.4


@dataclass(frozen=True)
class TrainingForecast:
    """What the target's training will come to.

    Attributes:
        parameters: of the model, embeddings counted.
        tokens: that it reads.
        steps: train steps, with the batch's warm-up.
        flops: operations; attention's grow with the context of each phase.
        processes: that train on one machine.
        nodes: machines that train.
        seconds: of training alone, without measuring and saving; None where nothing tells.
        basis: what the seconds rest on.
        checkpoint_bytes: of one checkpoint, what all processes write together.
        process_bytes: most memory of a process, with `micro_batch`.
        free_bytes: memory that is free now on this machine, for all its processes; None for GPUs.
        micro_batch: sequences at once on a process.
        share: sequences of a process's share of the largest batch.
        there: whether it is finished.
    """

    parameters: int
    tokens: int
    steps: int
    flops: float
    processes: int
    nodes: int
    seconds: float | None
    basis: str
    checkpoint_bytes: int
    process_bytes: int
    free_bytes: int | None
    micro_batch: int
    share: int
    there: bool = False

    @property
    def fits(self) -> bool:
        """Whether all processes of a machine get their memory."""
        return self.free_bytes is None or self.process_bytes * self.processes <= self.free_bytes


def training_forecast(run: Run, *, there: bool = False) -> TrainingForecast | None:
    """Foretell the training of a recipe that has one; None for others.

    On a CPU a few train steps are timed in a worker (seconds), of a shape with fewer layers above 30 million
    parameters; nothing where it is `there`, finished.
    """
    recipe: Any = run.recipe
    if recipe.model is None or not recipe.schedule or recipe.tokenizer is None:
        return None
    shape = shape_of(recipe.model, vocabulary_of(recipe))
    batches = batch_lines(recipe.training, shape.context)
    contexts = [phase.context or shape.context for phase in recipe.schedule]
    spans = list(zip(phase_tokens(recipe), contexts, strict=True))
    tokens, flops = sum(tokens for tokens, _ in spans), training_flops(shape, spans)
    batch = max(size for _, size in batches)
    timed = _timed_options(run, shape, tokens)
    told = (num_steps(recipe), flops, batch)
    background = recipe.checkpoints.background
    return cost_of_training(run, timed, told, contexts, background=background, there=there)


def training_is_there(run: Run) -> bool:
    """Whether this very training was finished before; false where there is none, and while text or weights are not."""
    from recipes.show import are_there, planned_stages, text_is_made

    recipe = run.recipe
    if recipe.tokenizer is None or recipe.model is None or not recipe.schedule or recipe.open_phases():
        return False
    if not planned_stages(run) or not text_is_made(run):
        return False
    return are_there(run, None)[1]


def cost_of_training(
    run: Run,
    timed: SwarmOptions,
    told: tuple[int, float, int],
    contexts: Sequence[int],
    *,
    background: bool = False,
    trained: int | None = None,
    there: bool = False,
) -> TrainingForecast:
    """What the trainer's processes come to for a model.

    Args:
        run: the run.
        timed: the shape, its tokens in all, batch and precision, as they are timed.
        told: train steps, operations, tokens of the largest batch.
        contexts: of its phases.
        background: whether checkpoints are written in the background.
        trained: parameters that are trained; None: all.
        there: whether it is finished.
    """
    from recipes.pretraining.several import num_nodes
    from recipes.pretraining.train import num_processes

    steps, flops, batch = told
    processes, nodes, gpus, shape = num_processes(run), num_nodes(run), visible_gpus(), timed.shape
    seconds, basis = (0.0, "") if there else _seconds(run, timed, flops, gpus)
    context = max(contexts)  # its sequences take the most memory
    share = -(-batch // (context * processes * nodes))
    wanted = run.recipe.execution.training
    parameters = num_parameters(shape)
    _, shards = mesh_shape(wanted.sharding, nodes * processes, processes, parameters)
    one = footprint(
        shape,
        context,
        timed.precision,
        device="cuda" if gpus else "cpu",
        shards=shards,
        recompute=wanted.recompute,
        background=background and not gpus,
        process=0 if gpus else TRAINER_BYTES,
    )
    if trained is not None:  # the others are weights alone
        one = replace(one, state=4 * -(-parameters // shards) + STATE_BYTES * -(-trained // shards))
    free = None if gpus else free_bytes()
    micro = wanted.micro_batch
    if micro is None:
        room = (free or 0) // processes
        micro = share if gpus else predicted_micro_batch(one, room, share, context=context)
    return TrainingForecast(
        parameters=parameters,
        tokens=timed.tokens,
        steps=steps,
        flops=flops,
        processes=processes,
        nodes=nodes,
        seconds=None if seconds is None else seconds / nodes,
        basis=basis,
        checkpoint_bytes=checkpoint_bytes(shape) if trained is None else SAVED_BYTES * trained,
        process_bytes=one.total(micro),
        free_bytes=free,
        micro_batch=micro,
        share=share,
        there=there,
    )


def vocabulary_of(recipe: Any) -> int:
    """Tokens of the recipe's vocabulary: the tokenizer's where it is there, else as many as it is to have."""
    wanted = recipe.tokenizer
    if wanted.path is not None and Path(wanted.path).exists():
        from mixing.tokenizer import load_tokenizer

        return load_tokenizer(wanted.path).vocabulary
    return int(wanted.vocabulary)


def num_steps(recipe: Any) -> int:
    """Train steps of a recipe's schedule: each phase is rounded down to whole ones, as the plan does."""
    return sum(number for runs in steps_of_phases(recipe) for number, _ in runs)


def training_flops(shape: ModelShape, spans: Sequence[tuple[int, int]]) -> float:
    """Operations of training on (tokens, their context) of each phase."""
    return float(sum(tokens * flops_per_token(shape, context) for tokens, context in spans))


def _timed_options(run: Run, shape: ModelShape, tokens: int) -> SwarmOptions:
    """The target's train step as a process is timed with it."""
    from recipes.pretraining.train import execution_of

    recipe: Any = run.recipe
    return SwarmOptions(
        shape=shape,
        tokens=tokens,
        batch_tokens=batch_tokens_of(recipe.training, shape.context),
        learning_rate=learning_rate_of(recipe.training, shape.context, tokens),
        optimizer=optimizer_of(recipe.training),
        precision=recipe.training.precision,
        evaluate=1,
        max_held_out=PROXY_HELD_OUT,
        threads=execution_of(run).threads,
    )


def _seconds(run: Run, timed: SwarmOptions, flops: float, gpus: Sequence[str]) -> tuple[float | None, str]:
    """Seconds of all processes together, and what they rest on."""
    from recipes.pretraining.train import num_processes

    processes = num_processes(run)
    if gpus:
        peaks = [peak_of(name, timed.precision) for name in gpus[:processes]]
        names = " and ".join(dict.fromkeys(name or "a GPU without a name" for name in gpus[:processes]))
        slowest = min((peak for peak in peaks if peak is not None), default=None)
        if slowest is None or None in peaks:
            return None, f"no peak of {names} in {timed.precision} is known"
        return flops / (slowest * ASSUMED_MFU * processes), f"if {names} is used to {ASSUMED_MFU:.0%} of its peak"
    from training.speed import proxy_speed

    speed = run.pool.submit(proxy_speed, timed).result()
    basis = f"a process timed just now at {speed.training:,.0f} tokens/s"
    if not speed.exact:
        basis += f" (from the operations a second of {speed.parameters / 1e6:.0f}M parameters)"
    # What is timed has the model's own context.
    longer = flops / training_flops(timed.shape, [(timed.tokens, timed.shape.context)])
    return timed.tokens * longer / (speed.training * processes), basis
