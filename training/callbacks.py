"""Lightning callbacks: the journal, held-out losses, checkpoints and requests to stop, in that order."""

from __future__ import annotations

import itertools
import math
import os
import platform
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from training import checkpoint as checkpoints
from training.alive import on_compiling
from training.background import BackgroundSaver
from training.batches import Batch, position_after, tokens_after
from training.evaluate import DomainLoss, held_out_losses, mean_bits_per_byte
from training.learning_rate import learning_rate_at
from training.module import TrainingModule
from training.peak import peak_of, utilisation
from training.resume import cut_prefix, is_due, prune
from training.spec import TrainSpec, values_at
from training.step import StepSums
from training.waiting import SlowRank
from training.watch import (
    Speed,
    SpikeError,
    Table,
    Watchdog,
    check_finite,
    domain_means,
    rows_of,
    set_aside,
    write_status,
)

COLUMNS = ("step", "position", "tokens", "loss", "gradient_norm", "learning_rate", "dropped_updates", "tokens_per_s")
SIGN_OF_LIFE_S = 5.0
SLOW_SAID_EVERY_S = 600.0
MOST_PASSED_OVER = 3
HELD_OUT_COLUMNS = ("step", "position", "tokens", "domain", "loss", "bits_per_byte", "num_tokens")


