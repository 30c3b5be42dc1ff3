"""Trainings that were begun and go on, or say why not. Processes that train are replaced by one that only saves."""

import json
import re
import shutil
from functools import partial

import pytest

pytest.importorskip("torch")

import recipes.pretraining.train
from recipes.texts.made_text import made_lines
from training.batches import position_after, tokens_after
from training.checkpoint import checkpoint_name, commit
from training.exits import Exit
from training.resume import cut_prefix, find_resume, is_due, prune

RECIPE = """
sources: {en: {path: en.jsonl, language: en}}
domains: {held_out: {tokens: 1K, share: 0.05}, max_epochs: 99}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
schedule: [{name: main, tokens: 40 train steps}]
model: {preset: llama_tiny, layers: 1, width: 32, heads: 2, kv_heads: 2, feedforward: 64, context: 64}
training:
  batch: 8 sequences
  learning_rate: {peak: 1e-3, final: 1e-4}
  spikes: {action: rollback, back: 8 train steps}
checkpoints: {every: 2 train steps, keep: {last: 1}}
execution: {workers: 1, training: {devices: 1}}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory, gristmill_here):
    """A recipe whose plan was made: 40 train steps of 512 tokens."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "en.jsonl").write_bytes(b"".join(made_lines("made_en", num_documents=120)))
    (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
    gristmill_here("plan", folder / "small.yaml")
    return folder / "small.yaml"


@pytest.fixture
def train(planned, monkeypatch, gristmill_here):
    """Run `gristmill train` where each start saves until a train step and ends so; returns where each began."""

    def trained(*ends, code=0, text=RECIPE):
        begun, wanted = [], iter(ends)

        def saved(run, training, title):
            spec, root = training.spec, training.checkpoints
            own, log = partial(cut_prefix, spec.prefix), training.log
            found = find_resume(root, own, max_step=spec.num_steps)
            begun.append(found.step if found else 0)
            until, ended = next(wanted)
            for step in range(begun[-1] + 1, until + 1):
                if not is_due(spec.checkpoints, step, spec.num_steps):
                    continue
                position = position_after(spec.spans, step)
                tokens, cut = tokens_after(spec.spans, step), own(position)
                folder = root / checkpoint_name(step, cut)
                folder.mkdir(parents=True, exist_ok=True)
                state = {"log": log.name, "spikes": []}
                at = {"step": step, "position": position, "tokens": tokens, "prefix": cut, "shape": {}, "state": state}
                commit(folder, at, [], step)
                prune(root, spec.checkpoints, own, log.name, saved=step)
            log.mkdir(parents=True, exist_ok=True)
            (log / "metrics.csv").write_text(f"step,loss\n{until},1.0\n")
            spike = {"spike": {"step": until, "why": f"train step {until}: loss 9"}} if ended is Exit.SPIKED else {}
            (log / "status.json").write_text(json.dumps({"step": until, **spike}), encoding="utf-8")
            return ended

        monkeypatch.setattr(recipes.pretraining.train, "launch_watched", saved)
        planned.write_text(text, encoding="utf-8")
        said = gristmill_here("train", planned, code=code)
        assert next(wanted, None) is None
        return begun, said

    yield trained
    for left in (planned.parent / "work").glob("training-*"):
        shutil.rmtree(left)
    for left in (planned.parent / "work" / "runs" / "small").glob("train*.json"):
        left.unlink()


def rollbacks(planned):
    return [json.loads(path.read_text()) for path in (planned.parent / "work").glob("training-*/runs/*/rollbacks.json")]


def test_rollback_finds_a_checkpoint_before_it_however_few_are_kept(train):
    # Eight train steps before the end of the one that spiked, 23 were done, and every second was saved.
    begun, _ = train((31, Exit.SPIKED), (32, Exit.DONE))
    assert begun == [0, 22]


def test_rollback_behind_which_no_checkpoint_is_left_is_refused_with_what_can_be_done(train, planned):
    train((30, Exit.STALLED), code=20)
    begun, said = train((31, Exit.SPIKED), code=24, text=RECIPE.replace("back: 8", "back: 16"))
    assert begun == [30]
    assert "everything would be trained from the beginning" in said.err
    assert rollbacks(planned) == []
    (furthest,) = re.findall(r"training.spikes.back to (\d+) tokens", said.err)
    assert int(furthest) == 9 * 512
    as_told = RECIPE.replace("8 train steps}", f"{furthest} tokens}}")
    begun, _ = train((31, Exit.SPIKED), (31, Exit.DONE), text=as_told)
    assert begun == [30, 22]
    (told,) = rollbacks(planned)
    assert [(one["start"], one["stop"]) for one in told] == [(22 * 8, 31 * 8)]


WARNS = RECIPE.replace("{action: rollback, back: 8 train steps}", "warn")


def test_changed_value_that_leaves_no_checkpoint_stops_an_unfinished_training_with_both_ways_on(train, planned):
    train((30, Exit.STALLED), code=20, text=WARNS)
    slower = WARNS.replace("peak: 1e-3", "peak: 5e-4")
    begun, said = train(code=1, text=slower)
    assert begun == []
    assert "30 of 40 train steps were trained with other values than the recipe now gives" in said.err
    assert "training.learning_rate.peak: 0.001 -> 0.0005" in said.err
    assert re.search(r"step-00000030-\w+: learning_rate.from.* is 0.0005 here and 0.001 in the checkpoint", said.err)
    # A rate that holds from a place on behind a checkpoint goes on from there, and so does the run as it was.
    assert train((32, Exit.STALLED), code=20, text=WARNS)[0] == [30]
    amended = "warn\n  amendments: [{at: 32 train steps, set: {learning_rate.peak: 5e-4}, why: w}]"
    assert train((32, Exit.STALLED), code=20, text=WARNS.replace("warn", amended))[0] == [32]
    # One from before the oldest checkpoint that is left would begin anew.
    early = amended.replace("at: 32", "at: 20")
    assert "learning_rate.from" in train(code=1, text=WARNS.replace("warn", early))[1].err
    (planned.parent / "work" / "runs" / "small" / "trained_on.json").unlink()
    assert train((2, Exit.STALLED), code=20, text=slower)[0] == [0]


def test_rollback_chosen_on_the_way_continues_the_run_that_warned(train):
    train((30, Exit.STALLED), code=20, text=WARNS)
    assert train((33, Exit.STALLED), code=20)[0] == [30]


def test_training_that_ended_before_its_first_checkpoint_may_change(train):
    train((1, Exit.STALLED), code=20, text=WARNS)
    assert train((1, Exit.STALLED), code=20, text=WARNS.replace("peak: 1e-3", "peak: 5e-4"))[0] == [0]


def test_training_that_rolled_back_to_its_beginning_and_was_lost_goes_on(train):
    assert train((5, Exit.SPIKED), (1, Exit.STALLED), code=20)[0] == [0, 0]
    assert train((6, Exit.STALLED), code=20)[0] == [0]
