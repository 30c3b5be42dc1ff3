from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from training.checkpoint import Checkpoint, checkpoint_name, save  # noqa: E402
from training.resume import (  # noqa: E402
    checkpoints_in,
    cut_prefix,
    difference,
    find_resume,
    first_difference,
    is_due,
    own_checkpoints,
    prune,
    seen_steps,
    staying,
)
from training.spec import Checkpoints  # noqa: E402

PREFIX = {"seed": 1, "batch": {"from": [[0, 8], [100, 16]]}, "phases": [{"weights": {"from": [[0, "a"], [50, "b"]]}}]}


def test_cut_prefix_keeps_what_began_before_the_position():
    first = {"seed": 1, "batch": {"from": [[0, 8]]}, "phases": [{"weights": {"from": [[0, "a"]]}}]}
    assert cut_prefix(PREFIX, 0) == first
    assert cut_prefix(PREFIX, 50) == first
    assert cut_prefix(PREFIX, 51)["phases"] == PREFIX["phases"]
    assert cut_prefix(PREFIX, 101) == PREFIX


def test_first_difference_names_the_path_and_both_values():
    changed = {**PREFIX, "batch": {"from": [[0, 9], [100, 16]]}}
    assert first_difference(PREFIX, changed) == "batch.from[0][1] is 8 here and 9 in the checkpoint"
    assert first_difference(PREFIX, PREFIX) is None
    assert first_difference([0, [7, 9]], [0]) == "[1] is [7, 9] here and null in the checkpoint"
    assert first_difference([0, None], [0]) == " is [0, null] here and [0] in the checkpoint"
    assert first_difference({"a": 1}, {}) == "a is 1 here and null in the checkpoint"


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (Checkpoints(4), [4, 8, 10]),
        (Checkpoints(4, early=True), [0, 1, 2, 4, 8, 10]),
        (Checkpoints(6, at=(5,)), [5, 6, 10]),
    ],
)
def test_is_due_names_the_steps(plan, steps):
    assert [step for step in range(11) if is_due(plan, step, 10)] == steps


@pytest.fixture
def put(tmp_path):
    """Save a checkpoint of one weight at a step, 10 positions a step."""

    def saved(step, prefix=PREFIX):
        at = {"step": step, "position": 10 * step, "tokens": 0, "shape": {}, "state": {}}
        return save(tmp_path, torch.nn.Linear(2, 2), None, {**at, "prefix": cut_prefix(prefix, 10 * step)})

    return saved


def test_find_resume_takes_the_newest_whole_checkpoint(tmp_path, put):
    put(1)
    kept, broken, unfinished = put(2), put(3), put(4)
    (broken / "rank-00000.safetensors").write_bytes(b"")
    (unfinished / "manifest.json").unlink()
    said = []
    assert find_resume(tmp_path, partial(cut_prefix, PREFIX), said.append).folder == kept
    assert ["not finished" in said[0], "0 bytes" in said[1]] == [True, True]


def test_find_resume_of_a_later_change_goes_back_to_before_it(tmp_path, put):
    for step in (4, 5, 6):
        put(step)
    branch = {**PREFIX, "phases": [{"weights": {"from": [[0, "a"], [50, "c"]]}}]}
    said = []
    assert find_resume(tmp_path, partial(cut_prefix, branch), said.append).step == 5
    assert said == [
        f"{checkpoint_name(6, cut_prefix(PREFIX, 60))} is another run's: "
        'phases[0].weights.from[1][1] is "c" here and "b" in the checkpoint'
    ]
    assert find_resume(tmp_path, partial(cut_prefix, {**PREFIX, "seed": 2})) is None
    assert find_resume(tmp_path, partial(cut_prefix, PREFIX), max_step=5).step == 5
    assert find_resume(tmp_path / "nothing", partial(cut_prefix, PREFIX)) is None


def test_prune_keeps_the_last_and_the_multiples_and_other_runs(tmp_path, put):
    for step in range(1, 8):
        put(step)
    other = put(1, {"seed": 9})
    removed = prune(tmp_path, Checkpoints(1, at=(4,), keep_last=2, keep_every=3), partial(cut_prefix, PREFIX))
    assert len(removed) == 3
    left = {path.name[12:13] for path in tmp_path.iterdir()}
    assert left == {"1", "3", "4", "6", "7"}
    assert other.exists()
    # What a run of another log saved on the way that both share is not this run's to remove.
    assert prune(tmp_path, Checkpoints(1, keep_last=1), partial(cut_prefix, PREFIX), log="branch") == []
    assert prune(tmp_path, Checkpoints(1), partial(cut_prefix, PREFIX)) == []