class Journal(Callback):
    """Writes metrics.csv and status.json every `log_every` train steps, and finds divergence.

    Losses stay on the device in between: one wait for it a line.
    """

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:
        """Open the files, cut back to the step that the run continues from."""
        self.folder = Path(module.spec.folder)
        self.steps: list[tuple[Batch, StepSums]] = []
        self.dropped = 0
        if trainer.is_global_zero:
            continue_logs(module.spec, module.resumed)
            columns = [*COLUMNS, *(f"loss/{name}" for name in module.stream.domains)]
            self.table = Table(self.folder / "metrics.csv", columns, module.done)
        stall_s = module.spec.execution.stall_s
        self.sign_s = min(SIGN_OF_LIFE_S, stall_s / 4)
        self.watchdog = Watchdog(stall_s, self.folder / "status.json")
        if "GRISTMILL_WATCHED" not in os.environ:  # by a supervisor, from outside
            self.watchdog.start()
        self.slow, self.slow_said_s = SlowRank(module.gather(platform.node())), -math.inf
        if module.world > 1:
            module.clock.start()
        self.speed = Speed()
        self.speed.read(tokens_after(module.spec.spans, module.done))
        self.slow_now = ""
        self.line: dict[str, Any] = {}
        self.held_out: dict[str, Any] = {}
        self.shown_s = 0.0
        gpu = torch.cuda.get_device_name(module.device) if module.device.type == "cuda" else ""
        self.peak = peak_of(gpu, module.spec.precision)
        module.beat = partial(self.show, trainer, module, "training")
        if module.spec.execution.compile:
            on_compiling(partial(self.show, trainer, module, "compiling", now=True), module.beat)
        self.show(trainer, module, "training")

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Batch, _: int) -> None:
        """Note the train step; write when a line is due."""
        self.steps.append((batch, module.sums))
        self.dropped += module.dropped
        self.show(trainer, module, "training")
        if module.done % module.spec.execution.log_every == 0 or module.done == module.spec.num_steps:
            self.write(trainer, module)

    def on_train_end(self, trainer: Trainer, module: TrainingModule) -> None:
        """Nothing more is waited for."""
        self.watchdog.stop()

    def write(self, trainer: Trainer, module: TrainingModule) -> None:
        """Write the line of the steps since the last one; every process calls it.

        Raises:
            DivergedError: on every process alike, if a loss or norm is no number.
        """
        if not self.steps:
            return
        nats, tokens_each, domains = self._sequences(module)
        totals = torch.stack([sums.totals for _, sums in self.steps]).tolist()
        of_steps = [(batch.step + 1, loss, norm) for (batch, _), (norm, loss, _) in zip(self.steps, totals)]
        loss, norm = float(nats.sum() / tokens_each.sum()), totals[-1][0]
        means = domain_means(nats, domains, tokens_each, len(module.stream.domains))
        tokens = tokens_after(module.spec.spans, module.done)
        line = {
            "step": module.done,
            "position": position_after(module.spec.spans, module.done),
            "tokens": tokens,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate_at(values_at(module.spec, module.done - 1)[0], tokens),
            "dropped_updates": self.dropped,
            "tokens_per_s": round(self.speed.read(tokens), 1),
        }
        self.steps, self.dropped = [], 0
        self._look_for_slow_ranks(module)
        if trainer.is_global_zero:
            by_domain = {f"loss/{name}": mean for name, mean in zip(module.stream.domains, means)}
            self.table.append([{**line, **by_domain}])
        self.line = {key: None if value != value else value for key, value in line.items()}
        context = module.spec.spans[-1].context
        self.line["mfu"] = utilisation(module.spec.shape, context, line["tokens_per_s"], module.world, self.peak)
        self.show(trainer, module, "training", now=True)
        if module.spec.spikes.action == "warn":
            for one in of_steps:
                check_finite(*one)

    def _look_for_slow_ranks(self, module: TrainingModule) -> None:
        """Name the process that the others wait for, in status.json and now and then in the log."""
        if module.world == 1:
            return
        found = self.slow.add(*module.waiting())
        if found is None:
            return
        self.slow_now = found
        if found and time.monotonic() - self.slow_said_s > SLOW_SAID_EVERY_S and not dist.get_rank():
            self.slow_said_s = time.monotonic()
            say(found)

    def _sequences(self, module: TrainingModule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nats, predicted tokens and domain of every sequence of the whole batches, in the order of positions."""
        totals = [batch.total for batch, _ in self.steps]
        found = torch.zeros(sum(totals), 2, dtype=torch.float64, device=module.device)
        start = 0
        for (batch, sums), total in zip(self.steps, totals):
            first = start + batch.first
            found[first : first + len(sums.sequences)] = sums.sequences
            start += total
        module.add_up(found)
        nats, tokens_each = found.cpu().numpy().T
        return nats, tokens_each, np.concatenate([batch.domains for batch, _ in self.steps])

    def show(self, trainer: Trainer, module: TrainingModule, state: str, *, now: bool = False) -> None:
        """Write status.json: at a line, and as a sign of life every few seconds."""
        self.watchdog.beat()
        if trainer.is_global_zero and (now or time.monotonic() - self.shown_s > self.sign_s):
            self.shown_s = time.monotonic()
            status = {
                **self.line,
                "step": module.done,
                "num_steps": module.spec.num_steps,
                "tokens": tokens_after(module.spec.spans, module.done),
                "world": module.world,
                "host": platform.node(),
                "state": state,
                "resumed": module.resumed.folder.name if module.resumed else None,
                "passed_over": module.passed_over[:MOST_PASSED_OVER],
                **({"held_out": self.held_out} if self.held_out else {}),
                **({"slow": self.slow_now} if self.slow_now else {}),
                "time_s": time.time(),
            }
            write_status(self.folder / "status.json", status)


class Evaluator(Callback):
    """Measures held-out losses and writes held_out.csv."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:
        """Open the file; measure the untrained model if asked."""
        if trainer.is_global_zero:
            self.table = Table(Path(module.spec.folder) / "held_out.csv", HELD_OUT_COLUMNS, module.done)
        if module.spec.evaluation.at_start and module.done == 0:
            self.measure(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Batch, _: int) -> None:
        """Measure when due."""
        every = module.spec.evaluation.every
        if every is not None and (module.done % every == 0 or module.done == module.spec.num_steps):
            self.measure(trainer, module)

    def measure(self, trainer: Trainer, module: TrainingModule) -> None:
        """Measure every domain; every process calls it."""
        if module.stream.held_out is None:
            return
        self.journal.show(trainer, module, "measuring", now=True)
        losses = held_out_losses(
            module.network,
            module.stream.held_out,
            module.options,
            module.device,
            rank=trainer.global_rank,
            reduce=module.add_up,
            beat=partial(self.journal.show, trainer, module, "measuring"),
        )
        if trainer.is_global_zero:
            spans = module.spec.spans
            now = (module.done, position_after(spans, module.done), tokens_after(spans, module.done))
            rows = [(*now, found.domain, found.loss_nats, found.bits_per_byte, found.num_tokens) for found in losses]
            self.table.append([dict(zip(HELD_OUT_COLUMNS, row)) for row in rows])
            self.journal.held_out = {"step": module.done, **_means(losses)}
            self.journal.show(trainer, module, "training", now=True)


def _means(losses: list[DomainLoss]) -> dict[str, Any]:
    """Means over domains by their measured tokens, and each domain's loss and bits per byte."""
    known = [found for found in losses if found.loss_nats is not None]
    tokens = sum(found.num_tokens for found in known)
    bits = all(found.bits_per_byte is not None for found in known)
    return {
        "loss": sum(found.loss_nats * found.num_tokens for found in known) / tokens if tokens else None,
        "bits_per_byte": mean_bits_per_byte(known) if tokens and bits else None,
        "domains": {found.domain: [found.loss_nats, found.bits_per_byte] for found in losses},
    }


class Saver(Callback):
    """Saves checkpoints when due, and ends the run after one when any process was asked to stop."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.unread: list[tuple[int, StepSums]] = []
        self.stopped = False
        self.background: BackgroundSaver | None = None

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:
        """Save the untrained model if asked."""
        if module.spec.checkpoints.background:
            free = module.spec.execution.min_free_bytes
            beat = partial(self.journal.show, trainer, module, "saving")
            self.background = BackgroundSaver(trainer.global_rank, module.gather, free, beat)
            module.before_update = self.background.wait_for_copy
        if module.done == 0 and module.spec.num_steps > 0 and is_due(module.spec.checkpoints, 0, 1):
            self.save(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Batch, _: int) -> None:
        """Look at finished train steps, save when due, stop when asked."""
        if self.background is not None:
            self.background.look()
        self.unread.append((module.done, module.sums))
        due = is_due(module.spec.checkpoints, module.done, module.spec.num_steps)
        # On a GPU the step that runs is not waited for: its totals are read a step later.
        waiting = 1 if module.device.type == "cuda" and not due else 0
        while len(self.unread) > waiting:
            self._look(trainer, module, *self.unread.pop(0))
        if due or self.stopped:
            self.journal.write(trainer, module)
            self.save(trainer, module)
        if self.stopped:
            trainer.should_stop = True

    def _look(self, trainer: Trainer, module: TrainingModule, step: int, sums: StepSums) -> None:
        norm, loss, stopping = sums.totals.tolist()
        action = module.spec.spikes.action
        if action == "warn":
            check_finite(step, loss, norm)
        self.stopped = self.stopped or stopping > 0
        # Where updates are dropped, the train step itself has looked.
        if action == "drop_update" or not module.spikes.sees_spike(loss, norm):
            return
        why = f"train step {step}: loss {loss:.4f}, gradient norm {norm:.4f} stand out"
        if action == "warn":
            if trainer.is_global_zero:
                say(f"{why}; what it read: gristmill trace RECIPE --train-step {step - 1}")
            return
        position = position_after(module.spec.spans, step)
        self.journal.line["spike"] = {"step": step, "position": position, "why": why}
        self.journal.show(trainer, module, "spiked", now=True)
        raise SpikeError(why)

    def save(self, trainer: Trainer, module: TrainingModule) -> None:
        """Save; every process calls it."""
        spec = module.spec
        self.journal.show(trainer, module, "saving", now=True)
        position = position_after(spec.spans, module.done)
        manifest = {
            "step": module.done,
            "position": position,
            "tokens": tokens_after(spec.spans, module.done),
            "prefix": cut_prefix(spec.prefix, position),
            "shape": checkpoints.shape_entry(spec.shape),
            "state": {
                "spikes": module.spikes.state,
                "spikes_of": "train steps",
                "log": Path(spec.folder).name,
                "micro_batch": [module.world, module.options.micro_batch],
            },
        }
        what = (spec.checkpoints_root, module.network, module.optimizers().optimizer, manifest)

        def pruned() -> None:
            if trainer.is_global_zero:
                log = Path(spec.folder).name
                own = partial(cut_prefix, spec.prefix)
                prune(spec.checkpoints_root, spec.checkpoints, own, log, saved=manifest["step"])

        if self.background is None:
            free = spec.execution.min_free_bytes
            beat = partial(self.journal.show, trainer, module, "saving")
            checkpoints.save(*what, rank=trainer.global_rank, gather=module.gather, min_free_bytes=free, beat=beat)
            pruned()
            return
        self.background.begin(*what, then=pruned)
        if self.stopped or module.done == spec.num_steps:
            self.background.finish()
            module.gather(None)

    def on_exception(self, trainer: Trainer, module: TrainingModule, exception: BaseException) -> None:
        """Let a checkpoint that is being written be finished; what is wrong with it comes second."""
        if self.background is not None:
            self.background.wait()


def continue_logs(spec: TrainSpec, resumed: checkpoints.Checkpoint | None) -> None:
    """Let a run that continues from another run's checkpoint begin with that run's log.

    Lines that will be cut off are set aside where the run goes further back than to its newest checkpoint: those train
    steps are not trained again as they were.
    """
    folder, done = Path(spec.folder), resumed.step if resumed else 0
    written_by = resumed.state.get("log", folder.name) if resumed else folder.name
    saved_next = next(step for step in itertools.count(done + 1) if is_due(spec.checkpoints, step, 0))
    for name in ("metrics.csv", "held_out.csv"):
        theirs = folder.parent / written_by / name
        others = written_by != folder.name and theirs.exists()
        lost = [row for row in rows_of(folder / name) if others or int(row["step"]) > done]
        if lost and int(lost[-1]["step"]) > saved_next:
            say(f"{name}: what was logged of other train steps is kept as {set_aside(folder / name, lost)}")
        if others:
            shutil.copyfile(theirs, folder / name)


def say(text: str) -> None:
    """Write a line to the process's log."""
    sys.stderr.write(f"{text}\n")
