import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from training.exits import Exit
from training.spec import Checkpoints
from training.watch import DivergedError, SpikeWatch, Table, check_finite, domain_means, rows_of


def test_spike_watch_tells_a_spike_after_half_a_window():
    watch = SpikeWatch(6.0)
    calm = [(3.0 + 0.01 * math.sin(step), 1.0) for step in range(100)]
    assert not any(watch.sees_spike(*pair) for pair in calm)
    resumed = SpikeWatch(6.0, watch.state)
    assert resumed.state == watch.state
    assert resumed.sees_spike(3.5, 1.0)
    assert SpikeWatch(6.0, watch.state).sees_spike(3.0, math.nan)
    assert not SpikeWatch(6.0).sees_spike(30.0, 1.0)


def test_check_finite_names_step_and_remedy():
    check_finite(3, 1.0, 2.0)
    with pytest.raises(DivergedError, match=r"train step 3: loss nan.*learning_rate"):
        check_finite(3, math.nan, 2.0)


def test_domain_means_weigh_sequences_by_domain():
    means = domain_means(np.array([8.0, 4.0, 6.0]), np.array([0, 2, 0]), np.array([4, 4, 4]), 4)
    assert means == [1.75, None, 1.0, None]


def test_table_resumed_cuts_later_and_half_lines(tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path, ("step", "loss"), 0).append([{"step": step, "loss": step / 10} for step in (1, 2, 3)])
    path.write_text(path.read_text() + "4")
    Table(path, ("step", "loss"), 2).append([{"step": 3, "loss": 9.0}])
    assert path.read_text() == "step,loss\n1,0.1\n2,0.2\n3,9.0\n"


def test_watchdog_ends_a_process_that_does_nothing_with_its_stacks_and_code():
    code = (
        "import time; from training.watch import Watchdog; dog = Watchdog(0.4); dog.start(); "
        "end = time.monotonic() + 1.5\n"
        "while time.monotonic() < end: dog.beat(); time.sleep(0.05)\n"
        "print('beaten', flush=True); time.sleep(60)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (Exit.STALLED, "beaten\n")
    assert "no train step" in ended.stderr
    assert "most recent call first" in ended.stderr


@pytest.mark.parametrize(("done", "kept"), [(9, False), (6, True), (3, True), (None, True)])
def test_lines_of_steps_that_are_not_trained_again_are_set_aside(tmp_path, done, kept):
    """Saved every third step and killed behind step 10: back to 9 is a resume, further back is not."""
    pytest.importorskip("lightning")
    from training.callbacks import continue_logs

    resumed = SimpleNamespace(step=done, state={"log": "run"}) if done else None
    folder = tmp_path / "run"
    folder.mkdir()
    spec = SimpleNamespace(folder=str(folder), checkpoints=Checkpoints(3))
    lines = [{"step": step, "loss": step / 10} for step in range(1, 11)]
    Table(folder / "metrics.csv", ("step", "loss"), 0).append(lines)
    for again in (1, 2):
        continue_logs(spec, resumed)
        cut = sorted((folder / "cut").glob("*")) if kept else []
        assert len(cut) == again * kept
        assert not kept or [int(row["step"]) for row in rows_of(cut[-1])] == list(range((done or 0) + 1, 11))
    assert [int(row["step"]) for row in rows_of(folder / "metrics.csv")] == list(range(1, 11))


def test_log_of_another_run_takes_the_place_of_one_that_is_set_aside(tmp_path):
    pytest.importorskip("lightning")
    from training.callbacks import continue_logs

    for name, steps in (("trunk", range(1, 8)), ("run", range(1, 11))):
        (tmp_path / name).mkdir()
        lines = [{"step": step, "loss": name} for step in steps]
        Table(tmp_path / name / "metrics.csv", ("step", "loss"), 0).append(lines)
    spec = SimpleNamespace(folder=str(tmp_path / "run"), checkpoints=Checkpoints(2))
    continue_logs(spec, SimpleNamespace(step=6, state={"log": "trunk"}))
    assert {row["loss"] for row in rows_of(tmp_path / "run" / "metrics.csv")} == {"trunk"}
    (cut,) = (tmp_path / "run" / "cut").iterdir()
    assert (cut.name, len(rows_of(cut))) == ("metrics-00000001-00000010.csv", 10)
    continue_logs(spec, SimpleNamespace(step=6, state={"log": "trunk"}))  # killed before a checkpoint of its own
    assert [cut] == list((tmp_path / "run" / "cut").iterdir())
