"""What processes exchange before they train. The processes are threads here that share a store."""

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

from training import meeting, preflight  # noqa: E402
from training.batches import TokenStream  # noqa: E402
from training.exits import Exit  # noqa: E402
from training.meeting import Meeting, meet  # noqa: E402
from training.preflight import agree, conclude  # noqa: E402
from training.preflight_report import Folder, PreflightError, RankReport, notes, slow_ranks, table  # noqa: E402
from training.resume import is_due, num_staying, staying  # noqa: E402
from training.spec import Checkpoints  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def together(monkeypatch):
    """Run `agree` as some processes at once; returns what each found or raised."""
    monkeypatch.setattr(preflight, "MEASURE_S", 0.01)

    def run(specs, streams, wait_s=20.0):
        store = dist.HashStore()

        def one(rank):
            try:
                return agree(specs[rank], streams[rank], CPU, Meeting(rank, len(specs), store, wait_s))
            except PreflightError as error:
                return error

        with ThreadPoolExecutor(len(specs)) as threads:
            return list(threads.map(one, range(len(specs))))

    return run


def text(**checksums):
    return TokenStream([], None, None, checksums=lambda contexts: dict(checksums))


def test_alike_processes_agree_and_keep_one_table(make_spec, together):
    spec = make_spec()
    found = together([spec] * 3, [text(web="1")] * 3)
    assert found[0] == found[1] == found[2]
    assert [report.rank for report in found[0]] == [0, 1, 2]
    assert all(report.matmul_flops > 1e6 for report in found[0])
    kept = conclude(spec, found[0][:1], CPU, rank=0)
    assert table(json.loads((Path(spec.folder) / "preflight.json").read_text())) == table(kept)
    assert "rank" in table(kept).splitlines()[0]
    assert f"torch {torch.__version__}" in table(kept)
    assert not list(Path(spec.folder).rglob("*.tmp"))


def test_every_difference_is_refused_on_all_with_the_odd_rank_named(make_spec, together):
    spec = make_spec()
    other = dataclasses.replace(spec, seed=1, num_steps=11)
    found = together([spec, other, spec], [text(web="1"), text(web="1"), text(web="2")])
    assert {str(error) for error in found} == {str(found[0])}
    assert found[0].exit is Exit.UNFIT
    assert "seed is 0 on 2 of 3 but not on rank 1" in str(found[0])
    assert "specification's num_steps is 10 on 2 of 3 but not on rank 1 on" in str(found[0])
    assert 'text of web is "1" on 2 of 3 but not on rank 2' in str(found[0])
    assert str(found[0]) in table(json.loads((Path(spec.folder) / "preflight.json").read_text()))


def test_text_that_one_process_cannot_read_is_refused_by_name(make_spec, together):
    def gone(contexts):
        raise FileNotFoundError("shard-00003.tokens: missing")

    spec = make_spec()
    broken = TokenStream([], None, None, checksums=gone)
    found = together([spec, spec], [text(), broken])
    assert all("rank 1" in str(error) and "shard-00003.tokens: missing" in str(error) for error in found)


def test_folder_that_is_a_file_is_refused(make_spec, together, tmp_path):
    (tmp_path / "taken").write_text("a file stands here")
    spec = dataclasses.replace(make_spec(), checkpoints_folder=str(tmp_path / "taken"))
    found = together([spec, spec], [text(), text()])
    assert found[0].exit is Exit.UNFIT
    assert f"the checkpoints folder {tmp_path / 'taken'} cannot be written" in str(found[0])


def test_too_little_room_for_one_checkpoint_has_the_exit_code_of_no_space(make_spec, together):
    found = together([make_spec(min_free_bytes=1 << 60)], [text()])
    assert found[0].exit is Exit.NO_SPACE
    assert "make room" in str(found[0])


def test_process_that_does_not_come_is_named_in_time():
    store = dist.HashStore()
    store.set("host/0", "left")
    with pytest.raises(PreflightError, match=r"rank 1, 2 sent no report within 0 s \(came: 0 on left\)") as refused:
        Meeting(0, 3, store, 0.2).exchange("report", "{}")
    assert refused.value.exit is Exit.RANK_LOST


def test_process_that_came_and_hangs_is_named_with_its_host():
    store = dist.HashStore()
    for rank, host in enumerate(("left", "right")):
        store.set(f"host/{rank}", host)
    with pytest.raises(PreflightError, match="rank 1 on right came and said no more"):
        Meeting(0, 2, store, 0.2).exchange("report", "{}")


def test_process_that_ends_waits_for_those_that_end_alike_and_for_no_other(monkeypatch):
    store, came = dist.HashStore(), []

    def late(rank):
        if rank:
            time.sleep(0.2)
            came.append(rank)
        Meeting(rank, 2, store, 20.0).part()
        return list(came)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(late, range(2))) == [[1], [1]]
    monkeypatch.setattr(meeting, "PART_S", 0.1)
    Meeting(0, 3, dist.HashStore(), 20.0).part()


