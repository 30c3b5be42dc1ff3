"""Checkpoints: safetensors files with a JSON index, written aside, checksummed, committed by one rename.

    checkpoints/step-00001000-<prefix>/rank-00000.safetensors ... manifest.json

A checkpoint is whole when its manifest exists and every file has the size and checksum that the manifest names. Each
process writes the rows it holds; the manifest says which rows of which tensor lie where, so that any number of
processes, or none (export), can read any rows. Nothing is unpickled.

Which one a run continues from, and which ones it keeps, is in `training.resume`.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.alive import bytes_in, result_of
from training.models.shape import ModelShape
from training.sharding import Rows, local_rows
from training.step import nothing

FORMAT = "gristmill-checkpoint-1"
MOMENTS = ("exp_avg", "exp_avg_sq")
# What a write fails with where there is no room: a full disk, a quota, a limit on a file's size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Gather = Callable[[Any], list[Any]]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Train steps done."""
        return self.manifest["step"]

    @property
    def position(self) -> int:
        """Position in the order where the next train step starts, as far as is known."""
        return self.manifest["position"]

    @property
    def state(self) -> dict[str, Any]:
        """What else the trainer keeps."""
        return self.manifest["state"]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def checkpoint_name(step: int, prefix: Mapping[str, Any]) -> str:
    """Folder of a checkpoint; runs that differ so far have other folders."""
    return f"step-{step:08d}-{xxhash.xxh3_64_hexdigest(canonical(prefix))[:10]}"


