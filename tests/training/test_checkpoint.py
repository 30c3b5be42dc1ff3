import json
import resource

import pytest

torch = pytest.importorskip("torch")

from training import checkpoint  # noqa: E402
from training.batches import read_batch  # noqa: E402
from training.checkpoint import CheckpointError, Rows, open_checkpoint, read_rows, save  # noqa: E402
from training.resume import find_resume  # noqa: E402
from training.spec import Optimizer, Span  # noqa: E402
from training.step import StepOptions, make_optimizer, train_step  # noqa: E402


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
