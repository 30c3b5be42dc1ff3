"""Runs of a swarm trained in a stack: their rows are those of single runs up to rounding, wherever they lie in it."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from mixing.domain_stage import DomainOptions, TokenInputs, make_domains
from mixing.shards import ShardFiles, write_token_shard
from training.learning_rate import LearningRate
from training.models import ModelShape
from training.spec import Optimizer
from training.stacked_swarm import train_stack
from training.swarm import SwarmOptions, SwarmRun, read_run, train_run

_found = importlib.util.spec_from_file_location("mixing_fixtures", Path(__file__).parents[1] / "mixing" / "conftest.py")
made_by_hand = importlib.util.module_from_spec(_found)
_found.loader.exec_module(made_by_hand)

OPTIONS = SwarmOptions(
    ModelShape("llama", 300, 16, 1, 2, 32, 16), 640, 64, LearningRate(1e-2, 640), Optimizer(), "fp32", 2, 3
)


class Written:
    """An output whose files stay where they are written, below the task's name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.stem = folder / name

    def path(self, suffix: str) -> Path:
        return Path(f"{self.stem}{suffix}")


@pytest.fixture
def runs(tmp_path):
    """Three runs over two domains: even weights on two seeds, and one domain alone."""
    tokenizer = made_by_hand.made_number_tokenizer(tmp_path / "tokenizer", 300)
    files = []
    for name, first in (("web", 10), ("law", 150)):
        texts = [" ".join(str(first + (number * k) % 100) for k in range(20)) for number in range(60)]
        files.append(ShardFiles(name, "a", tmp_path / f"{name}.tokens", tmp_path / f"{name}.parquet"))
        write_token_shard(
            [made_by_hand.made_rows(texts)], tokenizer, files[-1].tokens_path, files[-1].documents_path
        )  # fmt: skip
    make_domains(TokenInputs(tuple(files)), DomainOptions((), 200, 0.2), Written(tmp_path, "all"))
    domains = str(tmp_path / "all.domains.json")
    even = SwarmRun("even", (("law", 0.5), ("web", 0.5)), 1, domains, domains)
    return [
        even,
        replace(even, name="alone", weights=(("law", 0.0), ("web", 1.0))),
        replace(even, name="other", seed=2),
    ]


def test_runs_in_a_stack_have_the_rows_of_single_runs(runs, tmp_path):
    train_stack(runs, OPTIONS, Written(tmp_path, "stack"))
    for place, run in enumerate(runs):
        train_run(run, OPTIONS, Written(tmp_path, run.name))
        train_run(replace(run, stacked=(str(tmp_path / "stack.rows.json"), place)), OPTIONS, Written(tmp_path, "taken"))
        single, taken = (read_run(tmp_path / f"{name}.run.json") for name in (run.name, "taken"))
        assert set(single) == set(taken)
        for name in ("name", "weights", "seed", "order", "num_tokens", "num_parameters", "diverged_at"):
            assert single[name] == taken[name]
        for one, other in zip(single["held_out"], taken["held_out"], strict=True):
            assert (one["step"], one["tokens"]) == (other["step"], other["tokens"])
            assert other["losses"] == pytest.approx(one["losses"], abs=2e-4)
        for one, other in zip(single["curve"], taken["curve"], strict=True):
            assert other == {**one, "loss": pytest.approx(one["loss"], abs=2e-4)}
        sequences = [json.loads((tmp_path / f"{name}.sequences.json").read_text()) for name in (run.name, "taken")]
        assert [len(sequences[0][domain]) for domain in ("law", "web")] == [
            len(sequences[1][d]) for d in ("law", "web")
        ]
    losses = [read_run(tmp_path / f"{run.name}.run.json")["held_out"][-1]["losses"]["law"] for run in runs]
    assert losses[1] > losses[0] + 0.01  # what never read law knows less of it: the test would see mixed-up runs
