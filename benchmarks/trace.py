"""How long it takes to trace in a run of three trillion tokens, by a plan and indexes of simulated sizes.

    python -m benchmarks.trace [--quick] [--json]

100 domains of 13 to 47 billion tokens; each has an index of documents of 1,000 tokens as long as its supply would have
(30 million; with --quick 3 million), cut into shards of 100,000 documents, each with an index of content ids. The 100
indexes are links to one file, so a page of it is read once: what is measured is the work, not the disk. Measured: a
train step (1,024 sequences of 2,048) to its documents and their ids, and a document's id to its train steps.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from mixing.document_ids import DocumentIds, find_documents, ids_path
from mixing.domain_index import Footer, IndexShard, IndexWriter
from mixing.domains import DomainTokens
from mixing.order import open_order
from mixing.plan import DomainSupply, make_plan
from mixing.schedule import Amount, BatchLine, Phase
from mixing.shards import ShardFiles

CONTEXT, BATCH, STEP = 2048, 1024, 1_420_000
NUM_DOMAINS, LENGTH, SHARD = 100, 1000, 100_000
STEPS = 1_430_512


def write_index(path: Path, num_documents: int) -> list[ShardFiles]:
    """The index of one domain, and the content ids of its shards."""
    number = -(-num_documents // SHARD)
    names = [f"part-{place:05d}" for place in range(number)]
    chance = np.random.default_rng(1)
    with IndexWriter(path) as index:
        for place in range(number):
            rows = np.arange(SHARD)
            index.add(np.full(SHARD, place), rows * LENGTH, np.full(SHARD, LENGTH), rows)
        shards = tuple(
            IndexShard("web", n, f"{n}.tokens", f"{n}.documents.parquet", SHARD * LENGTH, "<u2") for n in names
        )
        tokens = number * SHARD * LENGTH
        footer = Footer(
            shards, index.num_runs, index.num_pieces, index.num_pieces, tokens, 0, 0, 32000, "", 0, "training"
        )
        index.close(footer)
    files = [ShardFiles("web", n, path.parent / f"{n}.tokens", path.parent / f"{n}.documents.parquet") for n in names]
    for place in range(min(number, 8)):  # different ids in a few shards; the others are links to these
        ids = chance.integers(0, 256, (SHARD, 16), np.uint8)
        high, low = ids.view(">u8").reshape(-1, 2).T
        stored = [table.astype("<i8").tobytes() for table in (np.arange(SHARD), np.lexsort((low, high)))]
        ids_path(files[place]).write_bytes(b"".join(stored) + ids.tobytes())
    for place in range(8, number):
        os.link(ids_path(files[place % 8]), ids_path(files[place]))
    return files


def simulated_plan(num_tokens: int) -> object:
    """A plan of 3 trillion tokens over domains of this size."""
    domains = [DomainSupply(f"web{place:03d}", num_tokens) for place in range(NUM_DOMAINS)]
    weights = {domain.name: 1 + place for place, domain in enumerate(domains)}
    phase = Phase("main", Amount(STEPS, "train steps"), weights, CONTEXT)
    return make_plan(domains, [phase], [BatchLine(0, BATCH * CONTEXT)], max_epochs=1e4)


def measure(folder: Path, num_documents: int) -> dict[str, float]:
    """Seconds of each question."""
    shards = write_index(folder / "domain", num_documents)
    plan = simulated_plan(-(-num_documents // SHARD) * SHARD * LENGTH)
    open_order(plan).locate(np.arange(4))  # type: ignore[arg-type]  # compiled before the clock starts
    started = time.perf_counter()
    order = open_order(plan)  # type: ignore[arg-type]
    places = order.locate(np.arange(STEP * BATCH, (STEP + 1) * BATCH))
    indexes = {domain: DomainTokens.open(folder / "domain") for domain in set(places.domain.tolist())}
    opened = {files.shard: DocumentIds.open(ids_path(files)) for files in shards}
    listed = [
        (domain, piece, opened[piece.shard].id_of(piece.row))
        for domain, sequence in zip(places.domain.tolist(), places.sequence.tolist())
        for piece in indexes[domain].documents_in(sequence, CONTEXT)
    ]
    found = {"trace_step_seconds": time.perf_counter() - started, "documents_of_step": float(len(listed))}
    domain, piece, content_id = listed[len(listed) // 2]
    started = time.perf_counter()
    everywhere = list(find_documents(shards * NUM_DOMAINS, str(content_id)))
    found["trace_find_seconds"] = time.perf_counter() - started
    started = time.perf_counter()
    sequences = indexes[domain].sequences_of("web", piece.shard, piece.row, CONTEXT)
    positions = np.concatenate([order.positions_of_sequence(order.names[domain], s, CONTEXT) for s in sequences])
    found["trace_document_seconds"] = time.perf_counter() - started
    assert STEP in (positions // BATCH).tolist()
    assert (piece.shard, piece.row) in {(files.shard, row) for files, row in everywhere}
    return found | {"document_steps": float(len(positions)), "shards": float(len(shards) * NUM_DOMAINS)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), 3_000_000 if options.quick else 30_000_000)
    print(json.dumps(found) if options.json else "\n".join(f"{name:24} {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