def named_pieces(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[tuple[str, Tensor, Rows]]:
    """Every trained tensor by name: (name, the whole tensor or DTensor, what lies here)."""
    for name, parameter in trained(model):
        yield f"model/{name}", parameter, local_rows(parameter)
        if optimizer is not None and optimizer.state:
            # A parameter that the optimizer does not know is a gathered one: a bug, and never to be saved.
            assert parameter in optimizer.state, f"{name} is not sharded now"
            for moment in MOMENTS:
                values = optimizer.state[parameter][moment]
                yield f"{moment}/{name}", values, local_rows(values)


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that are trained: all but those that adapters leave frozen."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def alone(entry: Any) -> list[Any]:
    """The gathering of a single process."""
    return [entry]


def save(
    root: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    manifest: Mapping[str, Any],
    *,
    rank: int = 0,
    gather: Gather = alone,
    min_free_bytes: int = 0,
    beat: Callable[[], None] = nothing,
) -> Path:
    """Save a checkpoint; every process calls it.

    Args:
        root: folder of all checkpoints.
        model: its parameters are saved under `model/`.
        optimizer: AdamW; its moments are saved too, None saves weights alone.
        manifest: step, position, tokens, prefix, shape and state, JSON.
        rank: this process.
        gather: collects a JSON value of each process, in order of ranks, and waits for all.
        min_free_bytes: space that has to be left afterwards.
        beat: called now and then while bytes are written, as a sign of life.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: (ENOSPC) if space runs out; nothing is committed then.
    """
    folder = prepare(root, manifest, rank, gather)
    tensors, index = to_write(model, optimizer)
    on_host = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with ThreadPoolExecutor(1, "checkpoint") as writer:
        writing = writer.submit(write_tensors, folder / file_of(rank), on_host, min_free_bytes)
        entry = {"tensors": index, **result_of(writing, lambda: bytes_in(folder), beat)}
    entries = gather(entry)
    if rank == 0:
        commit(folder, manifest, entries, num_updates(optimizer))
    gather(None)
    return folder


def prepare(root: Path, manifest: Mapping[str, Any], rank: int, gather: Gather) -> Path:
    """Make a checkpoint's folder, which is no checkpoint from now on until it is committed; every process calls it."""
    folder = root / checkpoint_name(manifest["step"], manifest["prefix"])
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        (folder / "manifest.json").unlink(missing_ok=True)
    gather(None)
    return folder


def file_of(rank: int) -> str:
    """Name of what a process writes."""
    return f"rank-{rank:05d}.safetensors"


def to_write(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What this process writes, by name, in the training's own memory, and its index."""
    tensors, index = {}, {}
    for place, (name, whole, rows) in enumerate(named_pieces(model, optimizer)):
        # Processes with the same rows take turns writing them.
        if rows.count and place % rows.replicas == rows.replica:
            tensors[name] = rows.tensor
            kind = str(whole.dtype).removeprefix("torch.")
            index[name] = {"dtype": kind, "shape": list(whole.shape), "first": rows.first, "count": rows.count}
    return tensors, index


def write_tensors(path: Path, tensors: dict[str, Tensor], min_free_bytes: int) -> dict[str, Any]:
    """Write a process's file aside and rename it; returns its name, size and checksum.

    Raises:
        OSError: (ENOSPC) before anything is written, where space would run out.
    """
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) + min_free_bytes
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{needed} bytes are needed for a checkpoint and {free} are free; make room", str(path)
        )
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save_file(tensors, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
    except (SafetensorError, OSError) as error:
        unfinished.unlink(missing_ok=True)  # half a file would keep the next run from its room
        raise _as_full_disk(error, path) from error
    written = {"file": path.name, "size_bytes": unfinished.stat().st_size, "xxh3_128": checksum(unfinished)}
    unfinished.replace(path)
    return written


def _as_full_disk(error: Exception, path: Path) -> Exception:
    """The OSError behind an error of safetensors, which names its number in the text alone."""
    numbers = [number for number in FULL if f"(os error {number})" in str(error)]
    return OSError(numbers[0], f"{error}; make room", str(path)) if numbers else error


def commit(folder: Path, manifest: Mapping[str, Any], entries: list[dict[str, Any]], updates: int) -> None:
    """Write the manifest that makes a folder a checkpoint, and remove what it does not name.

    Args:
        folder: the checkpoint's.
        manifest: see `save`.
        entries: each process's index, file, size and checksum, in order of ranks.
        updates: that the optimizer has made.
    """
    tensors: dict[str, Any] = {}
    for entry in entries:
        for name, piece in entry["tensors"].items():
            tensor = tensors.setdefault(name, {"dtype": piece["dtype"], "shape": piece["shape"], "pieces": []})
            tensor["pieces"].append([entry["file"], piece["first"], piece["count"]])
    for tensor in tensors.values():
        tensor["pieces"].sort(key=lambda piece: piece[1])
    files = {entry["file"]: {key: entry[key] for key in ("size_bytes", "xxh3_128")} for entry in entries}
    whole = {"format": FORMAT, **manifest, "num_updates": updates, "files": files, "tensors": tensors}
    whole["xxh3_128"] = xxhash.xxh3_128_hexdigest(canonical(whole))
    for stale in folder.iterdir():
        if stale.name not in files:
            stale.unlink()
    unfinished = folder / "manifest.json.tmp"
    with unfinished.open("w") as file:
        file.write(json.dumps(whole, sort_keys=True, indent=1))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / "manifest.json")


def shape_entry(shape: ModelShape) -> dict[str, Any]:
    """A model's shape as the manifest has it."""
    return dataclasses.asdict(shape)


def num_updates(optimizer: torch.optim.Optimizer | None) -> int:
    """Updates that AdamW has made; fewer than train steps where some were dropped."""
    states = list(optimizer.state.values()) if optimizer is not None else []
    return int(states[0]["step"].item()) if states else 0


def checksum(path: Path) -> str:
    """xxh3_128 of a file, read in pieces of 8 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(8 << 20):
            digest.update(piece)
    return digest.hexdigest()


def open_checkpoint(folder: Path, *, verify: bool = True) -> Checkpoint:
    """Open a checkpoint.

    Args:
        folder: its folder.
        verify: read all files and compare checksums; else only sizes.

    Raises:
        CheckpointError: saying what is missing or damaged.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise CheckpointError(f"{folder}: no manifest.json; the checkpoint was not finished")
    try:
        manifest = json.loads(path.read_text())
        own = manifest.pop("xxh3_128")
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
    if own != xxhash.xxh3_128_hexdigest(canonical(manifest)):
        raise CheckpointError(f"{path}: damaged (its checksum differs)")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path}: format '{manifest['format']}' is not {FORMAT}")
    for name, file in manifest["files"].items():
        _check_file(folder / name, file, verify)
    return Checkpoint(folder, manifest)


