"""Finished proxies of another design of a swarm, offered as evidence."""

import csv
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="proxies need the `training` extra")

from mixing.ablation.design import PlannedRun
from recipes.ablation.left_over import left_over, write_left_over
from recipes.ablation.swarm import run_task
from recipes.artifacts import Store
from recipes.errors import RunError


def made(folder, name, weights, whole=True):
    """A run whose row lies in a swarm's folder."""
    one = PlannedRun(name, "any", weights, 1)
    output = folder.output(run_task(one))
    losses = {"step": 1, "tokens": 9, "losses": {"a": 2.0, "b": 3.0}, "bits_per_byte": {}}
    row = {"name": name, "weights": weights, "seed": 1, "held_out": [losses], "diverged_at": None,
           "num_parameters": 1, "num_tokens": 9}  # fmt: skip
    output.path(".run.json").write_text(json.dumps(row))
    if whole:
        output.commit({})
    return one


def test_runs_of_another_design_are_written_and_confirmations_are_not(tmp_path):
    folder = Store(tmp_path).stage("proxies", "00ff")
    own = made(folder, "dirichlet.000", {"a": 0.5, "b": 0.5})
    made(folder, "dirichlet.000", {"a": 0.9, "b": 0.1})  # of other bounds, numbered alike
    made(folder, "spread.000", {"a": 0.2, "b": 0.8})
    made(folder, "sequential.000", {"a": 0.3, "b": 0.7})
    for name in ("natural.s1", "confirm.proposed.s1", "order.blocked_a.s0", "pass.a"):
        made(folder, name, {"a": 0.4, "b": 0.6})
    made(folder, "without.a", {"a": 0.0, "b": 1.0}, whole=False)
    found = left_over(SimpleNamespace(folder=folder), [own], ["sequential"])
    assert [kind for kind, _ in found] == ["dirichlet", "space_filling"]
    assert write_left_over(found, tmp_path / "earlier.csv") == 2
    rows = list(csv.DictReader((tmp_path / "earlier.csv").read_text().splitlines()))
    assert [float(row["w:a"]) for row in rows] == [0.9, 0.2]
    known = [f"earlier.{row['name']}" for row in rows]
    assert left_over(SimpleNamespace(folder=folder), [own], ["sequential"], known) == []
    with pytest.raises(RunError, match="no finished proxies of another design"):
        write_left_over([], tmp_path / "none.csv")
