"""What `gristmill status` makes of the files that a training leaves, whole or killed."""

import fcntl
import json
import os
import platform
from contextlib import contextmanager

import pytest

from recipes.artifacts import StageFolder
from recipes.cli.status import _following, _next, _show_training, being_made, training_status, tuning_status

HELD_OUT = "step,position,tokens,domain,loss,bits_per_byte,num_tokens\n"


@pytest.fixture
def left(tmp_path):
    """Write what a training of the recipe `small` left behind; returns its state as status reads it."""
    folder = tmp_path / "training-1" / "runs" / "small"
    folder.mkdir(parents=True)
    checkpoint = tmp_path / "training-1" / "checkpoints" / "step-00000030-ab"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"step": 30, "tokens": 3000, "state": {"log": "small"}}))
    (tmp_path / "training-1" / ".run.lock").touch()
    (folder / "metrics.csv").write_text("step,tokens,loss,loss/web,loss/law\n30,3000,4.5,4.0,\n40,4000,4.1,3.9,4.5\n")
    (folder / "held_out.csv").write_text(
        HELD_OUT + "0,0,0,web,9.0,4.0,64\n25,0,2500,web,4.2,1.5,64\n25,0,2500,law,4.4,,64\n"
    )

    def write(state="training", host=None, resumed=None, **end):
        host = host or platform.node()
        status = {"state": state, "step": 42, "num_steps": 100, "tokens": 4200, "loss": 4.125, "host": host}
        status["resumed"] = resumed
        (folder / "status.json").write_text(json.dumps({**status, "learning_rate": 0.001, "tokens_per_s": 1234.5}))
        if end:
            (folder / "ended.json").write_text(json.dumps({"host": "h1", **end}))
        (found,) = training_status(tmp_path, None, "small")
        return found

    write.workdir = tmp_path
    return write


@contextmanager
def held(workdir):
    with (workdir / "training-1" / ".run.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_running_training_says_so_with_losses_by_domain(left, capsys):
    with held(left.workdir):
        found = left()
    assert (found["state"], _next([found], True)) == (
        "training",
        "nothing, it runs; gristmill status {recipe} shows where",
    )
    assert (found["checkpoint"], found["tokens_lost"]) == ("step-00000030-ab", 1200)
    _show_training(found)
    shown = capsys.readouterr().out
    assert "4,200 tokens  1,234 tokens/s  loss 4.125  lr 1.00e-03" in shown
    assert ["law", "4.500", "4.400"] in [line.split() for line in shown.splitlines()]
    assert ["web", "3.900", "4.200", "1.500"] in [line.split() for line in shown.splitlines()]


def test_training_whose_launcher_was_killed_is_no_running_one(left, capsys):
    found = left()
    assert (found["state"], _next([found], True)) == ("killed", "gristmill run {recipe}")
    _show_training(found)
    shown = capsys.readouterr().out
    assert "its launcher died without a word" in shown
    assert "last whole checkpoint: step-00000030-ab; 1,200 tokens behind it are trained again" in shown


def test_checkpoint_of_another_run_counts_only_where_this_one_continued_from_it(left):
    theirs = left.workdir / "training-1" / "checkpoints" / "step-00000040-cd"
    theirs.mkdir()
    (theirs / "manifest.json").write_text(json.dumps({"step": 40, "tokens": 4000, "state": {"log": "trunk"}}))
    assert left()["checkpoint"] == "step-00000030-ab"
    assert left(resumed=theirs.name)["checkpoint"] == theirs.name
    (left.workdir / "training-1" / "checkpoints" / "step-00000030-ab" / "manifest.json").unlink()
    found = left()
    assert (found["checkpoint"], found["tokens_lost"]) == (None, 4200)


def test_training_on_another_host_is_not_judged_by_a_lock(left):
    assert left(host="elsewhere")["state"] == "training"


@pytest.mark.parametrize(
    ("exit_name", "code", "command"),
    [
        ("STALLED", 20, "stacks in the log"),
        ("RANK_LOST", 21, "gristmill run {recipe}"),
        ("DIVERGED", 22, "lower learning_rate.peak"),
        ("NO_SPACE", 23, "make room"),
        ("SPIKED", 24, "spike-*.json"),
        ("UNFIT", 25, "train {recipe} --preflight"),
        ("ERROR", 1, "read the log"),
    ],
)
def test_each_bad_end_shows_cause_host_code_and_what_to_do(left, capsys, exit_name, code, command):
    found = left(exit=exit_name, code=code, cause="rank 1 was killed by SIGKILL")
    assert found["state"] == "failed"
    assert command in _next([found], True)
    _show_training(found)
    assert f"ended with {exit_name} (exit code {code}) on h1: rank 1 was killed by SIGKILL" in capsys.readouterr().out


def test_saved_training_wants_to_be_started_again(left):
    found = left(state="saved", exit="REQUEUE", code=10, cause="")
    assert (found["state"], _next([found], True)) == ("saved", "gristmill run {recipe}")


def test_tuning_of_this_recipe_is_told_and_others_are_not(left, capsys):
    left(state="done", exit="DONE")
    (left.workdir / "training-1" / "runs" / "small").rename(left.workdir / "tuning-1")
    (left.workdir / "tuning-2").mkdir()
    (found,) = tuning_status(left.workdir, ["examples-1", "tuning-1", "tuned-1"])
    assert (found["state"], found["step"], found["num_steps"]) == ("done", 42, 100)
    assert _next([], True, [found]) == 'gristmill generate {recipe} --ask "..."'
    _show_training(found, "fine-tuning")
    assert "fine-tuning tuning-1: done, step 42 of 100" in capsys.readouterr().out


def test_next_is_the_report_only_where_all_is_made_and_it_is_not_newer(tmp_path):
    log, report = tmp_path / "log", tmp_path / "{report}.html"  # a brace in a path is no place to fill
    log.mkdir()
    (log / "status.json").write_text("{}")
    os.utime(log / "status.json", (100, 100))
    mine = [{"state": "done", "exit": "DONE", "log": str(log)}]
    assert _following(mine, [], False, True, report) == "gristmill report {recipe}"
    report.touch()
    assert _following(mine, [], False, True, report) == f"nothing is left to make; the report is {report}"
    assert _following(mine, [], False, False, report) == "gristmill run {recipe}"  # a part after training is new
    assert _following(mine, [], True, True, report).startswith("nothing, it runs")
    os.utime(log / "status.json")
    os.utime(report, (100, 100))
    assert _following(mine, [], False, True, report) == "gristmill report {recipe}"


def test_being_made_names_what_a_run_holds_and_nothing_else(tmp_path):
    held, free = (StageFolder(tmp_path / f"{name}-0123456789abcdef") for name in ("proxies", "tokens"))
    with free.locked(lambda _: None):
        pass
    with held.locked(lambda _: None):
        assert being_made(tmp_path) == ["proxies-0123456789abcdef"]
    assert being_made(tmp_path) == []
