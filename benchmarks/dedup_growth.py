"""How matching grows with the number of documents: time, memory, disk, bytes moved, open files; bytes of each artifact.

    python -m benchmarks.dedup_growth [--full] [--csv FILE.csv] [--plot FILE.svg] [--json]

Made signatures (14 bands of 8 hashes), of which three in ten documents share most bands with an earlier one, at 0.1 and
1 million documents, `--full` also 10 million; each in a fresh process of its own with `execution.memory`'s default less
what the libraries take. `log_slope` is the slope of processor time over documents in log-log from one row to the next:
n log n gives 1.05 to 1.1. Then the bytes that every artifact of dedup takes on real German text
(`$GRISTMILL_TEST_DATA`), which `docs/scale.md` multiplies.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup import minhash, paragraph, substring
from curation.dedup.inputs import MatchInput
from curation.dedup.match import MatchOptions, match
from curation.dedup.minhash import Options

OPTIONS = Options()
MATCH_MEMORY = 7 << 29  # 3.5 GiB: the default of execution.memory less what the libraries take


def made_bands(num_documents: int, seed: int) -> np.ndarray:
    """Band hashes uint64 (bands, documents): three in ten documents share most bands with an earlier one."""
    draw = np.random.default_rng(seed)
    bands = draw.integers(0, 2**64, (14, num_documents), np.uint64)
    copies = np.sort(draw.choice(np.arange(1, num_documents), int(0.3 * num_documents), replace=False))
    originals = (copies * draw.random(len(copies)) ** 3).astype(np.int64)  # early documents have many copies
    for band in bands:
        shared = draw.random(len(copies)) < 0.7
        band[copies[shared]] = band[originals[shared]]
    return bands


def write_signatures(folder: Path, bands: np.ndarray, shards: int) -> list[MatchInput]:
    """Signature files of made bands; every document has an exact hash of its own."""
    schema, size = minhash.schema(OPTIONS), bands.shape[1]
    inputs = []
    for number in range(shards):
        rows = slice(number * size // shards, (number + 1) * size // shards)
        count = rows.stop - rows.start
        exact = np.zeros((count, 2), np.uint64)
        exact[:, 0] = bands[0, rows] ^ (
            np.arange(rows.start, rows.stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )
        exact[:, 1] = np.arange(rows.start, rows.stop)
        fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(exact.tobytes())])
        columns = [fixed, pa.array(np.full(count, 300, np.int32)), *(pa.array(band[rows]) for band in bands)]
        path = str(folder / f"{number:03}.parquet")
        table = pa.Table.from_arrays(columns, schema=schema)
        pq.write_table(table, path, use_dictionary=False, compression="none", write_page_checksum=True)
        inputs.append(MatchInput("web", f"{number:03}", path))
    return inputs


def run_match(folder: Path, inputs: list[MatchInput], cluster: str, memory: int = MATCH_MEMORY) -> dict[str, object]:
    outputs = [str(folder / f"{number:03}.layer") for number in range(len(inputs))]
    return match(inputs, MatchOptions(OPTIONS, cluster=cluster), (), outputs, memory, scratch=str(folder))


class Watch(threading.Thread):
    """Samples the size of a folder and the number of open files while something runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._stopped = folder, threading.Event()
        self.scratch_bytes = self.open_files = 0

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stopped.wait(0.05):
            sizes = 0
            for path in self._folder.rglob("match-*/*"):
                try:
                    sizes += path.stat().st_size
                except FileNotFoundError:
                    continue
            self.scratch_bytes = max(self.scratch_bytes, sizes)
            self.open_files = max(self.open_files, sum(1 for _ in Path("/proc/self/fd").iterdir()))

    def stop(self) -> None:
        """Stop, and wait for the last sample."""
        self._stopped.set()
        self.join()


