"""Where a study stands, and what one costs whose text is not made yet."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="proxies need the `training` extra")

from recipes.ablation import foretold, standing, swarm_cost
from recipes.ablation.foretold import simulated, study_forecast
from recipes.ablation.standing import Standing, with_placed
from recipes.ablation.swarm_cost import Left
from recipes.artifacts import StageFolder
from recipes.cli.forecast import found_or_why, later_lines
from recipes.run import Run
from recipes.schema.recipe import load_recipe

RECIPE = """
sources:
  de: {path: a.jsonl, language: de}
  en: {path: a.jsonl, language: en}
  exam: {path: a.jsonl, language: en}
domains: {held_out: {tokens: 4K, share: 0.05}, max_epochs: 20, validate_only: [exam]}
tokenizer: {algorithm: byte_bpe, vocabulary: 400}
ablation:
  proxy: {preset: llama_tiny, context: 64, training: {batch: 8 sequences}}
  tokens: 8K
  runs: {one_domain: 1, dirichlet: 8, repeats: 2, sequential: 6, optimum: 2, one_pass: 1}
  baselines: [natural, unimax]
  evaluate: 4 points
  stop: {at: 0.25, keep: 0.5}
  confirm: {model: {preset: llama_tiny, context: 64}, tokens: 16K, seeds: 2}
schedule: [{name: main, tokens: 16K, weights: ablation}]
model: {preset: llama_tiny, context: 64}
"""


def test_sequential_runs_wait_for_each_other_four_at_a_time():
    left = with_placed(Left(2, [[1.0, 1.0]]), 6, 3)
    assert left.waves == [[1.0, 1.0], [1.0] * 4, [1.0] * 2, [1.0] * 3]
    assert left.number == 11


def test_failed_runs_are_those_that_were_given_up_and_are_not_there(tmp_path):
    told = {"set_aside": {"one.a-1": "OSError: disk", "one.b-2": "ValueError: odd", "other-3": "not of this study"}}
    (tmp_path / "run.json").write_text(json.dumps(told))
    output = StageFolder(tmp_path).output("one.b-2")  # it was trained after all
    output.path(".run.json").write_text("{}")
    output.commit({})
    stage = SimpleNamespace(folder=StageFolder(tmp_path))
    assert standing._failed([stage], {"one.a-1", "one.b-2"}) == (("one.a-1", "OSError: disk"),)


def test_words_name_every_state_that_there_is():
    runs = [None] * 9
    found = Standing(28, runs, runs, 2, ("x", "y"), (("one.a-1", "OSError: disk"),), 4, 1, Left(15, []))
    assert found.words() == (
        "11 of 28 proxies are finished, 1 of them diverged, 2 were stopped early, 4 are kept on their way, "
        "1 failed (one.a-1: OSError: disk)"
    )


def test_study_before_its_text_is_the_design_over_the_domains_of_a_sample(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.setattr(swarm_cost, "run_cost", lambda *_: swarm_cost.RunCost(100.0, "by heart"))
    monkeypatch.setattr("recipes.ablation.study_cost.run_cost", swarm_cost.run_cost)
    monkeypatch.setattr(foretold, "text_is_made", lambda _: False)
    recipe = load_recipe(tmp_path / "r.yaml", (f"execution.workdir={tmp_path / 'work'}", "execution.workers=2"))
    with Run.open(recipe, silent=True) as run:
        assert study_forecast(run) is None  # without a sample nothing is known
        listed = simulated(run, {"de": 60_000, "en": 40_000, "exam": 5_000})
        proxies, passes, confirmation = study_forecast(run, {"de": 60_000, "en": 40_000, "exam": 5_000})
    assert [(one.name, one.num_tokens, one.held_out_tokens) for one in listed] == [
        ("de", 57_000, 3_000), ("en", 38_000, 2_000), ("exam", 0, 5_000),
    ]  # fmt: skip
    # Natural weights twice, two domains, eight drawn, a baseline twice, six sequential, two at the optimum.
    assert (proxies.number, proxies.left) == (22, 22)
    # Two workers: six sure runs, eight up to step 4 of 15, four rests, four and two sequential, two at the optimum.
    assert proxies.seconds == pytest.approx(100 * (3 + 4 * 4 / 15 + 2 * 11 / 15 + 2 + 1 + 1))
    assert (passes.number, confirmation.number) == (2, 6)
    assert passes.longest > passes.shortest


def test_study_of_too_little_text_is_told_in_a_line_and_the_forecast_goes_on(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.setattr(foretold, "text_is_made", lambda _: False)
    with Run.open(load_recipe(tmp_path / "r.yaml", (f"execution.workdir={tmp_path / 'work'}",)), silent=True) as run:
        found = found_or_why(lambda: study_forecast(run, {"de": 300, "en": 400, "exam": 500}))
    (line,) = later_lines(found, None, (None, ""))
    assert line.startswith("ablation: not known yet: ")
    assert "no mixture meets the bounds" in line


def test_room_is_that_of_the_swarm_that_takes_most_and_not_of_a_sum_of_two():
    def cost(workers, process_bytes, scratch_bytes, kept_bytes):
        parts = {"workers": workers, "process_bytes": process_bytes}
        return SimpleNamespace(**parts, scratch_bytes=scratch_bytes, kept_bytes=kept_bytes)

    line = swarm_cost.room_line([cost(16, 10**9, 5 * 10**9, 10**6), cost(2, 3 * 10**9, 10**9, 10**6)], 20 * 10**9)
    assert line == ("memory: 1 GB a worker, 16 GB of 20 GB that are free; disk: 5 GB while they train, 2 MB for good")
