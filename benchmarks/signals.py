"""How fast documents are measured and decided: `python -m benchmarks.signals [--quick] [--json]`.

Real documents come from the folder that GRISTMILL_TEST_DATA names; without it, text is made by code and the figures of
languages are skipped. Rates are medians of alternated runs, in CPU seconds of one thread (a busy machine's wall clock
would measure its neighbours), kernels compiled beforehand.

    rules_mb_s                      Gopher (quality and repetition), C4 and FineWeb signals together, MB of UTF-8 a
    second rules_vs_datatrove              the same against datatrove's four filters, which are given our (fast) words
    rps_mb_s                        all RedPajama-V2 signals
    language_vs_raw                 identification against bare fastText predictions on the same strings
    language_excerpt_vs_raw         the same, looking at excerpts
    language_excerpt_agreement_min  documents with the same language by excerpt and by whole text: least of de, en, zh
    decide_rows_s                   rows a second under the preset gopher (23 rules)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curation.language import Excerpt, LanguageModel, resolve_model
from curation.rules import decide, preset_rules, signal_names
from curation.signals import SIGNALS, measure
from curation.text.scan import segments_of

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


def datatrove_run(texts: list[str]) -> Callable[[], None]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.utils.word_tokenizers import WordTokenizer

    class OurWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return [segment for segment, _ in segments_of(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

    # thresholds that no document fails: a filter returns at its first reason, we measure them all
    words = OurWords("any")
    filters = [
        GopherQualityFilter(1, 10**9, 1e-9, 1e9, 1e9, 1e9, 1e9, 1e-9, None, language=words),
        GopherRepetitionFilter(
            9, 9, 9, 9, tuple((n, 9) for n in (2, 3, 4)), tuple((n, 9) for n in range(5, 11)), language=words
        ),
        FineWebQualityFilter(None, -1, short_line_thr=9, char_duplicates_ratio=9, new_line_ratio=1e9, language=words),
        C4QualityFilter(language=words),
    ]

    def run() -> None:
        for text in texts:
            for each in filters:
                each.filter(Document(text, "0"))

    return run


def rule_figures(quick: bool) -> dict[str, float]:
    size = 3_000_000 if quick else 12_000_000
    found = documents(tuple(x for xs in SOURCES.values() for x in xs), size)
    text = found if found is not None else made_documents(size)
    few = every(text, 40 if quick else 120)
    names = [name for name, signal in SIGNALS.items() if signal.family in ("gopher", "c4", "fineweb")]
    rps = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]
    runs: dict[str, Callable[[], object]] = {
        "rules": lambda: measure(text, names, "de"),
        "rps": lambda: measure(text, rps, "de"),
        "few": lambda: measure(few, names, "de"),
        "datatrove": datatrove_run(few.to_pylist()),
    }
    seconds = alternated(runs, 3 if quick else 7)
    return {
        "rules_mb_s": size_mb(text) / seconds["rules"],
        "rules_vs_datatrove": seconds["datatrove"] / seconds["few"],
        "rps_mb_s": size_mb(text) / seconds["rps"],
    }


def language_figures(quick: bool, skipped: list[str]) -> dict[str, float]:
    names = ["language_vs_raw", "language_excerpt_vs_raw", "language_excerpt_agreement_min"]
    texts = {code: documents(xs, 3_000_000 if quick else 12_000_000) for code, xs in LANGUAGE_SOURCES.items()}
    try:
        model = LanguageModel(resolve_model("lid176"))
    except FileNotFoundError:
        model = None
    if model is None or any(text is None for text in texts.values()):
        skipped.extend(names)
        return {}
    text = pa.concat_arrays([every(x, 60 if quick else 200) for x in texts.values() if x is not None])
    strings = [x.replace("\n", " ") + "\n" for x in text.to_pylist()]
    predict = model._model.f.predict
    seconds = alternated(
        {
            "raw": lambda: [predict(x, 1, 0.0, "strict") for x in strings],
            "whole": lambda: model.identify(text),
            "excerpt": lambda: model.identify(text, Excerpt()),
        },
        3 if quick else 7,
    )
    agreement = []
    for each in texts.values():
        whole, part = (np.array(model.identify(each, excerpt)[0].to_pylist()) for excerpt in (None, Excerpt()))
        agreement.append(float((whole == part).mean()))
    values = (seconds["raw"] / seconds["whole"], seconds["raw"] / seconds["excerpt"], min(agreement))
    return dict(zip(names, values, strict=True))


def decide_figure(quick: bool) -> dict[str, float]:
    rows = 500_000 if quick else 2_000_000
    rules, _ = preset_rules("gopher", "de", {})
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({name: rng.random(rows) for name in signal_names(rules)})
    frame = frame.with_columns(pl.col("word_count") * 1000)
    return {"decide_rows_s": rows / alternated({"decide": lambda: decide(frame, rules)}, 5)["decide"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small texts, under 50 s")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    skipped: list[str] = []
    figures = rule_figures(options.quick) | language_figures(options.quick, skipped) | decide_figure(options.quick)
    for name, value in figures.items():
        print(f"{name:32} {value:,.4g}")
    for name in skipped:
        print(f"{name:32} skipped: GRISTMILL_TEST_DATA or the language model is missing")
    if options.json:
        print(json.dumps({"benchmark": "signals", "quick": options.quick, "figures": figures, "skipped": skipped}))


if __name__ == "__main__":
    main()
