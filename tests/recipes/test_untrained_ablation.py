"""Verbs that only look never train proxies; what follows from a plan is read from the plan."""

import json
import re

import pytest

pytest.importorskip("torch", reason="proxies need the `training` extra")

from recipes.ablation import swarm_cost
from recipes.cli.exit_codes import NOT_YET, RECIPE_ERRORS
from recipes.pretraining import training_cost

STUDY = "ablation={proxy: {preset: llama_tiny, context: 64}, tokens: 8K, runs: {dirichlet: 4, repeats: 2, one_pass: 1}}"
OPEN = ("--set", "schedule.main.weights=ablation", "--set", STUDY)


@pytest.fixture
def asked(copy_of_finished, gristmill_here, monkeypatch):
    """Call a verb for the finished run's recipe, its first phase's weights left to an ablation that has not run."""
    monkeypatch.setattr(swarm_cost, "run_cost", lambda *_: swarm_cost.RunCost(3600.0, "made up"))
    monkeypatch.setattr("recipes.ablation.study_cost.run_cost", swarm_cost.run_cost)
    monkeypatch.setattr(training_cost, "_seconds", lambda *_: (12.0, "by heart"))

    def call(verb, *flags, code=0, asks=OPEN):
        said = gristmill_here(verb, copy_of_finished.recipe, *asks, *flags, code=code)
        assert not list(copy_of_finished.workdir.glob("proxies-*/*.run.json"))
        return said

    return call


def test_plan_shows_natural_weights_marked_so_and_says_what_the_ablation_needs(asked):
    said = asked("plan", code=NOT_YET)
    assert "NOT THE PLAN YET: phase main stands at natural weights" in said.out
    assert "which has 0 of" in said.err
    assert "of training are left)" in said.err
    assert "`gristmill ablate" in said.err
    found = json.loads(asked("plan", "--json", code=NOT_YET).out)
    natural = json.loads(asked("plan", "--json", asks=()).out)
    assert found["plan"] is None
    assert found["rows"] == natural["rows"]


@pytest.mark.parametrize("verb", ["weights", "trace --train-step 0", "pin"])
def test_verbs_that_look_refuse_with_the_command_that_trains(asked, verb):
    name, *flags = verb.split()
    said = asked(name, *flags, code=NOT_YET)
    assert "phase main: its weights come from the ablation" in said.err


def test_weights_of_another_phase_are_there_while_the_ablation_is_not(asked):
    cooldown = json.loads(asked("weights", "--phase", "cooldown", "--json").out)["weights"]
    assert sum(cooldown.values()) == pytest.approx(1.0)


def test_weights_are_those_of_the_plan_however_small(asked):
    tiny = 'schedule.main.weights={"de/*": 0.00001, "*": 0.99999}'
    asks = ("--set", tiny, "--set", "schedule.cooldown.weights=unimax", "--set", "schedule.cooldown.ramp=0 tokens")
    rows = json.loads(asked("plan", "--json", asks=asks).out)["rows"]
    planned = {row["domain"]: row["share"] for row in rows if row["phase"] == "cooldown" and row["domain"] != "all"}
    weights = json.loads(asked("weights", "--phase", "cooldown", "--json", asks=asks).out)["weights"]
    assert weights == pytest.approx({name: planned[name] for name in weights}, abs=0.03)  # whole sequences are drawn
    weights = json.loads(asked("weights", "--to", "json", asks=asks).out)
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-6)
    assert 0 < min(weights.values()) < 1e-5


def test_objective_that_nothing_measures_is_refused_with_its_line(asked):
    objective = ("--set", "ablation.objective={de: 0.5, en: 0.5}")
    short = ("--set", "domains.held_out.tokens=64 tokens")
    said = asked("validate", *short, *objective, code=RECIPE_ERRORS)
    assert "ablation.objective.de" in said.err
    assert "less than a sequence of 64 tokens" in said.err
    asked("validate", *objective)
    order = ("--set", "ablation.orders=[{blocked: [de]}]")
    assert "draw en, code too" in asked("validate", *order, code=RECIPE_ERRORS).err


def test_schedule_longer_than_all_text_is_one_mistake_with_its_line(asked):
    long = ("--set", "schedule.main.tokens=20M", "--set", "domains.max_epochs=2")
    for verb, flags in (("ablate", ("--dry-run",)), ("run", ("--until", "plan"))):
        said = asked(verb, *long, *flags, code=RECIPE_ERRORS)
        (line,) = [line for line in said.err.splitlines() if "the schedule asks for" in line]
        assert line.startswith("--set schedule.main.tokens=20M: schedule.main.tokens: the schedule asks for 20")
        assert "x max_epochs 2); shorten it to" in line
        assert "Traceback" not in said.err
    said = asked("ablate", "--dry-run", "--set", "ablation.bounds={de/*: [0.9, 1], en: [0.2, 1]}", code=RECIPE_ERRORS)
    assert "ablation.bounds: no mixture meets the bounds" in said.err


def test_dry_run_lists_what_comes_after_the_text_and_whether_it_is_made(asked):
    said = asked("run", "--dry-run", asks=()).out.splitlines()
    (training,) = [line for line in said if line.startswith("training: ")]
    assert "train steps" in training
    assert training.endswith("to make")
    said = asked("run", "--dry-run").out
    assert re.search(r"^ablation: proxies for the weights +0 of \d+ proxies are there$", said, re.MULTILINE)
    assert re.search(r"^ablation: \d+ proxies of .* FLOPs$", said, re.MULTILINE)
    assert re.search(r"^training: .* after the ablation$", said, re.MULTILINE)
    assert "ablation" not in asked("curate", "--dry-run").out


def test_dry_run_once_all_proxies_are_there_knows_the_weights_and_what_they_lead_to(asked, monkeypatch):
    states = {part["part"]: part["state"] for part in json.loads(asked("run", "--dry-run", "--json").out)["parts"]}
    assert (states["plan"], states["train"]) == ("after the ablation", "after the ablation")
    seen = []
    monkeypatch.setattr("recipes.show._chosen_weights", lambda run: ({"de": 1.0}, ""))
    monkeypatch.setattr("recipes.show.are_there", lambda run, chosen: seen.append(chosen) or (True, False))
    states = {part["part"]: part["state"] for part in json.loads(asked("run", "--dry-run", "--json").out)["parts"]}
    assert [states[part] for part in ("ablate", "plan", "train", "evaluate")] == [
        "reused", "reused", "to make", "after training, to make",
    ]  # fmt: skip
    assert seen == [{"de": 1.0}]


@pytest.mark.parametrize("stop", ["", ", stop: {at: 0.25, keep: 0.5}"])
def test_dry_run_says_of_the_ablation_what_ablate_says(asked, stop):
    study = STUDY[:-1] + stop + ", confirm: {model: {preset: llama_tiny, context: 64}, tokens: 16K, seeds: 2}}"
    asks = ("--set", "schedule.main.weights=ablation", "--set", study)
    announced = [line.strip() for line in asked("ablate", "--dry-run", asks=asks).err.splitlines()]
    foretold = asked("run", "--dry-run", asks=asks).out.splitlines()
    first = next(place for place, line in enumerate(foretold) if line.startswith("ablation: 1"))
    said = [foretold[first].removeprefix("ablation: "), *(line.strip() for line in foretold[first + 1 :])]
    start = announced.index(said[0])
    assert said[:-1] == announced[start:-1]  # all but the memory that is free at that moment
    assert sum("runs of confirmation" in line for line in said) == 1
    assert any("pause at" in line for line in said) == bool(stop)
    assert said[-1].startswith("memory: ")
