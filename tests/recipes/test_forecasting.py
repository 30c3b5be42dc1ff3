"""Forecasts: a sample scaled to what the run itself would read."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recipes.curating.curate import curate
from recipes.ledger.forecasting import Counted, forecast, scaled, wilson
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.tokenizing.token_rate import rate_of

RECIPE = """
sources:
  half: {path: a.jsonl, language: de, sample: 0.5}
  whole: {path: a.jsonl, language: de}
steps:
  - rules: {name: short, drop: {short: "num_characters < 10"}}
execution: {raw: raw, workdir: work, workers: 1}
"""


def test_forecast_counts_what_a_sampled_source_reads(tmp_path):
    (tmp_path / "raw").mkdir()
    lines = [json.dumps({"text": f"Dokument {n} von vielen"}) for n in range(1000)]
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "f.yaml").write_text(RECIPE)
    with Run.open(load_recipe(tmp_path / "f.yaml"), silent=True) as run:
        found = {source.source: source for source in forecast(run, 0.4, ()).sources}
    assert found["whole"].rows == pytest.approx(1000, rel=0.15)
    assert found["half"].rows == pytest.approx(500, rel=0.2)
    assert found["whole"].drops == {}


def test_wilson_interval_of_half_is_even():
    low, high = wilson(50, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson(0, 0) == (0.0, 1.0)


def test_intervals_cover_documents_bytes_and_tokens_of_the_whole():
    """Over 200 samples of a twentieth of documents with long tails: at least nine in ten intervals hold the truth."""
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.normal(7, 1.2, 20_000)).astype(np.int64)
    tokens = np.round(sizes * rng.normal(0.25, 0.02, 20_000))
    kept = rng.random(20_000) < 0.3
    truth = [kept.sum(), sizes[kept].sum(), tokens[kept].sum()]
    covered = np.zeros((200, 3))
    for turn in range(200):
        chosen = rng.random(20_000) < 0.05
        counted = Counted()
        reason = np.where(kept, None, "rules.short")
        frame = pl.DataFrame({"kept": kept[chosen], "reason": reason[chosen].tolist(), "size_bytes": sizes[chosen]})
        counted.add(frame)
        mine = chosen & kept
        rate = rate_of(tokens[mine][:150].tolist(), sizes[mine][:150].tolist(), "tokenizer")
        found = scaled("a", counted, 0.05, 20_000, rate)
        intervals = [(found.kept_low, found.kept_high), (found.bytes_low, found.bytes_high)]
        intervals.append((found.tokens_low, found.tokens_high))
        covered[turn] = [low <= value <= high for value, (low, high) in zip(truth, intervals)]
    assert (covered.mean(axis=0) >= 0.9).all()
    assert covered[:, :2].mean() < 1  # no interval is so wide that it says nothing


REAL = """
sources:
  wiki: {path: de_wiki.parquet, language: de, sample: 0.5}
  law: {path: de_law.parquet, language: de, sample: 0.5}
  math: {path: en_math.parquet, language: en, sample: 0.5}
  zh: {path: zh_law.parquet, language: zh, sample: 0.5}
steps:
  - language: {min_score: 0.5, max_drop: 1}
  - rules: {preset: gopher_quality, max_drop: 1}
  - dedup: {preset: minhash, max_drop: 1}
execution: {raw: RAW, workdir: WORK, workers: 1}
"""


@pytest.mark.slow
def test_forecast_of_real_text_covers_the_run(tmp_path):
    folder = Path(os.environ.get("GRISTMILL_TEST_DATA", "")) / "text"
    if not (folder / "de_wiki.parquet").is_file():
        pytest.skip("GRISTMILL_TEST_DATA names no folder with text/de_wiki.parquet")
    path = tmp_path / "real.yaml"
    path.write_text(REAL.replace("RAW", str(folder)).replace("WORK", str(tmp_path / "work")))
    with Run.open(load_recipe(path), silent=True) as run:
        found = forecast(run, 0.2, ())
        ledger = curate(run).ledger()
    inside = []
    for source in found.sources:
        rows = ledger.scan([source.source]).select("kept", "size_bytes").collect()
        size = rows.filter("kept")["size_bytes"].sum()
        inside.append(source.kept_low <= rows["kept"].sum() <= source.kept_high)
        inside.append(source.bytes_low <= size <= source.bytes_high)
        assert source.rows == pytest.approx(rows.height, rel=0.06)
    assert sum(inside) >= len(inside) - 1
    assert found.disk_bytes > 0
    assert {step.stage for step in found.steps} >= {"wiki: read", "wiki: minhash signatures", "minhash duplicates"}