def _check_file(path: Path, file: Mapping[str, Any], verify: bool) -> None:
    size = path.stat().st_size if path.exists() else None
    if size != file["size_bytes"]:
        raise CheckpointError(f"{path}: {'missing' if size is None else f'{size} bytes'}, not {file['size_bytes']}")
    if verify and checksum(path) != file["xxh3_128"]:
        raise CheckpointError(f"{path}: damaged (its checksum differs)")


def read_rows(checkpoint: Checkpoint, name: str, first: int, count: int) -> Tensor:
    """Read rows of one tensor, whatever the number of processes that wrote it."""
    if name not in checkpoint.manifest["tensors"]:
        raise CheckpointError(f"{checkpoint.folder}: no tensor '{name}'; the model has another shape or family")
    parts = []
    for file, start, rows in checkpoint.manifest["tensors"][name]["pieces"]:
        begin, end = max(first, start), min(first + count, start + rows)
        if begin < end:
            with safe_open(checkpoint.folder / file, framework="pt") as tensors:
                parts.append(tensors.get_slice(name)[begin - start : end - start])
    found = sum(part.shape[0] for part in parts)
    if found != count:
        raise CheckpointError(f"{checkpoint.folder}: tensor '{name}' has {found} of the rows {first}+{count}")
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def load(checkpoint: Checkpoint, model: nn.Module, names: Container[str] | None = None) -> None:
    """Set a model's parameters (all, or those of `names`) from a checkpoint in place; each process reads its rows."""
    for name, parameter in model.named_parameters():
        if names is None or name in names:
            _check_shape(checkpoint, name, parameter)
            _fill(checkpoint, f"model/{name}", local_rows(parameter))


def load_moments(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Set AdamW's moments from a checkpoint; none where it was saved before the first update."""
    if not checkpoint.manifest["num_updates"]:
        return
    for name, parameter in trained(model):
        moments = {moment: torch.zeros_like(parameter.detach()) for moment in MOMENTS}
        for moment, values in moments.items():
            _fill(checkpoint, f"{moment}/{name}", local_rows(values))
        count = torch.tensor(float(checkpoint.manifest["num_updates"]), device=parameter.device)
        optimizer.state[parameter] = {"step": count, **moments}


def load_model(checkpoint: Checkpoint, device: str = "cpu") -> nn.Module:
    """Build the model that a checkpoint holds, whole, in this process."""
    from training.models import ModelShape, build

    with torch.device("meta"):
        model = build(ModelShape(**checkpoint.manifest["shape"]))
    model.to_empty(device=device)
    load(checkpoint, model)
    return model.eval()


def _check_shape(checkpoint: Checkpoint, name: str, parameter: Tensor) -> None:
    saved = checkpoint.manifest["tensors"].get(f"model/{name}", {}).get("shape")
    if saved != list(parameter.shape):
        raise CheckpointError(
            f"{checkpoint.folder}: '{name}' is {saved} there and {list(parameter.shape)} in the model"
        )


def _fill(checkpoint: Checkpoint, name: str, rows: Rows) -> None:
    if rows.count:
        with torch.no_grad():
            rows.tensor.copy_(read_rows(checkpoint, name, rows.first, rows.count))


def read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All weights of a checkpoint by parameter name, whole, on the CPU."""
    names = [name for name in checkpoint.manifest["tensors"] if name.startswith("model/")]
    shapes = {name: checkpoint.manifest["tensors"][name]["shape"] for name in names}
    return {name.removeprefix("model/"): read_rows(checkpoint, name, 0, shapes[name][0]) for name in names}
