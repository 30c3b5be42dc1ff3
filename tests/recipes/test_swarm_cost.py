"""What a swarm costs, said before it is spent."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="proxies are timed by training them")

from mixing.ablation.design import PlannedRun
from recipes.ablation import swarm_cost
from recipes.ablation.halving import left_of_all
from recipes.artifacts import StageFolder
from recipes.progress import duration
from training.learning_rate import LearningRate
from training.models import ModelShape
from training.spec import Optimizer
from training.speed import proxy_speed
from training.swarm import SwarmOptions

SHAPE = ModelShape("llama", 100, 16, 2, 2, 32, 32)
OPTIONS = SwarmOptions(SHAPE, 4096, 256, LearningRate(1e-3, 4096), Optimizer(), "fp32", 4, 8)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.42 s"), (40, "40 s"), (720, "12 min"), (19000, "5.3 h"), (1e6, "12 days"), (1e8, "3.2 years")],
)
def test_duration_is_in_the_unit_that_people_think_in(seconds, words):
    assert duration(seconds) == words


def test_proxy_speed_of_a_large_shape_is_foretold_from_fewer_layers(monkeypatch):
    monkeypatch.setattr("training.speed.LEAST_S", 1e-9)
    monkeypatch.setattr("training.speed.MOST_PARAMETERS", 5000)
    speed = proxy_speed(replace(OPTIONS, shape=replace(SHAPE, layers=4)))
    assert not speed.exact
    assert speed.parameters < 8000
    assert speed.training > 0
    monkeypatch.setattr("training.speed.MOST_PARAMETERS", 10**9)
    assert proxy_speed(OPTIONS).exact


def test_run_cost_of_a_swarm_with_earlier_runs_is_theirs(tmp_path):
    class Swarm:
        folder = StageFolder(tmp_path)

    (tmp_path / "run.json").write_text(
        json.dumps({"seconds": 60.0, "workers": 2, "host": "mill", "tasks": ["a", "b", "c", "d"]})
    )
    cost = swarm_cost.run_cost(run_with(2), OPTIONS, (), Swarm)
    assert cost.seconds == 30.0
    assert cost.basis == "as the last 4 of them took on mill"


def run_with(workers, stop=None):
    """As much of a run as the cost of a swarm looks at."""
    training = SimpleNamespace(stacked=None)
    recipe = SimpleNamespace(
        execution=SimpleNamespace(training=training), ablation=SimpleNamespace(stop=stop) if stop else None
    )
    return SimpleNamespace(recipe=recipe, pool=SimpleNamespace(workers=workers))


def test_makespan_gives_the_next_task_to_the_worker_that_is_free_first():
    assert swarm_cost.makespan([5, 3, 3, 1], 2) == 6  # 5 and 1, 3 and 3
    assert swarm_cost.makespan([1.0] * 7, 3) == 3
    assert swarm_cost.makespan([], 3) == 0


def test_cost_of_waves_waits_for_each_and_counts_no_run_that_is_there():
    left = swarm_cost.Left(5, [[1.0] * 3, [0.25] * 4, [0.75] * 2], stopped=2, paused=4)
    cost = swarm_cost.cost_of(run_with(2), [OPTIONS] * 10, "proxies", left, [], swarm_cost.RunCost(100.0, "by heart"))
    assert cost.seconds == 200 + 50 + 75
    assert cost.scratch_bytes == 4 * 12 * cost.parameters
    lines = list(swarm_cost.cost_lines(cost))
    assert lines[1] == "3 are there, 2 were stopped early; 5 min for 5 with 2 workers: 2 min each, by heart"
    done = swarm_cost.cost_of(run_with(2), [OPTIONS], "proxies", swarm_cost.Left(0, []), [], swarm_cost.RunCost(0, ""))
    assert (done.seconds, done.scratch_bytes, done.kept_bytes) == (0, 0, 0)
    assert list(swarm_cost.cost_lines(done))[1] == "it is there"


def test_stopped_runs_are_counted_up_to_the_pause():
    """Ten drawn runs pause at a quarter, four go on (and never fewer than two mixtures a domain)."""
    kinds = ["natural"] * 2 + ["one_domain"] * 2 + ["dirichlet"] * 10
    weights = [{"a": 0.5, "b": 0.5}] * 2 + [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}]
    weights += [{"a": k / 20, "b": 1 - k / 20} for k in range(1, 11)]
    planned = [PlannedRun(f"r{k}", kind, mixture, 0) for k, (kind, mixture) in enumerate(zip(kinds, weights))]
    left = left_of_all(run_with(2, SimpleNamespace(at=0.25, keep=0.4)), planned, OPTIONS)
    assert left.waves == [[1.0] * 4, [0.25] * 10, [0.75] * 4]
    assert (left.number, left.paused) == (14, 10)
    few = left_of_all(run_with(2, SimpleNamespace(at=0.25, keep=0.01)), planned, OPTIONS)
    assert len(few.waves[2]) == 2 * 2 - 3
