"""`gristmill train` as a process of torchrun: on several nodes, when a recipe differs, and when a node is lost."""

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
    meeting = free_address()
    return [agent(recipe, log / f"agent-{place}.log", meeting) for place, recipe in enumerate(recipes)]


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def agent(recipe, log, meeting, *options, **variables):
    """Start one of two agents that meet at an address, with one process."""
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *options]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=two", "--local-addr=127.0.0.1"]
    command += ["-m", "recipes.cli.main", "train", str(recipe)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parents[2])} | variables
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment)


def log_of(workdir):
    return next(Path(workdir).glob("training-*/runs/two"))


@pytest.mark.slow
def test_two_nodes_lose_one_and_end_with_the_losses_of_one_machine(write, gristmill, metrics_of, start, tmp_path):
    alone, shared = write("alone", workdir="one"), write()
    gristmill("train", alone)
    gristmill("run", shared, "--until", "plan")
    first, second = agents([shared, shared], tmp_path)
    kill_when_ten_are_saved(second, first, tmp_path)
    assert first.wait(300) == 1  # torchrun's own code; the process's is in what it left
    end = read_end(log_of(tmp_path / "work"))
    assert (end["exit"], end["code"]) == ("RANK_LOST", 21)
    assert "another process was lost" in end["cause"]
    said = gristmill("status", shared).out
    assert "RANK_LOST (exit code 21)" in said
    assert "last whole checkpoint: step-000000" in said
    # Nothing of the dead node's is left running, and both agents started anew go on from there.
    assert [agent.wait(300) for agent in agents([shared, shared], tmp_path)] == [0, 0]
    assert metrics_of(log_of(tmp_path / "work")) == metrics_of(log_of(tmp_path / "one"))
    assert (
        "continues from step-000000" in (tmp_path / "agent-0.log").read_text() + (tmp_path / "agent-1.log").read_text()
    )
    assert "done, step 30 of 30" in gristmill("status", shared).out


def kill_when_ten_are_saved(lost, other, folder):
    """Kill an agent once both have trained ten steps."""
    deadline = time.monotonic() + 600
    while not list((folder / "work").glob("training-*/checkpoints/step-00000010-*/manifest.json")):
        assert time.monotonic() < deadline, (folder / "agent-0.log").read_text()
        assert other.poll() is None, (folder / "agent-0.log").read_text()
        time.sleep(0.01)
    lost.send_signal(signal.SIGKILL)
    lost.wait()


@pytest.mark.slow
def test_agent_that_comes_for_a_killed_one_gets_in_and_training_goes_on(write, gristmill, metrics_of, tmp_path):
    """torch 2.13: where agents share the rendezvous's store, one that comes later is never told its address."""
    shared, meeting = write(), free_address()
    gristmill("run", shared, "--until", "plan")
    options = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    logs = [tmp_path / f"agent-{place}.log" for place in range(3)]
    first = agent(shared, logs[0], meeting, "--max-restarts=2", **options)
    time.sleep(3)  # the first one holds the rendezvous
    second = agent(shared, logs[1], meeting, "--max-restarts=2", **options)
    kill_when_ten_are_saved(second, first, tmp_path)
    third = agent(shared, logs[2], meeting, "--max-restarts=2", **options)
    assert [first.wait(600), third.wait(300)] == [0, 0], logs[0].read_text() + logs[2].read_text()
    assert "continues from step-000000" in logs[0].read_text() + logs[2].read_text()
    assert [int(row["step"]) for row in metrics_of(log_of(tmp_path / "work"))] == list(range(1, 31))
    assert len(list(log_of(tmp_path / "work").glob("ended*.json"))) == 2


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
