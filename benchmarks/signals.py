"""How fast documents are measured and decided: `python -m benchmarks.signals [--quick] [--json]`.

Real documents come from the folder that GRISTMILL_TEST_DATA names; without it, text is made by code and the figures of
languages are skipped. Rates are medians of alternated runs, in CPU seconds of one thread (a busy machine's wall clock
would measure its neighbours), kernels compiled beforehand; only `two_workers_speedup` is of wall clocks and wants two
quiet cores.

    rules_mb_s                      Gopher (quality and repetition), C4 and FineWeb signals together, MB of UTF-8 a
                                    second
    rules_vs_datatrove              the same on German documents against datatrove's four filters as they stand, with
                                    their own German words (spaCy's; skipped where it is not installed)
    rules_vs_datatrove_our_words    the same against the four filters when they are given our (fast) words
    rps_mb_s                        all RedPajama-V2 signals that need no list or model of the user
    language_vs_raw                 identification against bare fastText predictions on the same strings
    language_excerpt_vs_raw         the same, looking at excerpts
    language_excerpt_agreement_min  documents with the same language by excerpt and by whole text: least of de, en, zh
    stage_mb_s                      Parquet to Parquet: rows, all signals of rules and RedPajama-V2, language by
                                    excerpts, and the decisions of all presets of rules
    stage_peak_gib                  most memory of that with a document of 1 GB among the others
    decide_rows_s                   rows a second under the preset gopher (23 rules)
    two_workers_speedup             the stage's tasks in two workers against one, wall clock
    two_workers_cpu, _idle          where the rest goes: processor seconds of the tasks in two workers against one, and
                                    the share of two workers' time without a processor
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.signals_stage import stage_figures, worker_figure
from benchmarks.signals_text import LANGUAGE_SOURCES, SOURCES, alternated, documents, every, made_documents, size_mb
from curation.language import Excerpt, LanguageModel, resolve_model
from curation.rules import decide, preset_rules, signal_names
from curation.signals import SIGNALS, measure
from curation.text.scan import segments_of


def our_words() -> Any:
    """Our words in datatrove's tokenizer slot."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class OurWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return [segment for segment, _ in segments_of(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

    return OurWords("any")


def datatrove_run(texts: list[str], language: Any) -> Callable[[], None]:
    """A function that gives each text to datatrove's four filters, with the words of a language or a tokenizer."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    # thresholds that no document fails: a filter returns at its first reason, we measure them all
    filters = [
        GopherQualityFilter(1, 10**9, 1e-9, 1e9, 1e9, 1e9, 1e9, 1e-9, None, language=language),
        GopherRepetitionFilter(
            9, 9, 9, 9, tuple((n, 9) for n in (2, 3, 4)), tuple((n, 9) for n in range(5, 11)), language=language
        ),
        FineWebQualityFilter(
            None, -1, short_line_thr=9, char_duplicates_ratio=9, new_line_ratio=1e9, language=language
        ),
        C4QualityFilter(language=language),
    ]

    def run() -> None:
        for text in texts:
            for each in filters:
                each.filter(Document(text, "0"))

    return run


def rule_figures(quick: bool, skipped: list[str]) -> dict[str, float]:
    """Rates of the rules' and RedPajama's signals, and against datatrove on German documents."""
    size = 3_000_000 if quick else 12_000_000
    found = documents(tuple(x for xs in SOURCES.values() for x in xs), size)
    text = found if found is not None else made_documents(size)
    german = documents(SOURCES["de"], size)
    few = every(text if german is None else german, 40 if quick else 120)
    names = [name for name, signal in SIGNALS.items() if signal.family in ("gopher", "c4", "fineweb")]
    rps = [name for name, signal in SIGNALS.items() if signal.family == "redpajama"]
    runs: dict[str, Callable[[], object]] = {
        "rules": lambda: measure(text, names, "de"),
        "rps": lambda: measure(text, rps, "de"),
        "few": lambda: measure(few, names, "de"),
        "our_words": datatrove_run(few.to_pylist(), our_words()),
    }
    if importlib.util.find_spec("spacy"):
        runs["stock"] = datatrove_run(few.to_pylist(), "deu")
    else:
        skipped.append("rules_vs_datatrove")
    seconds = alternated(runs, 3 if quick else 7)
    figures = {"rules_mb_s": size_mb(text) / seconds["rules"]}
    if "stock" in seconds:
        figures["rules_vs_datatrove"] = seconds["stock"] / seconds["few"]
    figures["rules_vs_datatrove_our_words"] = seconds["our_words"] / seconds["few"]
    return figures | {"rps_mb_s": size_mb(text) / seconds["rps"]}


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
    parser.add_argument("--quick", action="store_true", help="small texts, under three minutes")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    skipped: list[str] = []
    figures = rule_figures(options.quick, skipped) | language_figures(options.quick, skipped)
    figures |= stage_figures(options.quick, skipped) | decide_figure(options.quick)
    figures |= worker_figure(options.quick, skipped)
    for name, value in figures.items():
        print(f"{name:32} {value:,.4g}")
    for name in skipped:
        missing = "spacy" if name == "rules_vs_datatrove" else "GRISTMILL_TEST_DATA, or `gristmill fetch lid176`"
        print(f"{name:32} skipped: it needs {missing}")
    if options.json:
        print(json.dumps({"benchmark": "signals", "quick": options.quick, "figures": figures, "skipped": skipped}))


if __name__ == "__main__":
    main()
