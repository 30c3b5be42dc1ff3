"""Trainings in processes of their own: what they compute, and how they end.

Every training here has seven sequences a train step, which neither two nor three processes share evenly.
"""

import csv
import dataclasses
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from training.checkpoint import open_checkpoint, read_weights  # noqa: E402
from training.evaluate import evaluate_checkpoint  # noqa: E402
from training.exits import Exit  # noqa: E402
from training.launch import launch  # noqa: E402
from training.learning_rate import LearningRate  # noqa: E402
from training.proxy import ProxyRun, train_proxy  # noqa: E402
from training.spec import Change, Checkpoints, Evaluation, Execution, Optimizer, Span, SpecError, Spikes  # noqa: E402

TIMES = ("tokens_per_s",)


def rows(spec, name="metrics.csv"):
    """A run's log without its times."""
    with (Path(spec.folder) / name).open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def losses(spec, column="loss"):
    return [float(row[column]) for row in rows(spec)]


def logs(spec):
    return "".join(path.read_text() for path in sorted(Path(spec.folder).glob("rank-*.log")))


def newest(spec):
    return sorted((Path(spec.folder) / "checkpoints").glob("*/manifest.json"))[-1].parent


@pytest.fixture
def alone():
    """Train by the plain loop of the proxies: an independent twin of Lightning, FSDP2 and the supervisor."""

    def train(spec, **changes):
        shared = ("shape", "stream", "spans", "num_steps", "learning_rate", "seed", "optimizer")
        values = {name: getattr(spec, name) for name in shared}
        return train_proxy(ProxyRun("twin", **values, log_every=1, micro_batch=7, evaluate_at=(5, 10), **changes))

    return train


def run_and_kill(spec_path, processes, folder, at_least):
    """Start a training, and kill -9 its supervisor once `at_least` train steps are in the log."""
    code = f"from training.launch import launch; launch({str(spec_path)!r}, {processes})"
    supervisor = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    log = Path(folder) / "metrics.csv"
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") <= at_least:
        assert supervisor.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < deadline, "no train step in a minute"
        time.sleep(0.005)
    supervisor.kill()
    supervisor.wait()


def test_two_processes_equal_the_plain_loop(make_spec, write_spec, alone):
    whole = make_spec("whole")
    told = []
    assert launch(write_spec(whole), 2, progress=told.append) == Exit.DONE
    assert told[-1]["state"] == "done"
    twin = alone(whole)
    assert losses(whole) == pytest.approx([point.loss for point in twin.curve], rel=1e-5)
    last = {row["domain"]: float(row["loss"]) for row in rows(whole, "held_out.csv") if row["step"] == "10"}
    assert last == pytest.approx(twin.held_out[-1].losses, rel=1e-5)
    held_out = evaluate_checkpoint(newest(whole), whole.stream.make().held_out)
    assert {found.domain: found.loss_nats for found in held_out} == pytest.approx(last, rel=1e-6)


def test_one_process_killed_and_resumed_has_the_bits_of_the_plain_loop(make_spec, write_spec, alone, tmp_path):
    # A budget that never ends in time, the same learning rates; then the same folder with the budget of ten steps.
    killed = make_spec(num_steps=100_000, micro_batch=7)
    run_and_kill(write_spec(killed), 1, killed.folder, random.Random(0).randint(3, 9))
    end = max(10, int(newest(killed).name[5:13]) + 2)
    finished = dataclasses.replace(killed, num_steps=end)
    assert launch(write_spec(finished), 1) == Exit.DONE
    twin = alone(finished, save_to=str(tmp_path / "twin"))
    assert losses(finished) == pytest.approx([point.loss for point in twin.curve], rel=1e-12)
    folders = newest(finished), next((tmp_path / "twin").iterdir())
    ours, theirs = (read_weights(open_checkpoint(folder)) for folder in folders)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("kernel", "told"), [("flex", "no backward on a CPU"), ("varlen", "no kernel for a CPU")])
def test_attention_without_a_kernel_here_is_refused_before_anything_is_made(make_spec, kernel, told):
    from training.trainer import run_training

    spec = make_spec(attention=kernel)
    with pytest.raises(SpecError, match=told):
        run_training(spec)
    assert not Path(spec.folder).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "sharding", "precision"),
    [
        (3, "full", "fp32"),
        (2, "replicate", "fp32"),
        (3, "replicate", "fp32"),
        (2, "hybrid", "bf16"),
        (8, "full", "fp32"),
        (2, "no_reshard", "fp32"),
    ],
)
def test_processes_of_any_sharding_equal_the_plain_loop(make_spec, write_spec, alone, processes, sharding, precision):
    spec = make_spec(sharding=sharding, precision=precision)
    assert launch(write_spec(spec), processes) == Exit.DONE, logs(spec)
    expected = [point.loss for point in alone(spec).curve]
    assert losses(spec) == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt_neo", "mindllm"])
