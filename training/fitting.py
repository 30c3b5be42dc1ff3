"""The micro-batch of a training that leaves it to the machine: as many sequences at once as fit into memory.

A CPU is asked by `training.footprint`'s model of bytes, a GPU that trains alone by trial, several GPUs by the model,
because one that runs out of memory would leave the others waiting. The smallest of all processes counts for all. A
checkpoint remembers it, so that a run which goes on with as many processes has the same bits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoint
from training.footprint import (
    TRAINER_BYTES,
    footprint,
    free_bytes,
    mesh_shape,
    predicted_micro_batch,
    tried_micro_batch,
)
from training.models.shape import ModelShape, num_parameters
from training.spec import TrainSpec
from training.step import StepOptions, sequence_nats

# AdamW's two moments, made at the first update: a trial before it leaves room for them.
MOMENT_BYTES = 8


def micro_batch_of(
    spec: TrainSpec, resumed: Checkpoint | None, world: int, per_node: int, gather: Callable[[Any], list[Any]]
) -> int:
    """Sequences at once on every process; each process calls it.

    Args:
        spec: what is trained; its own number comes first.
        resumed: the checkpoint it continues from; its number comes second, if as many processes saved it.
        world: number of processes.
        per_node: of one machine, which share its memory.
        gather: collects a value of each process.
    """
    if spec.execution.micro_batch is not None:
        return spec.execution.micro_batch
    saved = resumed.state.get("micro_batch") if resumed else None
    if saved is not None and saved[0] == world:
        return int(saved[1])
    return min(gather(_predicted(spec, world, per_node)))


def _predicted(spec: TrainSpec, world: int, per_node: int) -> int:
    gpu = spec.execution.device != "cpu" and torch.cuda.is_available()
    context = max(span.context for span in spec.spans)
    _, shards = mesh_shape(spec.execution.sharding, world, per_node, num_parameters(spec.shape))
    one = footprint(
        spec.shape,
        context,
        spec.precision,
        device="cuda" if gpu else "cpu",
        shards=shards,
        recompute=spec.execution.recompute,
        background=spec.checkpoints.background and not gpu,
    )
    if gpu:
        free = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", 0)))[0]
        one = dataclasses.replace(one, process=0)
    else:
        free = free_bytes() // per_node
        one = dataclasses.replace(one, process=TRAINER_BYTES)
    return predicted_micro_batch(one, free, most_at_once(spec, world), context=context, device="cuda" if gpu else "cpu")


def measured_at_once(shape: ModelShape, context: int, most: int) -> int:
    """Sequences at once where a model is only measured by this process, on a GPU where there is one."""
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    one = footprint(shape, context, "fp32", device=device)
    free = torch.cuda.mem_get_info()[0] if gpu else free_bytes()
    return predicted_micro_batch(one, free, most, context=context, device=device)


def most_at_once(spec: TrainSpec, world: int) -> int:
    """Sequences of a process's share of the largest batch."""
    return max(-(-span.sequences // world) for span in spec.spans)


def find_by_trial(network: nn.Module, spec: TrainSpec, options: StepOptions, device: torch.device) -> int:
    """The largest micro-batch with which forward and backward get their memory on this device, alone."""
    context = max(span.context for span in spec.spans)
    room = MOMENT_BYTES * sum(parameter.numel() for parameter in network.parameters())

    token = 1 if options.separator == 0 else 0  # not a document a token, which no text has

    def fits(size: int) -> bool:
        tokens = torch.full((size, context + 1), token, dtype=torch.int64, device=device)
        return step_fits(network, tokens, options, room)

    return tried_micro_batch(fits, options.micro_batch, most_at_once(spec, 1))


def step_fits(network: nn.Module, tokens_BT1: Tensor, options: StepOptions, room: int) -> bool:
    """Whether forward and backward of these sequences get their memory, with `room` bytes taken beside them."""
    try:
        beside = torch.empty(room, dtype=torch.uint8, device=tokens_BT1.device)
        loss, _ = sequence_nats(network, tokens_BT1, 1.0, options)
        loss.backward()
        del loss, beside
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        network.zero_grad(set_to_none=True)
        if tokens_BT1.device.type == "cuda":
            torch.cuda.empty_cache()
