"""A large corpus of real text curated with flat memory: `python -m benchmarks.large_corpus --folder DIR`.

Real documents (GRISTMILL_TEST_DATA) are repeated until the shards hold the asked bytes of text; each repetition begins
at another line of its document and carries a word of its own after every few hundred characters, so that no two rows
are equal and words, lines and n-grams stay those of the language. The recipe identifies languages (by excerpts) and
decides Gopher's and FineWeb's rules. Resident memory of the command and its workers is sampled while it runs, with the
bytes that they have read so far, and drawn over these as an SVG beside a CSV. Stopped, it goes on where it was: shards
that are there are kept, the run resumes, samples are added.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.end_to_end import ROOT, command, environment, resident_bytes, tree_of

SHARD_BYTES = 256_000_000
SOURCES = {
    "de": ("de_wiki", "de_law", "de_books", "de_kids"),
    "en": ("en_books", "en_tech", "en_qa"),
    "zh": ("zh_law", "zh_books", "zh_wiki"),
}
_LOOK_EVERY_S = 0.5
_COLUMNS = ("seconds", "all_mib", "largest_mib", "read_gb")
Sample = tuple[float, float, float, float]
_RECIPE = """# written by benchmarks.large_corpus
sources:
  de: {{path: "de-*.parquet", language: de}}
  en: {{path: "en-*.parquet", language: en}}
  zh: {{path: "zh-*.parquet", language: zh}}
steps:
  - language: {{min_score: 0.5, max_drop: 1, excerpt: {{}}}}
  - rules: {{preset: gopher, max_drop: 1}}
  - rules: {{preset: fineweb2, sources: [de, zh], max_drop: 1}}
  - rules: {{preset: fineweb, sources: [en], max_drop: 1}}