def test_families_shard_and_recompute_with_documents_apart(make_spec, write_spec, alone, tiny, family):
    spec = make_spec(shape=tiny[family], recompute=True, separator=3)
    assert launch(write_spec(spec), 2) == Exit.DONE, logs(spec)
    assert losses(spec) == pytest.approx([point.loss for point in alone(spec, separator=3).curve], rel=1e-5)


@pytest.mark.slow
def test_resume_on_other_numbers_of_processes_keeps_order_and_losses(make_spec, write_spec):
    whole, parts = make_spec("whole"), make_spec("parts")
    assert launch(write_spec(whole), 2) == Exit.DONE
    for processes, steps in ((2, 3), (1, 6), (3, 8), (2, 10)):
        assert launch(write_spec(dataclasses.replace(parts, num_steps=steps)), processes) == Exit.DONE, logs(parts)
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert [row["position"] for row in rows(parts)] == [row["position"] for row in rows(whole)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("draw", range(5))  # twenty kills in all: two a run
def test_kill_at_random_steps_and_resume_is_bitwise(make_spec, write_spec, processes, draw):
    # Every other one with checkpoints that are written while the training goes on.
    written = Checkpoints(3, background=draw % 2 == 1)
    whole = make_spec("whole", num_steps=30, learning_rate=LearningRate(3e-3, 10**6, shape="wsd"), checkpoints=written)
    assert launch(write_spec(whole), processes) == Exit.DONE
    killed = dataclasses.replace(whole, folder=str(Path(whole.folder).parent / "killed"))
    chance = random.Random(draw)
    for at_least in sorted(chance.sample(range(1, 25), 2)):
        run_and_kill(write_spec(dataclasses.replace(killed, num_steps=100_000)), processes, killed.folder, at_least)
        # What was written behind step 30 in the meantime is another budget's: go back before it.
        for manifest in (Path(killed.folder) / "checkpoints").glob("*/manifest.json"):
            if int(manifest.parent.name[5:13]) >= 28:
                manifest.unlink()
    assert launch(write_spec(killed), processes) == Exit.DONE
    assert rows(killed) == rows(whole)


SLOW_COPY = """
import time
from training import background
from training.batches import synthetic_stream

def stream(**options):
    copy = background.copy_to_host
    background.copy_to_host = lambda *given: time.sleep(0.1) or copy(*given)
    return synthetic_stream(**options)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "sharding"), [(1, "full"), (2, "full"), (2, "replicate")])
def test_checkpoints_copied_late_have_the_bytes_of_those_saved_at_once(
    make_spec, write_spec, tmp_path, monkeypatch, processes, sharding
):
    """The copy of each train step's checkpoint begins when the next step would long have been over."""
    (tmp_path / "slow_copy.py").write_text(SLOW_COPY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    saved = []
    for folder, changes in (
        ("at_once", {}),
        ("late", {"stream": dataclasses.replace(make_spec().stream, target="slow_copy:stream")}),
    ):
        written = Checkpoints(1, background=bool(changes))
        spec = make_spec(folder, num_steps=4, checkpoints=written, sharding=sharding, **changes)
        assert launch(write_spec(spec), processes) == Exit.DONE, logs(spec)
        files = sorted((Path(spec.folder) / "checkpoints").glob("*/*.safetensors"))
        saved.append({str(path.relative_to(spec.folder)): path.read_bytes() for path in files})
    assert len(saved[0]) == 4 * processes
    assert saved[1] == saved[0]


@pytest.mark.slow
def test_damaged_newest_checkpoint_is_passed_over(make_spec, write_spec):
    spec = make_spec()
    assert launch(write_spec(spec), 1) == Exit.DONE
    before = rows(spec)
    (newest(spec) / "rank-00000.safetensors").write_bytes(b"half a file")
    assert launch(write_spec(spec), 1) == Exit.DONE
    assert "passed over" in logs(spec)
    assert rows(spec) == before


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_wants_to_be_started_again(make_spec, write_spec, processes):
    spec = make_spec(num_steps=100_000, checkpoints=Checkpoints(10**6))
    path = write_spec(spec)
    code = f"from training.launch import launch; raise SystemExit(launch({str(path)!r}, {processes}))"
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    while not (Path(spec.folder) / "metrics.csv").exists() or len(rows(spec)) < 3:
        time.sleep(0.05)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == Exit.REQUEUE
    assert int(newest(spec).name[5:13]) == int(rows(spec)[-1]["step"])


def processes_of(spec):
    """Ids of the processes that train a specification."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"training.launch" in command and str(spec.folder).encode() in command:
            found.append(int(place.name))
    return sorted(found)


@pytest.mark.slow
def test_lost_process_ends_the_others_at_once(make_spec, write_spec):
    spec = make_spec(num_steps=100_000)
    path = write_spec(spec)

    def kill_one():
        while not (Path(spec.folder) / "metrics.csv").exists() or len(rows(spec)) < 2:
            time.sleep(0.05)
        os.kill(processes_of(spec)[1], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    assert launch(path, 2) == Exit.RANK_LOST
    assert processes_of(spec) == []
    assert "rank 1 was killed by SIGKILL" in json.loads((Path(spec.folder) / "ended.json").read_text())["cause"]


@pytest.mark.slow
def test_killed_supervisor_leaves_no_process_behind(make_spec, write_spec):
    spec = make_spec(num_steps=100_000)
    run_and_kill(write_spec(spec), 2, spec.folder, 1)
    deadline = time.monotonic() + 5
    while processes_of(spec) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(spec) == []


@pytest.mark.slow
def test_divergence_has_its_exit_code_and_saves_nothing(make_spec, write_spec):
    spec = make_spec(learning_rate=LearningRate(1e30, 10**6), optimizer=Optimizer(clip=None))
    assert launch(write_spec(spec), 1) == Exit.DIVERGED
    assert "lower learning_rate.peak" in logs(spec)
    assert not list((Path(spec.folder) / "checkpoints").glob("*/manifest.json"))


@pytest.mark.slow
def test_no_space_has_its_exit_code(make_spec, write_spec):
    spec = make_spec(min_free_bytes=1 << 60)
    assert launch(write_spec(spec), 1) == Exit.NO_SPACE
    assert "make room" in logs(spec)


@pytest.mark.slow
def test_stall_has_its_exit_code(make_spec, write_spec):
    spec = make_spec(num_steps=100_000)
    path = write_spec(spec)

    def stop_one():
        while not (Path(spec.folder) / "metrics.csv").exists() or len(rows(spec)) < 2:
            time.sleep(0.05)
        os.kill(processes_of(spec)[1], signal.SIGSTOP)

    threading.Thread(target=stop_one, daemon=True).start()
    assert launch(path, 2, stall_s=20.0) == Exit.STALLED
    assert processes_of(spec) == []
    ended = json.loads((Path(spec.folder) / "ended.json").read_text())
    assert ended["exit"] == "STALLED"
    assert "rank 1" in ended["cause"]
    assert "SIGSTOP" in ended["cause"]
    # The stacks of both processes are in their logs, also of the one that was stopped.
    for log in sorted(Path(spec.folder).glob("rank-*.log")):
        assert "most recent call first" in log.read_text(), log


@pytest.mark.slow
def test_lost_process_is_started_again_and_ends_with_the_same_bits(make_spec, write_spec):
    whole, spec = make_spec("whole", num_steps=40), make_spec("lost", num_steps=40)
    path = write_spec(spec)

    def kill_one():
        while not (Path(spec.folder) / "metrics.csv").exists() or len(rows(spec)) < 2:
            time.sleep(0.005)
        os.kill(processes_of(spec)[-1], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    assert launch(path, 2, restarts=1) == Exit.DONE
    assert launch(write_spec(whole), 2) == Exit.DONE
    assert rows(spec) == rows(whole)


def test_restarts_are_counted_from_this_trainings_newest_checkpoint(make_spec, write_spec, monkeypatch):
    """A longer run's checkpoint lies beside; each start but the last saves one of its own."""
    spec = make_spec()
    starts = iter([3, 6, 9, None])

    def save(name):
        (spec.checkpoints_root / name).mkdir(parents=True)
        (spec.checkpoints_root / name / "manifest.json").touch()

    def lost(run, told):
        step = next(starts)
        if step:
            save(f"step-{step:08d}-ours")
        return Exit.RANK_LOST

    save("step-00000100-other")
    monkeypatch.setattr("training.launch._once", lost)
    said = []
    assert launch(write_spec(spec), 1, restarts=1, say=said.append) is Exit.RANK_LOST
    assert next(starts, "all") == "all"
    assert [line.split("train step ")[1].split(",")[0] for line in said] == ["3", "6", "9"]


def test_spikes_that_are_warned_of_are_train_steps_not_lines_of_the_log(make_spec, write_spec):
    never = {"evaluation": Evaluation(), "checkpoints": Checkpoints(100), "preflight": "off"}
    spec = make_spec(num_steps=67, spikes=Spikes("warn", sigma=-100.0), log_every=50, **never)
    assert launch(write_spec(spec), 1) == Exit.DONE
    told = re.findall(r"train step (\d+): loss .* trace RECIPE --train-step (\d+)", logs(spec))
    assert told == [("65", "64"), ("66", "65"), ("67", "66")]  # half a window of 128 is silent
    remembered = open_checkpoint(newest(spec)).state["spikes"]
    assert len(remembered) == 67


@pytest.mark.slow
def test_spike_with_rollback_ends_where_it_was_seen(make_spec, write_spec):
    spec = make_spec(num_steps=70, spikes=Spikes("rollback", sigma=-100.0))
    assert launch(write_spec(spec), 1) == Exit.SPIKED
    status = json.loads((Path(spec.folder) / "status.json").read_text())
    assert (status["state"], status["spike"]["step"], status["spike"]["position"]) == ("spiked", 65, 455)
    assert status["spike"]["why"] in logs(spec)


@pytest.mark.slow
def test_changes_and_longer_contexts_on_the_way_continue_what_came_before(make_spec, write_spec):
    """Contexts of 32 from step 8 on; a copy of the run whose learning rate is amended at step 6, position 42."""
    spans = (Span(0, 0, 0, 7, 16), Span(8, 56, 896, 3, 32))
    plain = make_spec(spans=spans, prefix={"peak": {"from": [[0, 3e-3]]}})
    assert launch(write_spec(plain), 1) == Exit.DONE
    before = rows(plain)
    assert [int(row["tokens"]) for row in before[7:]] == [896, 992, 1088]
    changed = dataclasses.replace(
        plain,
        changes=(Change(6, learning_rate=LearningRate(1e-4, 10**4)),),
        prefix={"peak": {"from": [[0, 3e-3], [42, 1e-4]]}},
    )
    assert launch(write_spec(changed), 1) == Exit.DONE
    after = rows(changed)
    assert "step-00000009" in logs(changed)
    assert "is another run's: peak.from" in logs(changed)
    assert after[:6] == before[:6]
    assert float(after[5]["learning_rate"]) > 1e-4 > float(after[6]["learning_rate"])
    assert [row["position"] for row in after] == [row["position"] for row in before]


@pytest.mark.slow
def test_dropped_updates_are_the_same_on_two_processes_and_after_a_resume(make_spec, write_spec):
    # Every step "stands out" at a negative sigma, once half a window of 128 is remembered.
    spikes = Spikes("drop_update", sigma=-100.0)
    one, two = (make_spec(name, num_steps=70, spikes=spikes, checkpoints=Checkpoints(66)) for name in ("one", "two"))
    assert launch(write_spec(one), 1) == Exit.DONE
    for steps in (66, 70):
        assert launch(write_spec(dataclasses.replace(two, num_steps=steps)), 2) == Exit.DONE
    assert [row["dropped_updates"] for row in rows(one)] == ["0"] * 64 + ["1"] * 6
    assert [row["dropped_updates"] for row in rows(two)] == ["0"] * 64 + ["1"] * 6
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


@pytest.mark.slow
def test_torchrun_starts_the_same_training(make_spec, write_spec):
    ours, theirs = make_spec("ours"), make_spec("theirs")
    assert launch(write_spec(ours), 2) == Exit.DONE
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    subprocess.run([*command, "-m", "training.launch", "--spec", str(write_spec(theirs))], check=True)
    assert rows(theirs) == rows(ours)


@pytest.mark.slow
def test_two_nodes_of_torchrun_give_the_losses_of_one(make_spec, write_spec):
    """Two agents that meet over the loopback, one process each: the folder is all that they share."""
    ours, theirs = make_spec("ours"), make_spec("theirs")
    assert launch(write_spec(ours), 2) == Exit.DONE
    path = write_spec(theirs)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    command += [f"--rdzv-endpoint={meeting}", "--rdzv-id=two", "--local-addr=127.0.0.1"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    training = [*command, "-m", "training.launch", "--spec", str(path)]
    agents = [subprocess.Popen(training, env=environment) for _ in range(2)]
    assert [agent.wait(300) for agent in agents] == [0, 0]
    assert rows(theirs) == rows(ours)


@pytest.mark.slow
def test_compiled_blocks_give_the_losses(make_spec, write_spec, alone, tiny):
    one_layer = dataclasses.replace(tiny["llama"], layers=1)
    spec = make_spec(shape=one_layer, compile=True, num_steps=3, separator=3)
    assert isinstance(spec.execution, Execution)
    assert launch(write_spec(spec), 2, stall_s=600) == Exit.DONE, logs(spec)
    assert losses(spec) == pytest.approx([point.loss for point in alone(spec, separator=3).curve], rel=1e-4)
