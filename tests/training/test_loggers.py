"""Curves in TensorBoard and Weights & Biases, of runs that were resumed."""

import sys
import time
import types
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from training.loggers import Appended, Following, LoggerError, of_held_out, of_metrics, open_loggers
from training.watch import Table

COLUMNS = ("step", "position", "tokens", "loss", "loss/web")
HELD_OUT = ("step", "position", "tokens", "domain", "loss", "bits_per_byte", "num_tokens")


def line(step, loss):
    return {"step": step, "position": step * 7, "tokens": step * 112, "loss": loss, "loss/web": loss + 1}


def measured(step, loss):
    row = {"step": step, "position": step * 7, "tokens": step * 112, "domain": "web", "loss": loss}
    return {**row, "bits_per_byte": loss / 2, "num_tokens": 80}


class Module:
    """As much of a training module as following reads."""

    def __init__(self, spec, done):
        self.spec, self.done = spec, done


class FirstProcess:
    is_global_zero = True


def train(spec, start, end, slope, measured_at=()):
    """A run from a train step to another as its tables and loggers see it; `slope` makes losses tell runs apart."""
    folder = Path(spec.folder)
    folder.mkdir(exist_ok=True)
    metrics = Table(folder / "metrics.csv", COLUMNS, start)
    held_out = Table(folder / "held_out.csv", HELD_OUT, start)
    said = []
    following = Following(said.append)
    module = Module(spec, start)
    following.on_train_start(FirstProcess(), module)
    for step in range(start, end + 1):
        if step > start:
            metrics.append([line(step, step * slope)])
        if step in measured_at:
            held_out.append([measured(step, step * slope)])
        following.on_train_batch_end(FirstProcess(), module, None, None, 0)
    return following, said


def of_tensorboard(spec):
    """What TensorBoard shows: {tag: {step: [values]}}."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the `loggers` extra"
    )
    shown = accumulator.EventAccumulator(str(Path(spec.folder) / "tensorboard"))
    shown.Reload()
    found = {}
    for tag in shown.Tags()["scalars"]:
        for event in shown.Scalars(tag):
            found.setdefault(tag, {}).setdefault(event.step, []).append(event.value)
    return found


def assert_one_curve(shown):
    """Trained to 6, killed, resumed at 4 with other losses, trained to 8: a point a step, the later run's behind 4."""
    loss = shown["train/loss"]
    assert loss == {s: [pytest.approx(s * (1.0 if s <= 4 else 2.0))] for s in range(1, 9)}
    assert shown["train/loss by domain/web"][5] == [pytest.approx(11.0)]
    assert shown["held out/loss/web"] == {0: [0.0], 4: [pytest.approx(4.0)], 8: [pytest.approx(16.0)]}
    assert shown["held out/bits per byte/web"][8] == [pytest.approx(8.0)]


def test_tensorboard_continues_without_doubled_points(make_spec):
    pytest.importorskip("tensorboard", reason="needs the `loggers` extra")
    spec = make_spec(loggers=("csv", "tensorboard"))
    killed, _ = train(spec, 0, 6, 1.0, measured_at=(0, 4))
    killed.loggers[0].writer.flush()  # a kill leaves what was flushed, and no end
    resumed, _ = train(spec, 4, 8, 2.0, measured_at=(8,))
    resumed.on_train_end(FirstProcess(), Module(spec, 8))
    assert_one_curve(of_tensorboard(spec))


def test_tensorboard_of_a_run_killed_before_its_first_checkpoint_begins_anew(make_spec):
    pytest.importorskip("tensorboard", reason="needs the `loggers` extra")
    spec = make_spec(loggers=("tensorboard",))
    killed, _ = train(spec, 0, 3, 1.0, measured_at=(0,))
    killed.loggers[0].writer.flush()
    again, _ = train(spec, 0, 3, 2.0, measured_at=(0,))
    again.on_train_end(FirstProcess(), Module(spec, 3))
    shown = of_tensorboard(spec)
    assert shown["train/loss"] == {s: [pytest.approx(2.0 * s)] for s in (1, 2, 3)}
    assert shown["held out/loss/web"] == {0: [0.0]}


class OfflineOrServer:
    """A stand-in for the package wandb: remembers runs by id, as its server does; offline, by folder."""

    def __init__(self, key):
        self.key, self.server, self.offline = key, {}, 0
        self.module = types.ModuleType("wandb")
        self.module.Error, self.module.Settings, self.module.init = RuntimeError, dict, self.init

    def init(self, mode, id, dir, **options):
        assert options["resume"] == "allow"
        if mode == "offline":
            self.offline += 1
            folder = Path(dir) / "wandb" / f"offline-run-{self.offline}-{id}"
            (folder / "files").mkdir(parents=True)
            return Run({}, folder / "files")
        if not self.key:
            raise RuntimeError("api_key not configured (no-tty)")
        return Run(self.server.setdefault(id, {}), Path(dir))


