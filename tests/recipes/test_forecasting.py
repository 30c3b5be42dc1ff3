"""Forecasts: a sample scaled to what the run itself would read."""

import json

import pytest

from recipes.forecasting import forecast, wilson
from recipes.recipe import load_recipe
from recipes.run import Run

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
