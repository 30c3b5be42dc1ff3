"""The stage that measures and decides, Parquet to Parquet: its rate, its memory, and what a second worker gives."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.signals_text import SOURCES, alternated, documents, made_documents, size_mb
from curation.decisions import DecisionOptions, RuleStep, make_decisions
from curation.language import LANGUAGE_VERSION, Excerpt, resolve_model
from curation.passes import ShardInputs, SignalOptions, make_rows, make_signals
from curation.rule_presets import FOLDER, load_preset
from curation.rules import preset_rules, signal_names
from curation.signals import SIGNALS
from curation.source import Reader
from recipes.engine import WorkerPool

LARGE_BYTES = 10**9


@dataclass(frozen=True)
class Files:
    """Where a task writes: `<folder>/<name><suffix>`."""

    folder: str
    name: str

    def path(self, suffix: str) -> Path:
        """Path of the file with this suffix."""
        return Path(self.folder) / f"{self.name}{suffix}"


def all_rules(language: str) -> tuple[RuleStep, ...]:
    """The rules of every preset that asks for nothing but signals."""
    steps = []
    for path in sorted(FOLDER.glob("*.yaml")):
        if load_preset(path.stem).unit:
            continue  # rules over lines edit text
        rules = preset_rules(path.stem, language, {})[0]
        names = signal_names(rules)
        if all(name in SIGNALS for name in names):
            pairs = tuple((rule.reason, rule.sql) for rule in rules)
            steps.append(RuleStep(path.stem, pairs, tuple((name, name) for name in names)))
    return tuple(steps)


def signal_options(rules: tuple[RuleStep, ...], model: Path | None) -> SignalOptions:
    """All signals of the rules and of RedPajama-V2, and language by excerpts."""
    asked = {column for step in rules for column, _ in step.columns}
    names = sorted(asked | {name for name, x in SIGNALS.items() if x.family == "redpajama"})
    excerpt = Excerpt()
    return SignalOptions(
        names=tuple(names),
        language_model=None if model is None else str(model),
        language_version=LANGUAGE_VERSION,
        excerpt=None if model is None else (excerpt.pieces, excerpt.characters),
    )


def run_stage(shard: str, form: str, folder: str, model: str | None) -> None:
    """Rows, signals and decisions of one shard, as a run makes them."""
    rules = all_rules("de")
    name = Path(shard).stem
    inputs = ShardInputs("benchmark", name, shard, "de", Reader(format=form))
    make_rows(inputs, None, Files(folder, f"{name}.rows"))
    options = signal_options(rules, None if model is None else Path(model))
    make_signals(inputs, options, Files(folder, f"{name}.signals"))
    layers = tuple(f"{folder}/{name}.{layer}.parquet" for layer in ("rows", "signals"))
    decided = ShardInputs("benchmark", name, shard, "de", Reader(format=form), layers=layers)
    make_decisions(decided, DecisionOptions(rules), Files(folder, f"{name}.decisions"))


def _text(size: int) -> pa.Array:
    found = documents(tuple(x for xs in SOURCES.values() for x in xs), size)
    return found if found is not None else made_documents(size)


def _model() -> str | None:
    try:
        return str(resolve_model("lid176"))
    except FileNotFoundError:
        return None


def _shard(path: Path, text: pa.Array) -> str:
    pq.write_table(pa.table({"text": text}), path, compression="zstd", row_group_size=1000)
    return str(path)


def stage_figures(quick: bool, skipped: list[str]) -> dict[str, float]:
    """MB of UTF-8 a CPU second, and the peak in a process of its own that meets a document of 1 GB."""
    text, model = _text(6_000_000 if quick else 24_000_000), _model()
    if model is None:
        skipped.extend(["stage_mb_s", "stage_peak_gib"])
        return {}
    with tempfile.TemporaryDirectory() as folder:
        shard = _shard(Path(folder) / "text.parquet", text)
        seconds = alternated({"stage": lambda: run_stage(shard, "parquet", folder, model)}, 3 if quick else 5)
        large = large_shard(Path(folder) / "large.parquet", text)
        return {"stage_mb_s": size_mb(text) / seconds["stage"], "stage_peak_gib": peak_gib(large, folder, model)}


def large_shard(path: Path, text: pa.Array) -> str:
    """The texts with one of 1 GB in their middle, in one row group."""
    piece = b"\n".join(x.as_py().encode() for x in text[:200])
    large = pa.array([(piece * (LARGE_BYTES // len(piece) + 1))[:LARGE_BYTES].decode(errors="ignore")])
    middle = len(text) // 2
    parts = [text[:middle], large.cast(pa.large_string()), text[middle:]]
    pq.write_table(pa.table({"text": pa.concat_arrays(parts)}), path, compression="zstd")
    return str(path)


_PEAK = """
import json, resource, sys
from benchmarks.signals_stage import run_stage
run_stage(sys.argv[1], "parquet", sys.argv[2], sys.argv[3])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))
"""


def peak_gib(shard: str, folder: str, model: str) -> float:
    """Most resident memory of the stage in a process of its own, GiB.

    A child's counter begins with what its parent held when it forked, so the parent's large text must be gone: a small
    shell stands between.
    """
    command = [sys.executable, "-c", _PEAK, shard, folder, model]
    done = subprocess.run(["sh", "-c", '"$@"', "sh", *command], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def timed_stage(shard: str, form: str, folder: str, model: str | None) -> float:
    """Processor seconds of `run_stage`."""
    started = time.process_time()
    run_stage(shard, form, folder, model)
    return time.process_time() - started


def worker_figure(quick: bool, skipped: list[str]) -> dict[str, float]:
    """Wall clock of the stage's tasks with one worker over that with two, each pool warm, and where the rest goes.

    `two_workers_cpu` are the tasks' processor seconds in two workers over those in one: above 1 the workers slow each
    other down in what they share of the processor and its memory. `two_workers_idle` is the share of two workers' time
    in which they had no processor: waiting for the parent, for the last task, or for other programs.
    """
    text, model = _text(4_000_000 if quick else 12_000_000), _model()
    if model is None:
        skipped.append("two_workers_speedup")
        return {}
    seconds: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, WorkerPool(1) as one, WorkerPool(2) as two:
        shards = [_shard(Path(folder) / f"text{n}.parquet", text) for n in range(4)]
        for turn in range(4 if quick else 6):
            for workers, pool in ((1, one), (2, two)):
                started = time.perf_counter()
                futures = [pool.submit(timed_stage, shard, "parquet", folder, model) for shard in shards]
                used = sum(future.result() for future in futures)
                if turn:
                    seconds[workers].append((time.perf_counter() - started, used))
    wall, used = ({n: median(row[k] for row in rows) for n, rows in seconds.items()} for k in (0, 1))
    return {
        "two_workers_speedup": wall[1] / wall[2],
        "two_workers_cpu": used[2] / used[1],
        "two_workers_idle": 1 - used[2] / (2 * wall[2]),
    }