def test_prune_after_a_damaged_newest_checkpoint_keeps_what_was_saved_since(tmp_path, put):
    for step in (10, 20):
        put(step)
    plan, own = Checkpoints(1, keep_last=1), partial(cut_prefix, PREFIX)
    put(11)  # 20 could not be read, so the run went on from 10
    prune(tmp_path, plan, own, saved=11)
    put(12)
    prune(tmp_path, plan, own, saved=12)
    assert [found.step for found in own_checkpoints(tmp_path, own)] == [12, 20]
    prune(tmp_path, plan, own, saved=20)
    assert [found.step for found in own_checkpoints(tmp_path, own)] == [20]


@given(
    every=st.integers(1, 7),
    early=st.booleans(),
    keep_last=st.integers(1, 3),
    back=st.integers(1, 300),
    num_steps=st.integers(1, 80),
)
def test_staying_checkpoints_let_any_spike_go_back_and_little_further(every, early, keep_last, back, num_steps):
    """Seven tokens a train step; the beginning is a checkpoint that always stays."""
    plan = Checkpoints(every, early=early, keep_last=keep_last, back=back)
    there = set()
    for step in range(num_steps + 1):
        wanted = 7 * step - back
        if wanted >= 0:  # a spike in the train step after `step`
            nearest = max((7 * one for one in there if 7 * one <= wanted), default=0)
            assert wanted - nearest <= -(-back // 4) + 7 * every
        if is_due(plan, step, 10**6):
            there = staying(plan, {one: 7 * one for one in {*there, step}})
            assert step in there
            assert len(there) <= keep_last + 6
            assert staying(plan, {one: 7 * one for one in there}) == there


@pytest.mark.parametrize(
    ("action", "state", "judged"),
    [
        ("warn", {}, False),  # means over lines of the log, as earlier versions remembered them
        ("rollback", {}, True),
        ("drop_update", {}, True),
        (None, {}, False),  # fine-tuning, which warns
        (None, {"spikes_of": "train steps"}, True),
    ],
)
def test_spikes_are_judged_by_train_steps_never_by_lines_of_the_log(tmp_path, action, state, judged):
    seen = [[3.0, 1.0]] * 70
    manifest = {"prefix": {"spikes": action}, "state": {"spikes": seen, **state}}
    assert seen_steps(Checkpoint(tmp_path, manifest)) == (seen if judged else [])


@pytest.mark.parametrize(
    ("ours", "theirs", "own"),
    [
        (None, None, True),
        (None, "warn", True),  # words of earlier versions
        (None, "rollback", True),
        (["drop_update", 4.0], "drop_update", True),
        (["drop_update", 4.0], ["drop_update", 4.0], True),
        (["drop_update", 4.0], ["drop_update", 6.0], False),
        (["drop_update", 4.0], "warn", False),
        (["drop_update", 4.0], None, False),
        (None, "drop_update", False),
    ],
)
def test_spikes_make_another_run_only_where_they_change_updates(tmp_path, put, ours, theirs, own):
    put(5, {**PREFIX, "spikes": theirs})
    prefix_at = partial(cut_prefix, {**PREFIX, "spikes": ours})
    assert (find_resume(tmp_path, prefix_at) is not None) is own
    (found,) = checkpoints_in(tmp_path)
    assert (difference(found, prefix_at) is None) is own
    assert bool(own_checkpoints(tmp_path, prefix_at)) is own


def test_own_checkpoints_are_this_runs_in_order(tmp_path, put):
    other = {**PREFIX, "seed": 2}
    mine = [put(1), put(12)]
    put(2, other)
    put(12, other)
    put(13)
    (tmp_path / put(14).name / "manifest.json").unlink()
    found = own_checkpoints(tmp_path, partial(cut_prefix, PREFIX))
    assert [one.folder for one in found] == [*mine, tmp_path / found[-1].folder.name]
    assert [one.step for one in found] == [1, 12, 13]
