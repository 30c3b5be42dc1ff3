"""Training under Lightning: one process's part, from a specification to an exit code.

Imported by the processes that train (`training.launch`), never by the ones that only start them.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy, Strategy

from training import checkpoint as checkpoints
from training.batches import TrainBatches, tokens_after
from training.callbacks import Evaluator, Journal, Saver, say
from training.exits import Exit
from training.loggers import Following
from training.meeting import Meeting, meet
from training.module import TrainingModule
from training.preflight import agree, conclude
from training.preflight_report import table
from training.resume import cut_prefix, find_resume
from training.spec import SpecError, TrainSpec, attention_problem
from training.watch import DivergedError, SpikeError, write_status


def run_training(spec: TrainSpec) -> Exit:
    """Train as one of the processes that RANK and WORLD_SIZE name, continuing where the newest checkpoint ends.

    Returns:
        DONE, or REQUEUE when it was asked to stop and has saved.

    Raises:
        SpecError, PreflightError, DivergedError, SpikeError, CheckpointError, OSError: see `training.launch` for their
            exit codes.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    torch.set_num_threads(spec.execution.threads)
    quieten()
    device = pick_device(spec.execution.device)
    if problem := attention_problem(spec.execution.attention, device.type, spec.precision):
        raise SpecError(problem)
    folder, stream = Path(spec.folder), spec.stream.make()
    meeting = meet(rank, world, spec.execution.meet_s)
    found = agree(spec, stream, device, meeting) if spec.execution.preflight != "off" else []
    if world > 1:
        join_processes(device, meeting)
    if found:
        said = conclude(spec, found, device, rank)
        if rank == 0:
            say(table(said))
    if spec.execution.preflight == "only":
        return Exit.DONE
    folder.mkdir(parents=True, exist_ok=True)
    passed_over: list[str] = []
    module = TrainingModule(spec, stream, agreed_resume(spec, rank, world, passed_over.append), per_node)
    module.passed_over = passed_over
    if module.done < spec.num_steps:
        try:
            _fit(module, device, rank)
        except (SpikeError, DivergedError):  # on every process alike
            meeting.part()
            raise
    done = module.done == spec.num_steps
    if rank == 0:
        ending = {**_last_said(folder), "state": "done" if done else "saved", "step": module.done}
        ending |= {"num_steps": spec.num_steps, "tokens": tokens_after(spec.spans, module.done), "time_s": time.time()}
        write_status(folder / "status.json", ending)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return Exit.DONE if done else Exit.REQUEUE


def _last_said(folder: Path) -> dict[str, Any]:
    """What status.json says of loss and speed; nothing where nothing was trained."""
    try:
        return json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {}


def _fit(module: TrainingModule, device: torch.device, rank: int) -> None:
    module.stop.listen()
    journal = Journal()
    callbacks = [journal, Evaluator(journal), Following(say), Saver(journal)]
    trainer = make_trainer(device, module.world, module.per_node, callbacks)
    trainer.fit(
        module, TrainBatches(module.stream, module.spec.spans, module.done, module.spec.num_steps, rank, module.world)
    )


def pick_device(word: str) -> torch.device:
    """cpu, or this process's GPU; auto takes a GPU where there is one."""
    if word == "cpu" or (word == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def join_processes(device: torch.device, meeting: Meeting) -> None:
    """Form the process group with the others, over the store in which they met."""
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(minutes=30)
    meeting.store.set_timeout(timeout)
    store = dist.PrefixStore("processes", meeting.store)
    dist.init_process_group(backend, store=store, rank=meeting.rank, world_size=meeting.world, timeout=timeout)


def agreed_resume(
    spec: TrainSpec, rank: int, world: int, note: Callable[[str], None] = lambda text: None
) -> checkpoints.Checkpoint | None:
    """The checkpoint to continue from, chosen and verified by the first process for all.

    `note` is told there, as the log is, why newer ones are passed over.
    """

    def tell(text: str) -> None:
        say(text)
        note(text)

    chosen: list[str | None] = [None]
    if rank == 0 and spec.execution.resume == "auto":
        prefix_at = partial(cut_prefix, spec.prefix)
        found = find_resume(spec.checkpoints_root, prefix_at, tell, spec.num_steps)
        chosen = [str(found.folder) if found else None]
    elif rank == 0 and spec.execution.resume != "none":
        chosen = [str(checkpoints.open_checkpoint(Path(spec.execution.resume)).folder)]
    if world > 1:
        dist.broadcast_object_list(chosen)
    return checkpoints.open_checkpoint(Path(chosen[0]), verify=False) if chosen[0] else None


def make_trainer(device: torch.device, world: int, per_node: int, callbacks: list) -> Trainer:
    """Lightning's Trainer with everything off that we do ourselves."""
    strategy: Strategy = SingleDeviceStrategy(device)
    if world > 1:
        # Both sizes are said: "auto" means nodes x GPUs of a node, which is tensor parallelism.
        strategy = ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1)
    trainer = Trainer(
        accelerator="cpu" if device.type == "cpu" else "cuda",
        devices=per_node if world > 1 else "auto" if device.type == "cpu" else [device.index],
        num_nodes=world // per_node,
        strategy=strategy,
        plugins=[TorchElasticEnvironment()] if world > 1 else None,
        callbacks=callbacks,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    # Lightning's SIGTERM handler broadcasts from inside the handler and hangs when one process alone is told
    # (lightning PR 20825); `StopRequest` counts requests in the train step instead.
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def quieten() -> None:
    """Drop Lightning's notices about what we chose on purpose."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(\..*)?")
