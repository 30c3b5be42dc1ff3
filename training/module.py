"""The LightningModule: how a train step of `training.step` runs under Lightning's Trainer and ModelParallelStrategy.

Optimization is manual: accumulation, clipping and dropped updates are ours, because Lightning's are unaware of FSDP2's
gradient synchronisation and refuse to clip fused AdamW. What Lightning brings: processes, devices, the loop, callbacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mixing.permutation import name_key
from training import checkpoint as checkpoints
from training.batches import Batch, TokenStream, tokens_after
from training.fitting import find_by_trial, micro_batch_of
from training.footprint import mesh_shape
from training.learning_rate import learning_rate_at
from training.models import build, num_parameters
from training.models.initial import initialise
from training.resume import seen_steps
from training.sharding import shard
from training.spec import TrainSpec, values_at
from training.step import Hooks, StepOptions, StepSums, make_optimizer, nothing, set_numbers, train_step
from training.tuning import lora
from training.waiting import WaitingClock
from training.watch import SPIKE_WINDOW, DivergedError, SpikeWatch, StopRequest


class TrainingModule(LightningModule):
    """A model in training.

    Attributes:
        spec: what is trained.
        stream: what it reads.
        resumed: the checkpoint it continues from, None for a new run.
        done: train steps done.
        sums: what the last train step left.
        passed_over: why newer checkpoints than `resumed` are not continued from; on the first process.
        waited_s: seconds of train steps that this process waited for others, until `waiting` is asked.
        spent_s: seconds of those train steps.
        dropped: whether the last train step's update was left out.
        before_update: called in each train step right before weights and moments change.
        beat: called after each micro-batch of a train step, as a sign of life.
    """

    def __init__(
        self, spec: TrainSpec, stream: TokenStream, resumed: checkpoints.Checkpoint | None, per_node: int
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec, self.stream, self.resumed, self.per_node = spec, stream, resumed, per_node
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.done = resumed.step if resumed else 0
        self.stop = StopRequest()
        self.spikes = SpikeWatch(spec.spikes.sigma, seen_steps(resumed) if resumed else ())
        self.sums: StepSums | None = None
        self.dropped = False
        self.dropped_in_a_row = 0
        self.network: nn.Module | None = None
        self.passed_over: list[str] = []
        self.clock = WaitingClock()
        self.before_update: Callable[[], None] = nothing
        self.beat: Callable[[], None] = nothing
        self.waited_s, self.spent_s = 0.0, 0.0
        self.options = StepOptions(
            micro_batch=micro_batch_of(spec, resumed, self.world, self.per_node, self.gather),
            world=self.world,
            precision=spec.precision,
            separator=spec.separator,
        )

    def configure_model(self) -> None:
        """Build without memory, shard, then fill this process's rows: no process ever holds the whole model twice."""
        if self.network is not None:
            return
        spec, device = self.spec, self.trainer.strategy.root_device
        with torch.device("meta"):
            network = build(spec.shape, recompute=spec.execution.recompute, attention=spec.execution.attention)
        if spec.lora is not None:
            lora.adapt(network, spec.lora)
        if spec.execution.compile:
            for block in network.blocks:
                block.compile()
        if self.world > 1:
            size = num_parameters(spec.shape)
            sharding = spec.execution.sharding
            replicas, shards = mesh_shape(sharding, self.world, self.per_node, size)
            again = sharding != "no_reshard"
            shard(network, replicas, shards, device.type, spec.precision, reshard_after_forward=again)
        network.to_empty(device=device)
        if spec.lora is not None:
            lora.fill(network, Path(spec.start_from), self.resumed, spec.seed)
            self.network = network
            return
        start = self.resumed
        if start is None and spec.start_from:
            start = checkpoints.open_checkpoint(Path(spec.start_from))
        if start is None:
            initialise(network, spec.shape, spec.seed)
        else:
            checkpoints.load(start, network)
        self.network = network

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, with its moments when a run continues."""
        optimizer = make_optimizer(self.network, self.spec.optimizer)
        if self.resumed:
            checkpoints.load_moments(self.resumed, self.network, optimizer)
        return optimizer

    def on_train_start(self) -> None:
        """Find the micro-batch of a GPU that trains alone, where it is left to the machine."""
        asked = self.spec.execution.micro_batch is None and self.resumed is None
        if asked and self.world == 1 and self.device.type == "cuda":
            found = find_by_trial(self.network, self.spec, self.options, self.device)
            self.options = replace(self.options, micro_batch=found)

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Do one train step: one batch of Lightning's is one update."""
        started, waited = time.perf_counter(), self.clock.waited_s
        keeps = self._keeps if self.spec.spikes.action == "drop_update" else None
        course, numbers = values_at(self.spec, batch.step)
        set_numbers(self.optimizers().optimizer, numbers)
        options = replace(self.options, clip=numbers.clip, z_loss=numbers.z_loss)
        rate = learning_rate_at(course, tokens_after(self.spec.spans, batch.step + 1))
        if self.spec.lora is not None and self.spec.lora.dropout:
            # Dropout is drawn anew in each train step, from where it stands: a run that goes on draws the same.
            torch.manual_seed(name_key(self.spec.seed, "dropout", str(batch.step), str(self.global_rank)) >> 1)
        self.sums = train_step(
            self.network,
            self.optimizers(),
            batch,
            rate,
            options,
            stop=self.stop.requested,
            hooks=Hooks(self.add_up, self.manual_backward, keeps, self.before_update, self.beat),
        )
        self.done = batch.step + 1
        self.waited_s += self.clock.waited_s - waited
        self.spent_s += time.perf_counter() - started

    def waiting(self) -> tuple[list[float], list[float]]:
        """Seconds that each process waited for others in train steps, and spent in them, since the last call."""
        found = torch.zeros(2, self.world, dtype=torch.float64, device=self.device)
        found[:, dist.get_rank() if self.world > 1 else 0] = torch.tensor([self.waited_s, self.spent_s])
        self.waited_s, self.spent_s = 0.0, 0.0
        self.add_up(found)
        waited, spent = found.tolist()
        return waited, spent

    def _keeps(self, totals: Tensor) -> bool:
        norm, loss, _ = totals.tolist()
        self.dropped = self.spikes.sees_spike(loss, norm)
        self.dropped_in_a_row = self.dropped_in_a_row + 1 if self.dropped else 0
        if self.dropped_in_a_row == SPIKE_WINDOW:
            raise DivergedError(f"train step {self.done}: {SPIKE_WINDOW} updates in a row were dropped; loss {loss}")
        return not self.dropped

    def add_up(self, tensor: Tensor) -> None:
        """Add a tensor up over all processes in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def gather(self, entry: Any) -> list[Any]:
        """Collect a value of each process, in order of ranks; waits for all."""
        if self.world == 1:
            return [entry]
        entries: list[Any] = [None] * self.world
        dist.all_gather_object(entries, entry)
        return entries
