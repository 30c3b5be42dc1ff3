"""What a swarm costs, said before it is spent."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="proxies are timed by training them")

from recipes.ablation import swarm_cost
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
    cost = swarm_cost.run_cost(None, OPTIONS, Swarm)
    assert cost.seconds == 30.0
    assert cost.basis == "as the last 4 of them took on mill"