class Run:
    def __init__(self, points, folder):
        self.points, self.dir = points, str(folder)
        self.step = max(points, default=-1) + 1
        self.last = self.step - 1

    def log(self, values, step):
        if step < self.last:  # as the server: what is behind is not taken
            return
        self.last = step
        for name, value in values.items():
            self.points.setdefault(step, {}).setdefault(name, []).append(value)

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    def stand_in(key=True):
        made = OfflineOrServer(key)
        monkeypatch.setitem(sys.modules, "wandb", made.module)
        monkeypatch.setattr("training.spec.importlib.util.find_spec", lambda name: object())
        monkeypatch.delenv("WANDB_MODE", raising=False)
        return made

    return stand_in


def test_wandb_online_goes_on_in_the_same_run_behind_its_last_point(make_spec, wandb):
    server = wandb().server
    spec = make_spec(loggers=("wandb",))
    train(spec, 0, 6, 1.0, measured_at=(0, 4))
    train(spec, 4, 8, 1.0, measured_at=(8,))
    assert len(server) == 1
    points = next(iter(server.values()))
    assert {step: found["train/loss"] for step, found in points.items() if step} == {s: [s * 1.0] for s in range(1, 9)}
    assert [step for step, found in points.items() if "held out/loss/web" in found] == [0, 4, 8]


def test_wandb_without_a_key_is_offline_with_the_whole_curve_in_one_folder(make_spec, wandb):
    wandb(key=False)
    spec = make_spec(loggers=("wandb",))
    train(spec, 0, 6, 1.0, measured_at=(0, 4))
    following, said = train(spec, 4, 8, 2.0, measured_at=(8,))
    assert "api_key not configured" in said[0]
    assert "offline" in said[0]
    assert len(list(Path(spec.folder).glob("wandb/offline-run-*"))) == 1
    points = following.loggers[0].run.points
    shown = {}
    for step, values in points.items():
        for name, found in values.items():
            shown.setdefault(name, {})[step] = found
    assert_one_curve(shown)


def records_of(content):
    """The records of a .wandb file: LevelDB's log format behind 7 bytes, in blocks of 32 KiB."""
    place, found = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little for a header: the block's rest is empty
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        found += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield found
            found = b""


def test_wandb_offline_for_real_holds_each_point_once(make_spec, monkeypatch):
    pytest.importorskip("wandb", reason="needs the `loggers` extra")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    spec = make_spec(loggers=("wandb",))
    killed, _ = train(spec, 0, 6, 1.0, measured_at=(0, 4))
    killed.on_train_end(FirstProcess(), Module(spec, 6))
    resumed, _ = train(spec, 4, 8, 2.0, measured_at=(8,))
    resumed.on_train_end(FirstProcess(), Module(spec, 8))
    (written,) = Path(spec.folder).glob("wandb/offline-run-*/run-*.wandb")
    shown, records, deadline = {}, [], time.monotonic() + 30
    while not any(record.HasField("exit") for record in records) and time.monotonic() < deadline:
        time.sleep(0.05)  # its service writes on for a moment
        records = list(map(wandb_internal_pb2.Record.FromString, records_of(written.read_bytes())))
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
            for name, value in items.items():
                shown.setdefault(name, {}).setdefault(int(items["_step"]), []).append(value)
    assert_one_curve(shown)


def test_logger_without_its_package_is_an_error_that_says_what_to_install(make_spec, monkeypatch):
    monkeypatch.setattr("training.spec.importlib.util.find_spec", lambda name: None)
    with pytest.raises(LoggerError, match=r"wandb, which is not installed; pip install 'gristmill\[loggers\]'"):
        open_loggers(make_spec(loggers=("csv", "wandb")), 0, print)


def test_half_lines_are_not_read_before_they_are_whole(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Appended(path)
    assert list(table.rows()) == []
    path.write_text("step,loss\n1,2.5\n2,")
    assert [of_metrics(row) for row in table.rows()] == [(1, {"train/loss": 2.5})]
    path.write_text("step,loss\n1,2.5\n2,3.5\n")
    assert [of_metrics(row) for row in table.rows()] == [(2, {"train/loss": 3.5})]


def test_what_was_not_measured_is_no_point():
    row = {"step": "4", "domain": "web", "loss": "2.0", "bits_per_byte": ""}
    assert of_held_out(row) == (4, {"held out/loss/web": 2.0})
