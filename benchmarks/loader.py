"""How fast shuffled sequences are read from token shards: against a memcpy of the same bytes and against other loaders.

    python -m benchmarks.loader [--quick] [--json] [--peers FOLDER]

Eight uint16 shards of random tokens, documents of about 500 tokens, two domains split document by document (so the
index has a run for every other document: the hard case); a plan that mixes both, shuffled, in sequences of 2,048 tokens
and batches of 64. What is timed is what training does: positions of a train step (1,024) to sequences by the order,
then their tokens. The limit is a compiled loop that copies such windows out of one mapped file from offsets that it
is given. Ratios are medians of paired rounds on one thread, page cache warm. Other loaders mix the same sequences
(`benchmarks/loader_peer.py`), each in the Python of its virtual environment FOLDER/litdata, FOLDER/streaming
(docs/order.md says how to make them); those that are not there are left out. `seek_3t_*`: opening a plan of 100 domains
and 3 trillion tokens and locating a train step at position 1.4 billion, in a process of its own with kernels compiled
before (`benchmarks/seek.py`), and its peak memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.kernels import kernel
from mixing.domains import build_domain_index
from mixing.order import open_order
from mixing.plan import DomainSupply, make_plan
from mixing.reader import TokenReader
from mixing.schedule import Amount, BatchLine, Phase
from mixing.selections import Selection
from mixing.shards import METADATA_KEY, ShardFiles

CONTEXT = 2048
BATCH = 64
STEP = 1024  # sequences of a train step, which training locates together
SEQUENCES_3T = 1_464_843_750


def make_shards(folder: Path, num_shards: int, num_tokens: int) -> list[ShardFiles]:
    """Shards of random tokens whose documents alternate between parts a and b."""
    chance = np.random.default_rng(0)
    shards = []
    for number in range(num_shards):
        tokens = chance.integers(0, 32_000, num_tokens, dtype=np.uint16)
        ends = np.unique(np.append(chance.integers(1, num_tokens, num_tokens // 500), num_tokens))
        files = ShardFiles("web", f"{number:03}", folder / f"{number:03}.tokens", folder / f"{number:03}.parquet")
        tokens.tofile(files.tokens_path)
        size = len(ends)
        table = pa.table(
            {
                "row": np.arange(size),
                "end": ends,
                "num_characters": np.diff(ends, prepend=0) * 4,
                "size_bytes": np.diff(ends, prepend=0) * 4,
                "content_id": pa.array([i.to_bytes(16, "big") for i in range(size)], pa.binary(16)),
                "cluster": pa.nulls(size, pa.binary(16)),
                "part": pa.array(np.where(np.arange(size) % 2, "a", "b")),
            }
        )
        record = {"dtype": "<u2", "num_tokens": num_tokens, "num_documents": size, "vocabulary": 32_000}
        record |= {"tokenizer": "random", "bos": None, "eos": None, "checksum": ""}
        with pq.ParquetWriter(files.documents_path, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(record).encode()})
        shards.append(files)
    return shards


@kernel
def copy_windows(tokens: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Copy windows from known offsets."""
    for row in range(len(offsets)):
        out[row] = tokens[offsets[row] : offsets[row] + out.shape[1]]


def order_over(reader: TokenReader) -> object:
    """One epoch of both domains by natural weights, shuffled."""
    sizes = {part: int(number) for part, number in zip("ab", reader.num_sequences)}
    supplies = [DomainSupply(part, size * CONTEXT + 1) for part, size in sizes.items()]
    total = sum(sizes.values()) // BATCH * BATCH
    phases = [Phase("all", Amount(total, "sequences"), sizes, CONTEXT)]
    return open_order(make_plan(supplies, phases, [BatchLine(0, BATCH * CONTEXT)], max_epochs=2))


def clock(copy: Callable[[int], object], num_batches: int) -> float:
    """Tokens a second of copying all batches."""
    start = time.perf_counter()
    for batch in range(num_batches):
        copy(batch)
    return num_batches * BATCH * (CONTEXT + 1) / (time.perf_counter() - start)


