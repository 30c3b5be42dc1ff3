"""Documents and clocks of the benchmarks of signals."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SOURCES = {
    "de": ("de_wiki", "de_law", "de_books"),
    "en": ("en_books", "en_math"),
    "zh": ("zh_books", "zh_law", "zh_tech"),
}
LANGUAGE_SOURCES = {
    "de": ("de_wiki", "de_law", "de_books"),
    "en": ("en_books", "en_tech"),
    "zh": ("zh_books", "zh_law", "zh_wiki"),
}


def documents(sources: tuple[str, ...], size_bytes: int) -> pa.Array | None:
    """About `size_bytes` of real documents, from each source alike; None where there are none."""
    folder = os.environ.get("GRISTMILL_TEST_DATA")
    paths = [Path(folder) / "text" / f"{source}.parquet" for source in sources] if folder else []
    if not paths or not all(path.is_file() for path in paths):
        return None
    parts = []
    for path in paths:
        text = pq.read_table(path, columns=["text"]).column("text").combine_chunks().cast(pa.large_string())
        ends = np.frombuffer(text.buffers()[1], np.int64, len(text) + 1)[1:]
        parts.append(text[: int(np.searchsorted(ends, size_bytes / len(paths))) + 1])
    return pa.concat_arrays(parts)


def made_documents(size_bytes: int) -> pa.Array:
    """Pseudo-prose from a seeded vocabulary with word frequencies like a language's."""
    rng = np.random.default_rng(1)
    vocabulary = np.array(["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 11))) for _ in range(5000)])
    texts = []
    for _ in range(max(1, size_bytes // 3000)):
        chosen = vocabulary[np.minimum(rng.zipf(1.3, 450), 5000) - 1]
        texts.append(" ".join(f"{w}.\n" if k % 15 == 14 else w for k, w in enumerate(chosen)))
    return pa.array(texts, pa.large_string())


def every(text: pa.Array, count: int) -> pa.Array:
    """About `count` documents, evenly spread."""
    return text.take(pa.array(range(0, len(text), max(1, len(text) // count))))


def size_mb(text: pa.Array) -> float:
    return sum(len(x.as_py().encode()) for x in text) / 1e6


def alternated(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each run, after one round that compiles and warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
