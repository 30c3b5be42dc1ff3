"""A domain that is curated anew while a training uses it: a new domain, never a silent change."""

import json
import shutil
from pathlib import Path

import pytest

import recipes.pretraining.train
from mixing.domain_stage import read_domains
from recipes.texts.made_text import made_lines
from training.exits import Exit

RECIPE = """
sources: {en: {path: en.jsonl, language: en}}
steps:
  - rules: {name: short, drop: {short: num_characters < 200}, max_drop: 1}
domains: {held_out: {tokens: 1K, share: 0.05}, max_epochs: 99}
tokenizer: ./tokenizer
schedule: [{name: main, tokens: 16K}]
model: {preset: llama_tiny, layers: 1, width: 32, heads: 2, kv_heads: 2, feedforward: 64, context: 64}
training: {batch: 8 sequences}
execution: {workers: 1, training: {devices: 1}}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory, gristmill_here):
    """A folder with a recipe whose plan was made."""
    folder = tmp_path_factory.mktemp("pinned")
    (folder / "en.jsonl").write_bytes(b"".join(made_lines("made_en", num_documents=120)))
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.replace("tokenizer: ./tokenizer", "tokenizer: {algorithm: byte_bpe, vocabulary: 600}"))
    gristmill_here("tokenize", recipe)
    (made,) = (folder / "work").glob("tokenizer-*/all.tokenizer")
    shutil.copytree(made, folder / "tokenizer")
    recipe.write_text(RECIPE, encoding="utf-8")
    gristmill_here("plan", recipe)
    return recipe


@pytest.fixture
def interrupted(planned, monkeypatch, gristmill_here):
    """A training that was ended after three of its 31 train steps, without a model."""

    def three_steps(run, training, title):
        training.log.mkdir(parents=True, exist_ok=True)
        (training.log / "status.json").write_text(json.dumps({"step": 3}), encoding="utf-8")
        return training, Exit.STALLED

    monkeypatch.setattr(recipes.pretraining.train, "_follow", three_steps)
    gristmill_here("train", planned, code=None)
    yield planned
    for left in (planned.parent / "work" / "runs" / "small").glob("trained_on*"):
        left.unlink()


def domains_of(folder):
    return {path: read_domains(path)[0] for path in (folder / "work").glob("domains-*/all.domains.json")}


def test_text_that_is_curated_anew_stops_an_unfinished_training_with_both_ways_on(interrupted, gristmill_here):
    folder = interrupted.parent
    noted = folder / "work" / "runs" / "small" / "trained_on.json"
    known = domains_of(folder)
    before = known[Path(json.loads(noted.read_text(encoding="utf-8"))["domains"])]
    again = gristmill_here("train", interrupted, code=None)
    assert "trained on other text" not in again.err  # the recipe is as it was: the training goes on
    interrupted.write_text(RECIPE.replace("num_characters < 200", "num_characters < 500"), encoding="utf-8")
    refused = gristmill_here("train", interrupted, code=1)
    (after,) = (one for path, one in domains_of(folder).items() if path not in known)
    assert after.num_documents < before.num_documents
    assert "3 of 31 train steps were trained on other text than the recipe now gives" in refused.err
    assert "steps.short.drop: {short: num_characters < 200} -> {short: num_characters < 500}" in refused.err
    assert f"en: {before.num_documents} documents" in refused.err
    assert f"-> {after.num_documents} documents" in refused.err
    assert "put back these values and run the same command" in refused.err
    assert "save the recipe under another name, or remove " in refused.err
    # the way back that was told, and the other one
    changed = interrupted.read_text(encoding="utf-8")
    interrupted.write_text(RECIPE, encoding="utf-8")
    assert "other text" not in gristmill_here("train", interrupted, code=None).err
    interrupted.write_text(changed, encoding="utf-8")
    noted.unlink()
    assert "other text" not in gristmill_here("train", interrupted, code=None).err
    interrupted.write_text(RECIPE, encoding="utf-8")


def test_trace_reads_the_shards_of_an_unfinished_training_after_its_text_was_curated_anew(interrupted, gristmill_here):
    def traced(*options):
        return json.loads(gristmill_here("trace", interrupted, *options, "--json").out)

    wanted = [("--train-step", 2), ("--train-step", 2, "--whole"), ("--train-step", 2, "--signals")]
    before = [traced(*one) for one in wanted]
    steps = traced("--document", before[0][0]["content_id"])
    interrupted.write_text(RECIPE.replace("num_characters < 200", "num_characters < 500"), encoding="utf-8")
    gristmill_here("curate", interrupted)
    said = gristmill_here("trace", interrupted, "--train-step", 2)
    assert "this is what the unfinished training was trained on" in said.err
    assert [traced(*one) for one in wanted] == before
    assert traced("--document", before[0][0]["content_id"]) == steps
    gristmill_here("run", interrupted, "--until", "plan")
    listed = json.loads(gristmill_here("clean", interrupted, "--json").out)  # the old shards are still in use
    used = json.loads((interrupted.parent / "work" / "runs" / "small" / "trained_on.json").read_text())["folders"]
    assert not {one["folder"] for one in listed} & set(used)
    interrupted.write_text(RECIPE, encoding="utf-8")
