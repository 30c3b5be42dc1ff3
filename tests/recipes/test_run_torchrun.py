"""`gristmill train` as a process of torchrun: on several nodes, when a recipe differs, and when a node is lost."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from recipes.errors import RunError
from recipes.pretraining.several import prepare_process, refuse_alone
from recipes.pretraining.training_log import read_end
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from training.exits import Exit

RECIPE = """
sources: {a: {path: a.jsonl, language: en}}
domains: {held_out: {tokens: 1K, share: 0.1}, max_epochs: 50}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
schedule: [{name: main, tokens: 30 train steps, weights: natural}]
model: {preset: llama_tiny, layers: 1, context: 32}
training: {batch: 7 sequences, learning_rate: {peak: PEAK}}
checkpoints: {every: 5 train steps}
execution: {workdir: WORKDIR, workers: 1, log_every: 1 train steps, training: {devices: 2, micro_batch: 2}}
"""
PLACE = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}


@pytest.fixture
def write(tmp_path):
    """Write a recipe of this name; the text lies beside it."""
    words = [f"{word}{number}" for word in ("grain", "mill", "flour", "water") for number in range(40)]
    lines = [{"id": str(i), "text": " ".join(words[(i * k) % 160] for k in range(1, 90))} for i in range(1, 120)]

    def written(folder="here", peak="3e-3", workdir="work"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (place / "two.yaml").write_text(RECIPE.replace("PEAK", peak).replace("WORKDIR", str(tmp_path / workdir)))
        return place / "two.yaml"

    return written


def agents(recipes, log):
    """Start an agent of torchrun for each recipe, one process each; they meet on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    run = [sys.executable, "-P", "-m", "torch.distributed.run", f"--nnodes={len(recipes)}", "--nproc-per-node=1"]
    run += ["--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=two", "--local-addr=127.0.0.1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parents[2])}
    started = []
    for place, recipe in enumerate(recipes):
        with (log / f"agent-{place}.log").open("ab") as out:
            command = [*run, "-m", "recipes.cli.main", "train", str(recipe)]
            started.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment))
    return started


def log_of(workdir):
    return next(Path(workdir).glob("training-*/runs/two"))


def rows(workdir):
    with (log_of(workdir) / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_nodes_lose_one_and_end_with_the_losses_of_one_machine(write, gristmill, start, tmp_path):
    alone, shared = write("alone", workdir="one"), write()
    gristmill("train", alone)
    gristmill("run", shared, "--until", "plan")
    first, second = agents([shared, shared], tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "work").glob("training-*/checkpoints/step-00000010-*/manifest.json")):
        assert time.monotonic() < deadline, (tmp_path / "agent-0.log").read_text()
        assert first.poll() is None, (tmp_path / "agent-0.log").read_text()
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.wait()
    assert first.wait(120) == 1  # torchrun's own code; the process's is in what it left
    end = read_end(log_of(tmp_path / "work"))
    assert (end["exit"], end["code"]) == ("RANK_LOST", 21)
    assert "another process was lost" in end["cause"]
    said = gristmill("status", shared).out
    assert "RANK_LOST (exit code 21)" in said
    assert "last whole checkpoint: step-000000" in said
    # Nothing of the dead node's is left running, and both agents started anew go on from there.
    assert [agent.wait(300) for agent in agents([shared, shared], tmp_path)] == [0, 0]
    assert rows(tmp_path / "work") == rows(tmp_path / "one")
    assert (
        "continues from step-000000" in (tmp_path / "agent-0.log").read_text() + (tmp_path / "agent-1.log").read_text()
    )
    assert "done, step 30 of 30" in gristmill("status", shared).out


@pytest.mark.slow
def test_recipe_that_differs_on_a_node_is_refused_with_the_value_and_the_rank(write, gristmill, tmp_path):
    shared, other = write(), write("there", peak="1e-3")
    gristmill("run", shared, "--until", "plan")
    assert [agent.wait(300) for agent in agents([shared, other], tmp_path)] == [1, 1]
    end = read_end(log_of(tmp_path / "work"))
    assert (end["exit"], end["code"]) == ("UNFIT", Exit.UNFIT)
    assert "specification's learning_rate is" in end["cause"]
    assert '"peak": 0.001' in end["cause"]


def test_stages_that_are_missing_are_not_made_by_every_process(write, monkeypatch):
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r"stages that the training reads are missing .*--until plan"):
        prepare_process(Run.open(load_recipe(write()), silent=True), "train")


@pytest.mark.parametrize("part", ["run", "curate"])
def test_other_verbs_are_refused_under_torchrun(write, monkeypatch, part):
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match="torchrun shares out `gristmill train` alone"):
        prepare_process(Run.open(load_recipe(write()), silent=True), part)


def test_several_nodes_without_torchrun_are_refused_with_its_command(write):
    run = Run.open(load_recipe(write(), ["execution.training.nodes=4"]), silent=True)
    with pytest.raises(RunError, match=r"torchrun --nnodes 4 --nproc-per-node 2 .* gristmill train"):
        refuse_alone(run)


def test_end_that_tells_most_is_told(tmp_path):
    for name, ended in (("ended.json", Exit.RANK_LOST), ("ended-00001.json", Exit.NO_SPACE)):
        (tmp_path / name).write_text(json.dumps({"exit": ended.name, "code": int(ended)}))
    assert read_end(tmp_path)["exit"] == "NO_SPACE"
