"""How fast proxies of a shape train here: a few micro-batches of random text, timed before hours are spent."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from training.batches import Batch
from training.models import build
from training.models.initial import initialise
from training.models.shape import flops_per_token, num_parameters
from training.step import StepOptions, make_optimizer, sequence_nats, train_step
from training.swarm import TOKENS_AT_ONCE, SwarmOptions

MOST_PARAMETERS = 30_000_000  # larger shapes are foretold from the operations a second of one with fewer layers
MOST_FLOPS = 2e11  # of a timed micro-batch: some seconds on one core
LEAST_S = 1.0  # of timed work, after one micro-batch that warms up
MOST_TIMED = 8


@dataclass(frozen=True)
class ProxySpeed:
    """Tokens a second of one process, and what they were timed on.

    Attributes:
        training: tokens a second of training.
        measuring: tokens a second of measuring held-out loss.
        parameters: of the model that was timed.
        exact: whether that is the shape asked for, or a smaller one whose operations a second were taken.
    """

    training: float
    measuring: float
    parameters: int
    exact: bool


def proxy_speed(options: SwarmOptions) -> ProxySpeed:
    """Time train steps of one micro-batch and its held-out measurement, in this process, by the swarm's threads.

    Takes a second or two, or as long as three micro-batches where one takes longer. Memory is that of a proxy.
    """
    torch.set_num_threads(options.threads)
    shape, exact = options.shape, True
    while num_parameters(shape) > MOST_PARAMETERS and shape.layers > 1:
        shape, exact = dataclasses.replace(shape, layers=shape.layers // 2), False
    tokens = min(TOKENS_AT_ONCE, options.batch_tokens, int(MOST_FLOPS / flops_per_token(shape)))
    sequences = max(1, tokens // shape.context)
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    initialise(model, shape, 0)
    steps = StepOptions(sequences, precision=options.precision, separator=options.separator)
    optimizer = make_optimizer(model, options.optimizer)
    ids = torch.randint(0, shape.vocabulary, (sequences, shape.context + 1), generator=torch.Generator().manual_seed(0))
    batch = Batch(0, 0, sequences, torch.zeros(sequences, dtype=torch.int64).numpy(), ids)
    train_s = _timed(lambda: train_step(model, optimizer, batch, 1e-6, steps))
    with torch.no_grad():
        measure_s = _timed(lambda: sequence_nats(model, ids, 0.0, steps))
    tokens = sequences * shape.context
    smaller = flops_per_token(shape) / flops_per_token(options.shape)
    return ProxySpeed(tokens / train_s * smaller, tokens / measure_s * smaller, num_parameters(shape), exact)


def _timed(call: Callable[[], object]) -> float:
    """Seconds of one call: the median of several after one that warms up."""
    call()
    spent: list[float] = []
    while len(spent) < MOST_TIMED and sum(spent) < LEAST_S:
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return sorted(spent)[len(spent) // 2]
