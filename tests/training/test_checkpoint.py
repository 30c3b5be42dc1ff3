import json
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from training import background, checkpoint  # noqa: E402
from training.background import BackgroundSaver  # noqa: E402
from training.batches import read_batch  # noqa: E402
from training.checkpoint import CheckpointError, Rows, open_checkpoint, read_rows, save  # noqa: E402
from training.resume import find_resume  # noqa: E402
from training.spec import Optimizer, Span  # noqa: E402
from training.step import Hooks, StepOptions, make_optimizer, train_step  # noqa: E402


@pytest.fixture
def trained(tiny, make_model, stream):
    """A model and its optimizer after one train step."""
    model = make_model(tiny["llama"])
    optimizer = make_optimizer(model, Optimizer())
    train_step(model, optimizer, read_batch(stream.make(), (Span(0, 0, 0, 4, 16),), 0, 0, 1), 1e-2, StepOptions(4))
    return model, optimizer


def manifest_of(shape, step=1):
    entry = checkpoint.shape_entry(shape)
    return {"step": step, "position": 4, "tokens": 64, "prefix": {"seed": 0}, "shape": entry, "state": {"spikes": []}}


def test_checkpoint_round_trip_is_bitwise(tmp_path, tiny, trained, make_model):
    model, optimizer = trained
    folder = save(tmp_path, model, optimizer, manifest_of(tiny["llama"]))
    found = open_checkpoint(folder)
    other = make_model(tiny["llama"], seed=9)
    checkpoint.load(found, other)
    other_optimizer = make_optimizer(other, Optimizer())
    checkpoint.load_moments(found, other, other_optimizer)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(ours, theirs), name
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimizer.state[ours][moment], other_optimizer.state[theirs][moment]), name
    assert (found.step, found.position, found.manifest["num_updates"]) == (1, 4, 1)


def test_checkpoint_of_three_processes_reads_as_one(tmp_path, tiny, trained, monkeypatch):
    """Three writers take turns in one process, each holding a third of the rows, as fully_shard cuts them."""
    model, _ = trained
    pieces = {}

    def rows_of(parameter, rank):
        total = parameter.shape[0]
        size = -(-total // 3)
        first = min(total, rank * size)
        count = min(total, first + size) - first
        return Rows(parameter.detach()[first : first + count], first, count, 0, 1)

    for rank in (2, 1, 0):  # rank 0 last: it commits
        monkeypatch.setattr(checkpoint, "local_rows", lambda parameter, rank=rank: rows_of(parameter, rank))

        def gather(entry, rank=rank):
            if entry is not None:
                pieces[rank] = entry
            return [pieces.get(other) for other in range(3)]

        folder = save(tmp_path, model, None, manifest_of(tiny["llama"]), rank=rank, gather=gather)
    monkeypatch.undo()
    found = open_checkpoint(folder)
    assert sorted(found.manifest["files"]) == [f"rank-0000{rank}.safetensors" for rank in range(3)]
    for name, parameter in model.named_parameters():
        assert torch.equal(read_rows(found, f"model/{name}", 0, parameter.shape[0]), parameter)
    embedding = model.embedding.weight
    assert torch.equal(read_rows(found, "model/embedding.weight", 20, 30), embedding[20:50])


def test_disk_that_fills_while_writing_leaves_the_checkpoint_before_and_no_half_file(tmp_path, tiny, trained):
    """A limit on the size of files stands for the disk: the room was there when it was looked at."""
    model, optimizer = trained
    before = save(tmp_path, model, optimizer, manifest_of(tiny["llama"], step=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="make room") as raised:
            save(tmp_path, model, optimizer, manifest_of(tiny["llama"], step=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno in checkpoint.FULL
    assert find_resume(tmp_path, lambda position: {"seed": 0}).folder == before
    assert not list(tmp_path.rglob("*.tmp"))
    save(tmp_path, model, optimizer, manifest_of(tiny["llama"], step=2))
    assert find_resume(tmp_path, lambda position: {"seed": 0}).step == 2


def damage_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: damage_byte(folder / "rank-00000.safetensors"), "checksum"),
        (lambda folder: (folder / "rank-00000.safetensors").write_bytes(b"half"), "4 bytes"),
        (lambda folder: (folder / "rank-00000.safetensors").unlink(), "missing"),
        (lambda folder: (folder / "manifest.json").write_text('{"step"'), "damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "not finished"),
    ],
)
def test_checkpoint_harmed_is_refused_by_name(tmp_path, tiny, trained, harm, message):
    folder = save(tmp_path, *trained, manifest_of(tiny["llama"]))
    harm(folder)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_checkpoint_edited_manifest_is_refused(tmp_path, tiny, trained):
    folder = save(tmp_path, *trained, manifest_of(tiny["llama"]))
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 2}))
    with pytest.raises(CheckpointError, match="checksum"):
        open_checkpoint(folder)


def test_checkpoint_without_room_commits_nothing(tmp_path, tiny, trained):
    with pytest.raises(OSError, match="make room"):
        save(tmp_path, *trained, manifest_of(tiny["llama"]), min_free_bytes=1 << 60)
    assert not list(tmp_path.glob("*/manifest.json"))


def test_checkpoint_of_another_shape_names_the_parameter(tmp_path, tiny, trained, make_model):
    found = open_checkpoint(save(tmp_path, *trained, manifest_of(tiny["llama"])))
    with pytest.raises(CheckpointError, match=r"positions\.weight"):
        checkpoint.load(found, make_model(tiny["gpt_neo"]))


