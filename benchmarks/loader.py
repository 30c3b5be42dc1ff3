"""How fast shuffled sequences are read from token shards, against copying the same bytes from known places.

    python -m benchmarks.loader [--quick] [--json]

Eight uint16 shards of random tokens, documents of about 500 tokens, two domains split document by document (so the
index has a run for every other document: the hard case); sequences of 2,048 tokens in a shuffled order, in batches of
64. The baseline is a compiled loop that copies such windows out of one array whose offsets it is given: no index and
no widening. Ratios are medians of paired rounds on one thread. litdata is measured only where it can be imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.kernels import kernel
from mixing.domains import build_domain_index
from mixing.reader import TokenReader
from mixing.selections import Selection
from mixing.shards import METADATA_KEY, ShardFiles

CONTEXT = 2048
BATCH = 64


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


def measure(num_tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second of every way, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        shards = make_shards(Path(folder), 8, num_tokens)
        paths = [Path(folder) / part for part in "ab"]
        start = time.perf_counter()
        for path in paths:
            build_domain_index(shards, Selection("web", "part", path.name), path)
        indexed = time.perf_counter() - start
        start = time.perf_counter()
        reader = TokenReader(paths, CONTEXT)
        opened = time.perf_counter() - start
        chance = np.random.default_rng(1)
        asked = [(d, s) for d in range(2) for s in range(int(reader.num_sequences[d]))]
        domain_ids, sequences = np.array(asked)[chance.permutation(len(asked))].T
        flat = np.concatenate([np.fromfile(files.tokens_path, np.uint16) for files in shards])
        offsets = chance.integers(0, len(flat) - CONTEXT - 1, len(sequences))
        wide = np.empty((BATCH, CONTEXT + 1), np.int32)
        narrow = np.empty((BATCH, CONTEXT + 1), np.uint16)
        batches = [slice(i, i + BATCH) for i in range(0, len(sequences) - BATCH, BATCH)]

        def clock(copy: object) -> float:
            start = time.perf_counter()
            for batch in batches:
                copy(batch)  # type: ignore[operator]
            return len(batches) * BATCH * (CONTEXT + 1) / (time.perf_counter() - start)

        ways = {
            "memcpy": lambda batch: copy_windows(flat, offsets[batch], narrow),
            "read_uint16": lambda batch: reader.read(domain_ids[batch], sequences[batch], out=narrow),
            "read_int32": lambda batch: reader.read(domain_ids[batch], sequences[batch], out=wide),
            "read_with_documents": lambda batch: (
                reader.read(domain_ids[batch], sequences[batch], out=wide),
                reader.document_numbers(domain_ids[batch], sequences[batch]),
            ),
        }
        for copy in ways.values():
            clock(copy)
        speeds = {name: [] for name in ways}
        for _ in range(rounds):
            for name, copy in ways.items():
                speeds[name].append(clock(copy))
    found = {f"{name}_tokens_per_s": float(np.median(each)) for name, each in speeds.items()}
    for name in ("read_uint16", "read_int32"):
        found[f"{name}_vs_memcpy"] = float(np.median(np.array(speeds[name]) / np.array(speeds["memcpy"])))
    found["read_vs_memcpy"] = found["read_uint16_vs_memcpy"]
    return found | {"num_tokens": 8.0 * num_tokens, "index_s": indexed, "open_s": opened}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(4_000_000 if options.quick else 32_000_000, 3 if options.quick else 7)
    if importlib.util.find_spec("litdata") is not None:
        found |= measure_litdata()
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32} {value:.4g}")


def measure_litdata() -> dict[str, float]:
    """Tokens a second of litdata's TokensLoader on random tokens."""
    import litdata

    with tempfile.TemporaryDirectory() as folder:
        tokens = np.random.default_rng(0).integers(0, 32_000, 8_000_000, dtype=np.int32)
        loader = litdata.TokensLoader(block_size=CONTEXT + 1)
        litdata.optimize(
            fn=lambda number: iter([tokens[number::8]]),
            inputs=list(range(8)),
            output_dir=folder,
            chunk_bytes="16MB",
            item_loader=loader,
            num_workers=1,
        )
        stream = litdata.StreamingDataset(
            folder, item_loader=litdata.TokensLoader(block_size=CONTEXT + 1), shuffle=True
        )
        start = time.perf_counter()
        number = sum(len(window) for window in stream)
    return {"litdata_tokens_per_s": number / (time.perf_counter() - start)}


if __name__ == "__main__":
    main()