def test_two_processes_of_one_rank_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_MEETING_FILE", str(tmp_path / "processes"))
    first = meet(1, 2, 5.0)
    assert first.rank == 1
    with pytest.raises(PreflightError, match="rank 1 is there twice"):
        meet(1, 2, 5.0)


def test_store_that_nobody_holds_is_named(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(PreflightError, match=r"127.0.0.1:1 was not reached.*is rank 0 running") as refused:
        meet(1, 2, 1.0)
    assert refused.value.exit is Exit.RANK_LOST


def test_slow_rank_is_named_below_seven_tenths_of_the_median():
    usual = [RankReport(rank, "h", "cpu", matmul_flops=100e9) for rank in range(3)]
    slow = RankReport(3, "lame", "cpu", matmul_flops=69e9)
    assert [report.rank for report, _ in slow_ranks([*usual, slow])] == [3]
    assert slow_ranks([*usual, dataclasses.replace(slow, matmul_flops=71e9)]) == []
    said = notes([*usual, slow])
    assert said == ["rank 3 on lame is slow: 0.69 of the median rate; all others wait for it every train step"]


def test_table_of_many_ranks_shows_those_that_matter_first():
    alike = {"torch": "2", "seed": 0}
    folder = (Folder("run", "/x", 5 * 10**9),)
    reports = [RankReport(rank, "h", "cpu", folder, alike, (), 100e9) for rank in range(500)]
    reports[321] = RankReport(321, "lame", "cpu", folder, alike, (), 30e9)
    kept = {"ranks": [dataclasses.asdict(one) for one in reports], "notes": notes(reports)}
    lines = table(kept).splitlines()
    assert len(lines) < 45
    assert lines[1].split()[:2] == ["321", "lame"]
    assert lines[1].endswith("SLOW")
    assert any("468 more ranks" in line for line in lines)


def test_disk_that_will_not_hold_all_checkpoints_is_said():
    said = notes([], {"bytes": 10**9, "staying": 40, "fitting": 13})
    assert said[0].startswith("40 checkpoints of 1.0 GB will stay and 13 more fit")
    assert notes([], {"bytes": 10**9, "staying": 13, "fitting": 13}) == []


@given(
    every=st.integers(1, 9),
    early=st.booleans(),
    at=st.sets(st.integers(1, 30), max_size=3),
    keep_last=st.none() | st.integers(1, 4),
    keep_every=st.none() | st.integers(1, 12),
    back=st.none() | st.integers(1, 200),
    num_steps=st.integers(1, 40),
)
def test_checkpoints_that_stay_are_never_more_than_foretold(every, early, at, keep_last, keep_every, back, num_steps):
    plan = Checkpoints(every, early, tuple(sorted(at)), keep_last, keep_every, back)
    there, most = [], 0
    for step in range(num_steps + 1):
        if is_due(plan, step, num_steps):
            there.append(step)
            most = max(most, len(there))
            there = sorted(staying(plan, {one: 7 * one for one in there}))
    assert most <= num_staying(plan, num_steps, 7)


def test_folder_that_is_not_shared_is_named(tmp_path):
    (tmp_path / "shared.tmp").touch()
    late = Meeting(1, 2, dist.HashStore(), 0.2)
    found = list(preflight._own_disks([str(tmp_path / "shared.tmp"), str(tmp_path / "elsewhere" / "x.tmp")], late))
    assert found == [
        f"{tmp_path / 'elsewhere'} is not the folder that rank 0 has there; all nodes must share execution.workdir"
    ]


def test_meeting_under_torchrun_answers_only_who_is_there_now(monkeypatch):
    """The store of torchrun's agent still holds the words of processes that are gone."""
    store = dist.HashStore()
    dist.PrefixStore("gristmill", store).set("hello/1", "of a process that is gone")
    monkeypatch.setattr(meeting, "_open_store", lambda *_: store)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for text in ("before", "after a restart"):
        with ThreadPoolExecutor(3) as threads:
            met = list(threads.map(lambda rank: meet(rank, 3, 20.0), range(3)))
            told = list(threads.map(Meeting.exchange, met, ["report"] * 3, [f"{text} {rank}" for rank in range(3)]))
        assert told == [[f"{text} {rank}" for rank in range(3)]] * 3


def test_files_that_a_killed_preflight_left_are_removed_by_the_next_and_no_others(tmp_path):
    spec = SimpleNamespace(folder=str(tmp_path / "run"), checkpoints_root=tmp_path / "checkpoints")
    other = SimpleNamespace(folder=str(tmp_path / "other"), checkpoints_root=tmp_path / "checkpoints")
    first = SimpleNamespace(rank=0, world=2, exchange=lambda _topic, said: [said, "[]"])
    for folder in ("run", "other", "checkpoints"):
        (tmp_path / folder).mkdir()
    with preflight._left_in_folders(spec, first) as left:
        killed = [(Path(path).parent / Path(path).name.replace(".tmp", "0.tmp")) for path in left]
        for path in killed:
            path.touch()
    assert all(path.exists() for path in killed)
    with preflight._left_in_folders(other, first) as beside, preflight._left_in_folders(spec, first) as left:
        assert not any(path.exists() for path in killed)
        assert all(Path(path).exists() for path in (*beside, *left))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