def test_background_checkpoint_copied_beside_the_next_train_step_is_of_its_own(
    tmp_path, tiny, trained, stream, monkeypatch
):
    """The copy begins when gradients are there, and is slow; the writing begins after the update."""
    model, optimizer = trained
    plain = open_checkpoint(save(tmp_path / "plain", model, optimizer, manifest_of(tiny["llama"])))
    backward_done, updated = threading.Event(), threading.Event()
    copy, write = background.copy_to_host, background.write_tensors

    def slow_copy(*given):
        assert backward_done.wait(30)
        time.sleep(0.2)
        return copy(*given)

    monkeypatch.setattr(background, "copy_to_host", slow_copy)
    monkeypatch.setattr(background, "write_tensors", lambda *given: updated.wait(30) and write(*given))
    saver = BackgroundSaver(0, checkpoint.alone)
    folder = saver.begin(tmp_path / "aside", model, optimizer, manifest_of(tiny["llama"]))
    began_s = saver.blocked_s
    hooks = Hooks(keeps=lambda totals: backward_done.set() or True, before_update=saver.wait_for_copy)
    batch = read_batch(stream.make(), (Span(0, 0, 0, 4, 16),), 1, 0, 1)
    train_step(model, optimizer, batch, 1e-2, StepOptions(4), hooks=hooks)
    waited_s = saver.blocked_s - began_s
    assert not (folder / "manifest.json").exists()  # nothing whole to be found on the way
    updated.set()
    saver.finish()
    found = open_checkpoint(folder)
    assert found.manifest == plain.manifest
    assert (folder / checkpoint.file_of(0)).read_bytes() == (plain.folder / checkpoint.file_of(0)).read_bytes()
    assert waited_s >= 0.1


def test_background_checkpoint_that_cannot_be_copied_holds_nobody_up(tmp_path, tiny, trained, monkeypatch):
    def no_memory(*given):
        raise RuntimeError("no memory for the copy")

    monkeypatch.setattr(background, "copy_to_host", no_memory)
    saver = BackgroundSaver(0, checkpoint.alone)
    folder = saver.begin(tmp_path, *trained, manifest_of(tiny["llama"]))
    saver.wait_for_copy()
    with pytest.raises(RuntimeError, match="no memory"):
        saver.finish()
    assert not (folder / "manifest.json").exists()


def test_background_checkpoints_are_written_one_at_a_time_and_pruned_after_the_commit(tmp_path, tiny, trained):
    saver, seen = BackgroundSaver(0, checkpoint.alone), []
    for step in (1, 2, 3):
        done = [path.parent.name[:13] for path in sorted(tmp_path.glob("*/manifest.json"))]
        assert len(done) >= step - 2  # all but the one on its way
        saver.begin(tmp_path, *trained, manifest_of(tiny["llama"], step), then=lambda step=step: seen.append(step))
    saver.finish()
    assert seen == [1, 2, 3]
    assert len(list(tmp_path.glob("*/manifest.json"))) == 3


def test_background_checkpoint_without_room_is_told_at_the_next_look(tmp_path, tiny, trained):
    saver = BackgroundSaver(0, checkpoint.alone, min_free_bytes=1 << 60)
    saver.begin(tmp_path, *trained, manifest_of(tiny["llama"]))
    saver.wait()
    with pytest.raises(OSError, match="make room"):
        saver.look()
    saver.finish()  # told once
    assert not list(tmp_path.glob("*/manifest.json"))


HANGING = """
import sys, threading
from pathlib import Path
from torch import nn
from training.background import BackgroundSaver
from training.checkpoint import alone

written, manifest = threading.Event(), {"step": 1, "tokens": 64, "prefix": {"seed": 0}, "shape": {}}
saver = BackgroundSaver(0, alone)
saver.begin(Path(sys.argv[1]), nn.Linear(2, 2), None, manifest, then=lambda: (written.set(), threading.Event().wait()))
if not written.wait(60):
    saver.look()
raise SystemExit("written, and never done")
"""


def test_background_checkpoint_that_hangs_does_not_hold_up_the_end_of_its_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGING, tmp_path], timeout=120, check=False, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (1, "written, and never done\n")


@pytest.mark.parametrize("room", [0, 1 << 60])
def test_background_checkpoint_of_two_processes_is_committed_by_the_first_when_both_are_done(
    tmp_path, tiny, trained, room
):
    model, _ = trained
    shared = threading.Barrier(2)
    given = {}

    def gather_as(rank):
        def gather(entry):
            given[rank] = entry
            shared.wait(30)
            entries = [given[other] for other in range(2)]
            shared.wait(30)
            return entries

        return gather

    # The second process has no room: then the first commits nothing, and both are told.
    savers = [BackgroundSaver(rank, gather_as(rank), room * rank) for rank in range(2)]
    with ThreadPoolExecutor(2) as both:
        folder, _ = both.map(lambda saver: saver.begin(tmp_path, model, None, manifest_of(tiny["llama"])), savers)
    for saver in savers:
        if room:
            with pytest.raises(OSError, match="make room"):
                saver.finish()
        else:
            saver.finish()
    assert (folder / "manifest.json").exists() == (not room)
    assert room or sorted(open_checkpoint(folder).manifest["files"]) == [checkpoint.file_of(rank) for rank in range(2)]