def peak_bytes() -> int:
    """Peak of this process's memory; getrusage would tell that of the process that started it, if larger."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]


def bytes_moved() -> int:
    """Bytes this process has read and written so far, from the disk or from what the kernel keeps of it."""
    return sum(map(int, re.findall(r"[rw]char: (\d+)", Path("/proc/self/io").read_text())))


def matching_alone(num_documents: int, cluster: str, below: str | None = None) -> None:
    """What a fresh process does for `measure_matching`: print what a matching took."""
    with tempfile.TemporaryDirectory(dir=below) as name:
        folder = Path(name)
        made = [sys.executable, "-c", f"from benchmarks.dedup_growth import *; save_made(r'{name}', {num_documents})"]
        subprocess.run(made, check=True)
        shards = sorted(folder.glob("*.parquet"))
        inputs = [MatchInput("web", path.stem, str(path)) for path in shards]
        warm = folder / "warm"
        warm.mkdir()
        run_match(warm, write_signatures(warm, made_bands(1000, 1), 2), cluster)
        watch = Watch(folder)
        watch.start()
        start, used, moved = time.perf_counter(), time.process_time(), bytes_moved()
        counts = run_match(folder, inputs, cluster)
        elapsed, used, moved = time.perf_counter() - start, time.process_time() - used, bytes_moved() - moved
        watch.stop()
        figures = {
            "seconds": elapsed,
            "cpu_seconds": used,
            "peak_gib": peak_bytes() / 2**30,
            "duplicates": counts["duplicates"],
            "signature_bytes": sum(path.stat().st_size for path in shards) / num_documents,
            "scratch_bytes": watch.scratch_bytes / num_documents,
            "layer_bytes": sum(path.stat().st_size for path in folder.glob("*.layer")) / num_documents,
            "moved_bytes": moved / num_documents,
            "open_files": watch.open_files,
        }
    print(json.dumps(figures))


def save_made(folder: str, num_documents: int) -> None:
    """Write made signatures, in pieces of a million so that 10 million need no more memory."""
    for piece in range(-(-num_documents // 1_000_000)):
        size = min(1_000_000, num_documents - piece * 1_000_000)
        below = Path(folder) / f"piece{piece}"
        below.mkdir()
        for one in write_signatures(below, made_bands(size, piece), 4):
            Path(one.signatures).rename(Path(folder) / f"{piece:03}-{one.shard}.parquet")
        below.rmdir()


def measure_matching(num_documents: int, name: str, cluster: str = "components") -> dict[str, object]:
    command = [
        sys.executable,
        "-c",
        f"from benchmarks.dedup_growth import *; matching_alone({num_documents}, '{cluster}')",
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {f"match_{name}_{key}": value for key, value in found.items()}


def growth(sizes: list[int]) -> list[dict[str, object]]:
    """A row for each number of documents; bytes are by document."""
    rows: list[dict[str, object]] = []
    for size in sizes:
        row = {"documents": size, **measure_matching(size, "")}
        row = {name.removeprefix("match__"): value for name, value in row.items()}
        if rows:
            times = float(row["cpu_seconds"]) / float(rows[-1]["cpu_seconds"])  # type: ignore[arg-type]
            row["log_slope"] = math.log(times) / math.log(size / int(rows[-1]["documents"]))  # type: ignore[call-overload]
        rows.append(row)
    return rows


def artifact_bytes(megabytes: float) -> dict[str, float]:
    """Bytes of dedup's artifacts for each byte of German text, compressed as the stages write them."""
    from benchmarks.dedup import german_texts

    text = pa.array(german_texts(megabytes), pa.large_string())
    with tempfile.TemporaryDirectory() as name:

        def size_of(batch: pa.RecordBatch, **options: object) -> float:
            pq.write_table(pa.Table.from_batches([batch]), f"{name}/a", write_statistics=False, **options)
            return Path(name, "a").stat().st_size / text.nbytes

        return {
            "text_bytes_a_document": text.nbytes / len(text),
            "signatures": size_of(minhash.signatures(text, OPTIONS), compression="none"),
            "paragraph_hashes": size_of(paragraph.hashes(text, paragraph.CCNET)),
            "substring_units": size_of(substring.units(text, substring.SubstringOptions()), compression="zstd"),
            "substring_scratch": 16 * len(substring.units(text, substring.SubstringOptions()).column(0).flatten())
            / text.nbytes,
        }  # fmt: skip


def plot(rows: list[dict[str, object]]) -> str:
    """Processor seconds and peak memory over documents as an SVG, both axes logarithmic, beside n log n."""
    sizes = [int(row["documents"]) for row in rows]  # type: ignore[call-overload]
    seconds = [float(row["cpu_seconds"]) for row in rows]  # type: ignore[arg-type]
    memory = [float(row["peak_gib"]) for row in rows]  # type: ignore[arg-type]
    law = [seconds[0] * size * math.log(size) / (sizes[0] * math.log(sizes[0])) for size in sizes]
    across = (math.log10(sizes[0]), math.log10(sizes[-1]))
    values = [math.log10(value) for value in (*seconds, *memory, *law)]
    up = (math.floor(min(values)), math.ceil(max(values)))
    curves = (
        ("n log n from the first point", law, "#bbb"),
        ("processor seconds", seconds, "#1f77b4"),
        ("peak GiB", memory, "#d62728"),
    )

    def place(size: float, value: float) -> tuple[float, float]:
        x = 60 + 480 * (math.log10(size) - across[0]) / (across[1] - across[0])
        return x, 320 - 280 * (math.log10(value) - up[0]) / (up[1] - up[0])

    marks = []
    for power in range(up[0], up[1] + 1):
        y = place(sizes[0], 10.0**power)[1]
        label = f'<text x="52" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        marks.append(f'<path d="M60 {y:.1f}H540" stroke="#eee"/>{label}')
    for size in sizes:
        marks.append(f'<text x="{place(size, 1)[0]:.1f}" y="340" text-anchor="middle">{size:,}</text>')
    marks.append('<text x="300" y="360" text-anchor="middle">documents</text>')
    for name, heights, colour in curves:
        points = [place(size, value) for size, value in zip(sizes, heights, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        marks.append(
            f'<text x="{x + 10:.1f}" y="{y + (14 if colour == "#bbb" else -4):.1f}" fill="{colour}">{name}</text>'
        )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 370" font-family="sans-serif" font-size="12">\n'
        '<rect width="740" height="370" fill="#fff"/>\n' + "\n".join(marks) + "\n</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How matching grows with the number of documents.")
    parser.add_argument("--full", action="store_true", help="adds 10 million documents")
    parser.add_argument("--csv", help="also write the rows to this file")
    parser.add_argument("--plot", help="also draw time and memory into this SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    rows = growth([100_000, 1_000_000, *([10_000_000] if given.full else [])])
    artifacts = artifact_bytes(20)
    if given.csv:
        Path(given.csv).parent.mkdir(parents=True, exist_ok=True)
        with Path(given.csv).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    if given.plot:
        Path(given.plot).write_text(plot(rows), encoding="utf-8")
    if given.json:
        print(json.dumps({"growth": rows, "artifacts": artifacts}))
        return
    for row in rows:
        print("  ".join(f"{name} {value:,.4g}" for name, value in row.items()))
    print("bytes for a byte of text:", "  ".join(f"{name} {value:.3g}" for name, value in artifacts.items()))


if __name__ == "__main__":
    main()