domains: {{held_out: {{tokens: 1M, share: 0.01}}}}
tokenizer: {{algorithm: byte_bpe, vocabulary: 32000}}
schedule: [{{name: main, tokens: 1M, weights: natural}}]
model: {{preset: llama_tiny, context: 64}}
training: {{batch: 16 sequences}}
execution: {{raw: raw, workdir: work, workers: {workers}, memory: 1.5 GiB}}
"""


def varied(text: str, number: int) -> str:
    """A document that begins at another of its lines and has a word of its own after every few hundred characters."""
    lines = text.splitlines(keepends=True)
    if len(lines) > 1:
        first = number % len(lines)
        lines[-1] += "\n"
        text = "".join([*lines[first:], *lines[:first]])
    word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    pieces = [text[start : start + 400] for start in range(0, len(text), 400)]
    marked = []
    for piece in pieces:
        head, blank, tail = piece.partition(" ")
        marked.append(f"{head} w{word} {tail}" if blank else f"{piece}w{word}")
    return "".join(marked)


def repeated(language: str, folder: Path) -> Iterator[tuple[str, int]]:
    """(text, its bytes) without end."""
    number = 0
    while True:
        for source in SOURCES[language]:
            with pq.ParquetFile(folder / "text" / f"{source}.parquet") as file:
                for batch in file.iter_batches(batch_size=256, columns=["text"], use_threads=False):
                    for text in batch.column(0).to_pylist():
                        made = varied(text, number)
                        number += 1
                        yield made, len(made.encode())


def make_shards(folder: Path, size_bytes: int) -> None:
    """Write what is missing of each language's shards; a shard appears whole."""
    real = Path(os.environ.get("GRISTMILL_TEST_DATA", ""))
    if not (real / "text" / "de_wiki.parquet").is_file():
        raise SystemExit("GRISTMILL_TEST_DATA names no folder with text/de_wiki.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    each = size_bytes // len(SOURCES)
    for language in SOURCES:
        texts = repeated(language, real)
        for shard in range(max(1, round(each / SHARD_BYTES))):
            path = folder / f"{language}-{shard:04d}.parquet"
            _write(path, texts, min(SHARD_BYTES, each), write=not path.exists())


def _write(path: Path, texts: Iterator[tuple[str, int]], size_bytes: int, *, write: bool) -> None:
    """A shard of so many bytes of text, or the texts passed over where it is there."""
    schema = pa.schema([("text", pa.large_string())])
    written, held = 0, []
    temporary = path.with_suffix(".tmp")
    writer = pq.ParquetWriter(temporary, schema, compression="zstd") if write else None
    while written < size_bytes:
        text, size = next(texts)
        written += size
        held.append(text)
        if len(held) == 500 or written >= size_bytes:
            if writer is not None:
                writer.write_table(pa.table({"text": held}, schema))
            held = []
    if writer is not None:
        writer.close()
        temporary.replace(path)


def curate(folder: Path, workers: int) -> dict[str, float]:
    """Run `gristmill curate`; sample resident memory of it and all below it, and what they read, into `memory.csv`.

    Columns: seconds, MiB of all processes and of the largest, and GB that all have read (files of any kind, as they
    lie on the disk: compressed).
    """
    recipe = folder / "large.yaml"
    recipe.write_text(_RECIPE.format(workers=workers))
    samples = folder / "memory.csv"
    before = _read(samples)
    offset, read_before = (before[-1][0], before[-1][3]) if before else (0.0, 0.0)
    started, gigabytes = time.perf_counter(), read_before
    with samples.open("a", newline="") as file:
        process = subprocess.Popen(command("curate", recipe.name), cwd=folder, env=environment())
        table = csv.writer(file)
        if not before:
            table.writerow(_COLUMNS)
        while process.poll() is None:
            pids = tree_of(process.pid)
            used = sorted((resident_bytes(pid) / 2**20 for pid in pids), reverse=True)
            # a process that has ended is counted by the one that waited for it
            gigabytes = max(gigabytes, read_before + sum(map(read_bytes, pids)) / 1e9)
            seconds = offset + time.perf_counter() - started
            table.writerow([round(seconds, 1), round(sum(used)), round(used[0]), round(gigabytes, 4)])
            file.flush()
            time.sleep(_LOOK_EVERY_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    found = _read(samples)
    return {
        "seconds": found[-1][0],
        "peak_mib": max(row[1] for row in found),
        "peak_process_mib": max(row[2] for row in found),
        "growth_mib": growth(found),
    }


def read_bytes(pid: int) -> int:
    """Bytes that a process has read; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _read(samples: Path) -> list[Sample]:
    if not samples.exists():
        return []
    with samples.open(newline="") as file:
        return [(float(a), float(b), float(c), float(d)) for a, b, c, d in list(csv.reader(file))[1:]]


def growth(samples: list[Sample]) -> float:
    """How much higher (MiB) the largest process's median of the last third is than that of the second third."""
    third = max(1, len(samples) // 3)
    middle, last = (sorted(row[2] for row in part) for part in (samples[third : 2 * third], samples[2 * third :]))
    return last[len(last) // 2] - middle[len(middle) // 2] if middle and last else 0.0


def plot(samples: list[Sample], title: str) -> str:
    """Memory over the bytes read as an SVG: all processes, and the largest one."""
    width, height, left, top = 760, 300, 60, 34
    longest, highest = max(row[3] for row in samples) or 1.0, 1.1 * max(row[1] for row in samples)

    def line(column: int, colour: str) -> str:
        every = max(1, len(samples) // 1500)
        points = " ".join(
            f"{left + row[3] / longest * (width - left - 20):.1f},"
            f"{top + (1 - row[column] / highest) * (height - top - 40):.1f}"
            for row in samples[::every]
        )
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'

    def label(x: float, y: float, text: str, anchor: str = "start", colour: str = "#333") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'

    bottom = height - 40
    marks = [
        label(left - 6, top + (1 - share) * (bottom - top) + 4, f"{share * highest / 1024:.1f} GiB", "end")
        for share in (0, 0.5, 1)
    ]
    marks += [
        label(left + share * (width - left - 20), bottom + 18, f"{share * longest:.1f} GB read", anchor)
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    ]
    body = [
        label(left, 18, title),
        f'<path d="M{left} {top}V{bottom}H{width - 20}" fill="none" stroke="#999"/>',
        line(1, "#1f6feb"), line(2, "#d1661c"), *marks,
        label(width - 20, 18, "all processes", "end", "#1f6feb"), label(width - 130, 18, "largest", "end", "#d1661c"),
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main() -> None:
    """Make the shards, curate them, draw the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="bytes of text, in 10^9")
    parser.add_argument("--folder", required=True, help="for shards, the run and the samples; on a disk with room")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plot", default=str(ROOT / "docs" / "experiments" / "large_corpus.svg"))
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    folder = Path(options.folder)
    make_shards(folder / "raw", int(options.gigabytes * 1e9))
    figures = curate(folder, options.workers)
    figures["mb_s"] = options.gigabytes * 1e3 / figures["seconds"]
    title = f"{options.gigabytes:g} GB of text, language and rules, {options.workers} workers"
    Path(options.plot).parent.mkdir(parents=True, exist_ok=True)
    Path(options.plot).write_text(plot(_read(folder / "memory.csv"), title))
    Path(options.plot).with_suffix(".csv").write_bytes((folder / "memory.csv").read_bytes())
    for name, value in figures.items():
        print(f"{name:20} {value:,.1f}")
    if options.json:
        print(json.dumps({"benchmark": "large_corpus", "gigabytes": options.gigabytes, "figures": figures}))


if __name__ == "__main__":
    main()