def measure(num_tokens: int, rounds: int, peers: dict[str, str]) -> dict[str, float]:
    """Tokens a second of every way, and the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = make_shards(folder, 8, num_tokens)
        paths = [folder / part for part in "ab"]
        start = time.perf_counter()
        for path in paths:
            build_domain_index(shards, Selection("web", "part", path.name), path)
        indexed = time.perf_counter() - start
        start = time.perf_counter()
        reader = TokenReader(paths, CONTEXT)
        opened = time.perf_counter() - start
        order = order_over(reader)
        num_batches = order.plan.num_positions // BATCH
        with (folder / "flat").open("wb") as flat_file:
            for files in shards:
                flat_file.write(files.tokens_path.read_bytes())
        flat = np.memmap(folder / "flat", np.uint16, "r")
        offsets = np.random.default_rng(1).integers(0, len(flat) - CONTEXT - 1, num_batches * BATCH)
        wide = np.empty((BATCH, CONTEXT + 1), np.int32)
        narrow = np.empty((BATCH, CONTEXT + 1), np.uint16)

        located = order.locate(np.arange(STEP))

        def read(batch: int, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            nonlocal located
            place = batch * BATCH % STEP
            if place == 0:
                located = order.locate(np.arange(batch * BATCH, min(num_batches * BATCH, batch * BATCH + STEP)))
            found = located.domain[place : place + BATCH], located.sequence[place : place + BATCH]
            reader.read(*found, out=out)
            return found

        ways: dict[str, Callable[[int], object]] = {
            "memcpy": lambda batch: copy_windows(flat, offsets[batch * BATCH : (batch + 1) * BATCH], narrow),
            "read_uint16": lambda batch: read(batch, narrow),
            "read_int32": lambda batch: read(batch, wide),
            "read_with_documents": lambda batch: reader.document_numbers(*read(batch, wide)),
        }
        for copy in ways.values():
            clock(copy, num_batches)
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, copy in ways.items():
                speeds[way].append(clock(copy, num_batches))
        found = {f"{way}_tokens_per_s": float(np.median(each)) for way, each in speeds.items()}
        found["read_vs_memcpy"] = float(np.median(np.array(speeds["read_uint16"]) / np.array(speeds["memcpy"])))
        found["read_int32_vs_memcpy"] = float(np.median(np.array(speeds["read_int32"]) / np.array(speeds["memcpy"])))
        if peers:
            write_sequences(reader, folder)
        for peer, python in peers.items():
            found |= beside(peer, python, folder, lambda: clock(ways["read_int32"], num_batches), rounds // 2)
    return found | {"num_tokens": 8.0 * num_tokens, "index_s": indexed, "open_s": opened}


def write_sequences(reader: TokenReader, folder: Path) -> None:
    """Write the sequences of both domains as arrays for other loaders."""
    for number, part in enumerate("ab"):
        sequences = np.arange(reader.num_sequences[number])
        tokens = np.empty((len(sequences), CONTEXT + 1), np.uint16)
        np.save(folder / f"{part}.npy", reader.read(np.full(len(sequences), number), sequences, out=tokens))


def beside(peer: str, python: str, folder: Path, ours: Callable[[], float], rounds: int) -> dict[str, float]:
    """Tokens a second of another loader, and how often faster ours is, in alternating rounds."""
    script = str(Path(__file__).with_name("loader_peer.py"))
    # -P: the folder of the script holds a tokenize.py, which is not the standard library's
    command = [python, "-P", script, peer, str(folder), str(8192)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    theirs, ratios = [], []
    for _ in range(max(1, rounds)):
        before = ours()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            print(f"{peer} left out: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return {}
        theirs.append(json.loads(done.stdout.strip().splitlines()[-1])["tokens_per_s"])
        ratios.append((before + ours()) / 2 / theirs[-1])
    return {f"{peer}_tokens_per_s": float(np.median(theirs)), f"read_vs_{peer}": float(np.median(ratios))}


def find_peers(folder: Path | None) -> dict[str, str]:
    """Pythons of the loaders that are installed."""
    found = {}
    for peer in ("litdata", "streaming", "datasets"):
        python = folder / peer / "bin" / "python" if folder is not None else Path()
        if python.is_file():
            found[peer] = str(python)
        elif importlib.util.find_spec(peer) is not None:
            found[peer] = sys.executable
    return found


def measure_seek() -> dict[str, float]:
    """The least of some processes; the first compiles where nothing was compiled before."""
    shares = np.random.default_rng(1).dirichlet(np.ones(100))
    weights = {f"domain_{number:03}": float(share) for number, share in enumerate(shares)}
    supplies = [DomainSupply(name, max(2, int(w * SEQUENCES_3T / 2)) * CONTEXT + 1) for name, w in weights.items()]
    phase = Phase("all", Amount(SEQUENCES_3T, "sequences"), weights, CONTEXT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(make_plan(supplies, [phase], [BatchLine(0, 1024 * CONTEXT)], max_epochs=9).to_json())
        command = [sys.executable, "-m", "benchmarks.seek", str(path), "1400000000"]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(4)
        ]
    return {name: min(run[name] for run in runs[1:]) for name in runs[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peers", type=Path, default=os.environ.get("GRISTMILL_PEERS"), help="folder of environments")
    options = parser.parse_args()
    peers = find_peers(Path(options.peers).absolute() if options.peers else None)
    found = measure(4_000_000 if options.quick else 32_000_000, 3 if options.quick else 7, peers) | measure_seek()
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32} {value:.4g}")


if __name__ == "__main__":
    main()
