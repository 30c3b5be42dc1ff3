"""Fine-tunings in processes of their own: they go on where they ended, on any number of processes."""

import csv
import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from training.checkpoint import open_checkpoint, read_weights
from training.exits import Exit
from training.importing import write_weights
from training.launch import launch
from training.learning_rate import LearningRate
from training.models import ModelShape
from training.spec import Checkpoints, Evaluation, Factory, LowRank, Span

LOW_RANK = LowRank(4, 8.0, 0.1, ("query", "value"), embeddings=True)


@pytest.fixture
def make_tuning(write_lines, prepared, conversations, make_model, make_spec, tmp_path):
    """A tuning of ten steps of three sequences, the last one smaller, with held-out examples."""
    found, folder, encoder = prepared(write_lines(conversations(40)), context=120, held_out=0.1)
    shape = ModelShape("llama", encoder.vocabulary, 32, 2, 4, 64, 120, kv_heads=2)
    start = write_weights(dict(make_model(shape).named_parameters()), shape, tmp_path / "start", {})

    def make(folder_name, **changes):
        values = {
            "shape": shape,
            "stream": Factory(
                "training.tuning.stream:open_tuning", {"prepared": str(folder), "epochs": {"*": 3}, "seed": 1}
            ),
            "spans": (Span(0, 0, 0, 3, 120), Span(9, 27, 27 * 120, 2, 120)),
            "num_steps": 10,
            "learning_rate": LearningRate(3e-3, 29 * 120, 360, shape="linear"),
            "checkpoints": Checkpoints(2),
            "evaluation": Evaluation(5, at_start=True),
            "start_from": str(start),
            "separator": found.separator,
            "lora": LOW_RANK,
        }
        return make_spec(folder_name, **{**values, **changes})

    return make


def losses(spec, name="metrics.csv"):
    with (Path(spec.folder) / name).open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def last_weights(spec):
    folder = sorted((Path(spec.folder) / "checkpoints").glob("step-00000010-*"))[-1]
    return read_weights(open_checkpoint(folder))


def test_tuning_that_goes_on_has_the_bits_of_one_that_never_ended(make_tuning, write_spec):
    whole, parts = make_tuning("whole"), make_tuning("parts")
    assert launch(write_spec(whole), 1) == Exit.DONE
    for steps in (3, 10):
        assert launch(write_spec(dataclasses.replace(parts, num_steps=steps)), 1) == Exit.DONE
    assert losses(parts) == losses(whole)
    ours, theirs = last_weights(parts), last_weights(whole)
    assert set(ours) == {name for name in theirs if "lora" in name or name.startswith(("embedding", "output"))}
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    held_out = losses(whole, "held_out.csv")
    assert held_out[-1] < held_out[0]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["full", "replicate"])
def test_tuning_on_two_processes_is_that_on_one(make_tuning, write_spec, sharding):
    plain = dataclasses.replace(LOW_RANK, dropout=0.0)
    alone, two = make_tuning("alone", lora=plain), make_tuning("two", lora=plain, sharding=sharding)
    assert launch(write_spec(alone), 1) == Exit.DONE
    assert launch(write_spec(two), 2) == Exit.DONE
    assert losses(two) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(two, "held_out.csv") == pytest.approx(losses(alone, "held_out.csv"), rel=1e-5)
