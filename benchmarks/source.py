"""How fast shards are read: MB of file and of text per second and core, by format.

    python -m benchmarks.source [--quick] [--json]

Text: German-like words made by a seeded generator, documents of about 3 kB (`short`: 100 bytes); each format holds the
same documents. Times are CPU seconds of one thread, the best of three; pyarrow and polars read the same JSON lines
for comparison (they stop at the first bad line, hash nothing and repair nothing).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import zstandard

from curation.source import Reader, read_shard


def documents(num_bytes: int, document_bytes: int) -> list[str]:
    """Seeded documents of words with umlauts, quotes and newlines."""
    chance = random.Random(1)
    letters = "eeeeennnniiissrrraattdhulcgmobwfkzpvüäöß"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 12))) for _ in range(5000)]
    texts = []
    for _ in range(num_bytes // document_bytes):
        chosen = chance.choices(words, k=document_bytes // 8)
        chosen[len(chosen) // 2] += ".\n"
        chosen[len(chosen) // 3] = f'"{chosen[len(chosen) // 3]}"'
        texts.append(" ".join(chosen))
    return texts


def shards(texts: list[str], folder: Path) -> list[tuple[str, str, Path]]:
    """The same documents in every format: (label, format, path)."""
    records = [{"id": str(i), "text": text, "url": f"https://example.org/{i}"} for i, text in enumerate(texts)]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    escaped = "".join(json.dumps(record) + "\n" for record in records).encode()
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "text", "url"])
    writer.writeheader()
    writer.writerows(records)
    files = {
        ("jsonl", "jsonl", "a.jsonl"): lines,
        ("jsonl, ASCII escapes", "jsonl", "escaped.jsonl"): escaped,
        ("jsonl, one bad line a document", "jsonl", "bad.jsonl"): lines.replace(b"\n", b'\n{"text": oops}\n'),
        ("jsonl.gz", "jsonl", "a.jsonl.gz"): gzip.compress(lines, 6),
        ("jsonl.zst", "jsonl", "a.jsonl.zst"): zstandard.compress(lines, 3),
        ("json array", "json", "a.json"): json.dumps(records, ensure_ascii=False).encode(),
        ("csv", "csv", "a.csv"): table.getvalue().encode(),
    }
    made = []
    for (label, form, name), content in files.items():
        (folder / name).write_bytes(content)
        made.append((label, form, folder / name))
    pq.write_table(pa.Table.from_pylist(records), folder / "a.parquet", compression="zstd")
    return [*made, ("parquet zstd", "parquet", folder / "a.parquet")]


def best_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of the fastest run."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(texts: list[str], folder: Path) -> list[tuple[str, float, float]]:
    """(label, MB/s of file, MB/s of text) for every format and two other readers."""
    text_bytes = sum(len(text.encode()) for text in texts)
    rows = []
    for label, form, path in shards(texts, folder):
        seconds = best_seconds(partial(read_all, path, form))
        rows.append((label, path.stat().st_size / seconds / 1e6, text_bytes / seconds / 1e6))
    plain = folder / "a.jsonl"
    read_options = pyarrow.json.ReadOptions(use_threads=False, block_size=16 << 20)
    for label, work in (
        ("(pyarrow.json)", partial(pyarrow.json.read_json, str(plain), read_options=read_options)),
        ("(polars.read_ndjson)", partial(pl.read_ndjson, plain)),
    ):
        seconds = best_seconds(work)
        rows.append((label, plain.stat().st_size / seconds / 1e6, text_bytes / seconds / 1e6))
    return rows


def read_all(path: Path, form: str) -> int:
    """Rows of a shard."""
    return sum(len(batch) for batch in read_shard(str(path), Reader(form)))


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 MB instead of 64")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    rows = []
    for kind, document_bytes in (("3 kB", 3000), ("100 B", 100)):
        texts = documents((4 if options.quick else 64) << 20, document_bytes)
        with tempfile.TemporaryDirectory() as name:
            rows += [(f"{label}, {kind}", *rates) for label, *rates in measure(texts, Path(name))]
    if options.json:
        print(json.dumps([{"case": case, "file_mb_s": round(f), "text_mb_s": round(t)} for case, f, t in rows]))
        return
    for case, file_rate, text_rate in rows:
        print(f"{case:42} {file_rate:6.0f} MB/s of file {text_rate:6.0f} MB/s of text")


if __name__ == "__main__":
    main()
