"""A spike under torchrun: all processes go back together, also when the group is started anew after it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lightning")

RECIPE = """
sources: {a: {path: a.jsonl, language: en}, odd: {path: odd.jsonl, language: en}}
domains: {held_out: {tokens: 1K, share: 0.1}, max_epochs: 50}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
schedule:
  - {name: main, tokens: 70 train steps, weights: {a: 1, odd: 0}}
  - {name: odd, tokens: 2 train steps, weights: {a: 0, odd: 1}}
  - {name: rest, tokens: 10 train steps, weights: {a: 1, odd: 0}}
model: {preset: llama_tiny, layers: 1, context: 32}
training:
  batch: 7 sequences
  learning_rate: {peak: 3e-3}
  spikes: {action: rollback, sigma: 6, back: 3 train steps}
  amendments: AMENDMENTS
checkpoints: {every: 10 train steps}
execution: {workdir: WORKDIR, workers: 1, log_every: 1 train steps, training: {devices: 2, micro_batch: 2}}
"""
# The second odd train step spikes too, 3 train steps before it lie in what is passed over already.
AMENDED = "[{at: 68 train steps, skip_data: 4 train steps, why: odd text}]"


def write(folder, workdir, amendments="[]"):
    """Text that a model learns in some steps, and text that has nothing in common with it; returns the recipe."""
    folder.mkdir()
    words = [f"{word}{number}" for word in ("grain", "mill", "flour", "water") for number in range(40)]
    lines = [" ".join(words[(i * k) % 160] for k in range(1, 90)) for i in range(1, 120)]
    odd = ["".join("ZQXJKV#@%&*{}[]~^"[(i * k * k) % 17] for k in range(1, 400)) for i in range(1, 40)]
    for name, texts in (("a", lines), ("odd", odd)):
        rows = [json.dumps({"id": f"{name}{place}", "text": text}) + "\n" for place, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("".join(rows))
    text = RECIPE.replace("WORKDIR", str(workdir)).replace("AMENDMENTS", amendments)
    (folder / "two.yaml").write_text(text)
    return folder / "two.yaml"


def torchrun(recipe, log):
    """Start two processes under one agent, which starts them anew once."""
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "-m", "recipes.cli.main", "train", str(recipe)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parents[2])}
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment)


def trainer_of(agent, rank):
    """The process that trains as this rank, below an agent; None while there is none."""
    below = [agent.pid]
    for pid in below:
        try:
            below += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            command, place = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if b"training.launch" in command.split(b"\0") and b"RANK=%d" % rank in place.split(b"\0"):
            return pid
    return None


def log_of(workdir):
    return next(Path(workdir).glob("training-*/runs/two"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds a process through Linux's /proc")
def test_rollback_under_torchrun_is_what_an_amendment_would_be_also_after_a_lost_process(
    gristmill, metrics_of, tmp_path
):
    gristmill("train", write(tmp_path / "alone", tmp_path / "one", AMENDED))
    shared = write(tmp_path / "shared", tmp_path / "work")
    gristmill("run", shared, "--until", "plan")
    agent = torchrun(shared, tmp_path / "agent.log")
    said, deadline = tmp_path / "agent.log", time.monotonic() + 900
    while not (lost := list((tmp_path / "work").glob("training-*/runs/two/rollbacks.json")) and trainer_of(agent, 1)):
        assert time.monotonic() < deadline, said.read_text()
        assert agent.poll() is None, said.read_text()
        time.sleep(0.02)
    os.kill(lost, signal.SIGKILL)  # one of those that go back: torchrun starts both anew
    assert agent.wait(900) == 0, said.read_text()
    log = log_of(tmp_path / "work")
    told = json.loads((log / "rollbacks.json").read_text())
    assert [(one["step"], one["start"], one["stop"]) for one in told] == [(71, 476, 497), (69, 476, 504)]
    # Steps 69 and 70 were trained on text that is passed over: the checkpoint of step 70 is not gone on from.
    assert metrics_of(log_of(tmp_path / "work")) == metrics_of(log_of(tmp_path / "one"))
    assert len(metrics_of(log_of(tmp_path / "work"))) == 78
    documents = json.loads((log / "spike-00000071.json").read_text())["documents"]
    assert {one["domain"] for one in documents} == {"odd"}
