"""Shuffled sequences of two mixed domains through another loader, in a Python of its own.

    PYTHON benchmarks/loader_peer.py litdata|streaming|datasets FOLDER SEQUENCES

FOLDER holds `a.npy` and `b.npy`, sequences (n, T + 1) of uint16 tokens; the peer writes its own format beside them,
mixes both by their natural shares, shuffled, and copies each sequence it yields into a batch of 64, as a training
would. Prints tokens a second, from the second batch on. Needs numpy and the peer, nothing of gristmill.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BATCH = 64
SEED = 3


def rows_of(part: str) -> Iterator[object]:
    """Sequences of a domain as litdata's writer takes them."""
    import torch

    for row in np.load(part, mmap_mode="r"):
        yield torch.from_numpy(row.astype(np.int32))


def litdata_sequences(folder: Path, shares: list[float], width: int) -> Iterator[np.ndarray]:
    """litdata: a CombinedStreamingDataset of two shuffled token datasets."""
    import litdata

    parts = []
    for part in "ab":
        loader = litdata.TokensLoader(block_size=width)
        out = folder / f"litdata-{part}"
        litdata.optimize(
            fn=rows_of, inputs=[str(folder / f"{part}.npy")], output_dir=str(out), chunk_bytes="64MB",
            item_loader=loader, num_workers=1,
        )  # fmt: skip
        parts.append(
            litdata.StreamingDataset(
                str(out), item_loader=litdata.TokensLoader(block_size=width), shuffle=True, seed=SEED
            )
        )
    mixed = litdata.CombinedStreamingDataset(parts, seed=SEED, weights=shares, iterate_over_all=False)
    while True:
        for row in mixed:
            yield np.asarray(row)


def stand_in_for_torchvision() -> None:
    """Give streaming the names of torchvision that its image classes import, where torchvision is not installed.

    Its compiled operators must match torch's build, and text needs none of them.
    """
    import importlib.util
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    if importlib.util.find_spec("torchvision") is not None:
        return
    for name, wanted in {
        "torchvision": (), "torchvision.datasets": ("VisionDataset",), "torchvision.transforms": (),
        "torchvision.transforms.functional": ("to_tensor",),
    }.items():  # fmt: skip
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update({one: type(one, (), {}) for one in wanted})
        sys.modules[name] = module


def streaming_sequences(folder: Path, shares: list[float], width: int) -> Iterator[np.ndarray]:
    """mosaicml-streaming: one StreamingDataset over two Streams with proportions, shuffled."""
    stand_in_for_torchvision()
    from streaming import MDSWriter, Stream, StreamingDataset

    streams = []
    for part, share in zip("ab", shares):
        out = str(folder / f"streaming-{part}")
        with MDSWriter(out=out, columns={"tokens": f"ndarray:uint16:{width}"}) as writer:
            for row in np.load(folder / f"{part}.npy", mmap_mode="r"):
                writer.write({"tokens": np.asarray(row)})
        streams.append(Stream(local=out, proportion=share))
    mixed = StreamingDataset(streams=streams, shuffle=True, shuffle_seed=SEED, batch_size=BATCH, num_canonical_nodes=1)
    while True:
        for row in mixed:
            yield row["tokens"]


def datasets_sequences(folder: Path, shares: list[float], width: int) -> Iterator[np.ndarray]:
    """Hugging Face datasets: two shuffled map-style datasets, interleaved by probability, read as numpy batches."""
    import pyarrow as pa
    from datasets import Dataset, interleave_datasets

    parts = []
    for part in "ab":
        rows = np.load(folder / f"{part}.npy")
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
        made = Dataset(pa.table({"tokens": column}))
        made.save_to_disk(str(folder / f"datasets-{part}"))
        parts.append(Dataset.load_from_disk(str(folder / f"datasets-{part}")).shuffle(seed=SEED))
    mixed = interleave_datasets(parts, probabilities=shares, seed=SEED, stopping_strategy="first_exhausted")
    while True:
        for batch in mixed.with_format("numpy").iter(batch_size=BATCH):
            yield from batch["tokens"]


PEERS = {"litdata": litdata_sequences, "streaming": streaming_sequences, "datasets": datasets_sequences}


def main() -> None:
    """Prepare the peer's data, read, print."""
    peer, folder, wanted = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sizes = [np.load(folder / f"{part}.npy", mmap_mode="r").shape for part in "ab"]
    shares = [rows / sum(rows for rows, _ in sizes) for rows, _ in sizes]
    width = sizes[0][1]
    sequences = PEERS[peer](folder, shares, width)
    out = np.empty((BATCH, width), np.int32)
    for row in range(BATCH):
        out[row] = next(sequences)
    start, seen = time.perf_counter(), 0
    while seen < wanted and time.perf_counter() - start < 20:
        for row in range(BATCH):
            out[row] = next(sequences)
        seen += BATCH
    speed = seen * width / (time.perf_counter() - start)
    print(json.dumps({"tokens_per_s": speed, "sequences": seen}), flush=True)


if __name__ == "__main__":
    main()
