"""Signs of life: what takes longer than a stall, and goes on all the while, is no stall."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training.alive import result_of  # noqa: E402
from training.batches import read_batch, synthetic_stream  # noqa: E402
from training.evaluate import held_out_losses  # noqa: E402
from training.exits import Exit  # noqa: E402
from training.spec import Checkpoints, Evaluation, Factory, Span  # noqa: E402
from training.step import Hooks, Optimizer, StepOptions, make_optimizer, train_step  # noqa: E402
from training.watch import Watchdog  # noqa: E402


def test_every_micro_batch_of_a_train_step_and_of_an_evaluation_is_a_sign(make_model, tiny):
    model, signs = make_model(tiny["llama"]), []
    stream = synthetic_stream(64, ["a", "b"], 16, held_out_sequences=5)
    batch = read_batch(stream, (Span(0, 0, 0, 7, 16),), 0, 0, 1)
    hooks = Hooks(beat=lambda: signs.append("step"))
    train_step(model, make_optimizer(model, Optimizer()), batch, 1e-3, StepOptions(2), hooks=hooks)
    held_out_losses(model, stream.held_out, StepOptions(4), torch.device("cpu"), beat=lambda: signs.append("held out"))
    assert signs == ["step"] * 4 + ["held out"] * 3


def test_waiting_beats_while_the_work_grows_and_is_silent_when_it_stands():
    size, signs, end = [0], [], threading.Event()

    def work():
        for _ in range(4):
            time.sleep(0.05)
            size[0] += 1
        end.wait(0.5)  # stands still
        return "written"

    with ThreadPoolExecutor(1) as pool:
        assert result_of(pool.submit(work), lambda: size[0], lambda: signs.append(size[0]), poll_s=0.01) == "written"
    assert signs == [1, 2, 3, 4]


def test_waiting_raises_what_the_work_raised():
    def work():
        raise TimeoutError("of the disk")

    with ThreadPoolExecutor(1) as pool, pytest.raises(TimeoutError, match="of the disk"):
        result_of(pool.submit(work), lambda: 0, lambda: None, poll_s=0.01)


def test_watchdog_takes_another_process_s_status_for_a_sign(tmp_path):
    """A process that waits for others in a checkpoint has no train step of its own, but sees theirs."""
    status = tmp_path / "status.json"
    watchdog = Watchdog(0.4, status)
    watchdog.alive_since = time.monotonic() - 10
    assert watchdog.silent_s() > 9
    status.write_text("{}")
    assert watchdog.silent_s() < 1
    watchdog.alive_since = time.monotonic() - 10
    assert watchdog.silent_s() > 9


SLOW_STREAM = """
import dataclasses, time
from training.batches import synthetic_stream

class Slowly:
    def __init__(self, reader):
        self.reader = reader
    def read(self, *arguments):
        time.sleep(1.5)
        return self.reader.read(*arguments)

def make(**arguments):
    stream = synthetic_stream(**arguments)
    held_out = dataclasses.replace(stream.held_out, reader=Slowly(stream.held_out.reader))
    return dataclasses.replace(stream, held_out=held_out)
"""


@pytest.mark.slow
def test_evaluation_longer_than_the_stall_is_no_stall(make_spec, write_spec, stream, tmp_path, monkeypatch):
    """Seventeen turns of a second and a half, and a stall of fifteen seconds."""
    pytest.importorskip("lightning")
    from training.launch import launch

    (tmp_path / "slow_stream.py").write_text(SLOW_STREAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    slow = Factory("slow_stream:make", {**stream.arguments, "held_out_sequences": 11})
    spec = make_spec(num_steps=2, stream=slow, evaluation=Evaluation(2), checkpoints=Checkpoints(2), stall_s=15.0)
    states = []
    ended = launch(write_spec(spec), 1, stall_s=15.0, progress=lambda status: states.append(status["state"]))
    assert ended == Exit.DONE, [path.read_text() for path in Path(spec.folder).glob("rank-*.log")]
    assert states.count("measuring") > 2
