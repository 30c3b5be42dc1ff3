"""Tokens of a run for other tools: every domain's training text and held-out text, and nothing twice."""

import json
from types import SimpleNamespace

import pytest

from mixing.exchange import read_megatron
from mixing.tokenizer import load_tokenizer
from recipes.errors import RunError
from recipes.tokenizing.exchange import export_tokens


def test_tokenize_to_megatron_writes_each_domain_and_its_held_out_text(copy_of_finished, gristmill_here, tmp_path):
    recipe = copy_of_finished.recipe
    out = tmp_path / "out"
    found = json.loads(gristmill_here("tokenize", recipe, "--to", "megatron", "--out", out, "--json").out)
    training = {name for name in found if "/" not in name}
    assert {name.removeprefix("held_out/") for name in found} == training
    assert {path.stem for path in out.glob("*.bin")} == training  # no glob over training text takes held-out text
    assert load_tokenizer(out / "tokenizer").vocabulary > 256
    for name, counts in found.items():
        read = read_megatron(out / name)
        assert (len(read.ends), len(read.tokens)) == (counts["num_documents"], counts["num_tokens"])
    refused = gristmill_here("tokenize", recipe, "--to", "ds", "--out", out, code=None)
    assert "not empty; name a new folder" in refused.err
    refused = gristmill_here("tokenize", recipe, "--to", "ds", code=None)
    assert "go together" in refused.err


@pytest.mark.parametrize("named", ["", "tokenizer.json"])
def test_exported_tokenizer_has_its_special_tokens_and_nothing_of_a_model(
    tmp_path, write_byte_tokenizer, monkeypatch, named
):
    write_byte_tokenizer(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "Ġ"}))
    (tmp_path / "hf" / "model.safetensors").write_bytes(bytes(9))
    monkeypatch.setattr("recipes.tokenizing.exchange.read_domains", lambda path: [])
    run = SimpleNamespace(
        tokens=SimpleNamespace(domains_path=tmp_path / "domains.json", tokenizer=str(tmp_path / "hf" / named))
    )
    export_tokens(run, "ds", tmp_path / "out")
    copied = tmp_path / "out" / "tokenizer"
    assert load_tokenizer(copied).eos == load_tokenizer(tmp_path / "hf").eos is not None
    assert {path.name for path in copied.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    monkeypatch.setattr(
        "recipes.tokenizing.exchange.read_domains", lambda path: [SimpleNamespace(name="held_out", training=None)]
    )
    with pytest.raises(RunError, match="a domain is called held_out"):
        export_tokens(run, "litdata", tmp_path / "other")


READY = """
sources: {ready: {path: "*.bin", format: megatron, language: en}}
domains: {held_out: {tokens: 1K, share: 0.05}, max_epochs: 99}
tokenizer: out/tokenizer
schedule: [{name: main, tokens: 16K, weights: {"*": 1}}]
model: {preset: llama_tiny, layers: 1, width: 32, heads: 2, kv_heads: 2, feedforward: 64, context: 64}
training: {batch: 8 sequences}
execution: {raw: out, workers: 1}
"""


def test_exported_tokens_start_a_recipe_whose_documents_are_traced(copy_of_finished, gristmill_here, tmp_path):
    out, recipe = tmp_path / "out", tmp_path / "ready.yaml"
    gristmill_here("tokenize", copy_of_finished.recipe, "--to", "megatron", "--out", out)
    recipe.write_text(READY, encoding="utf-8")
    whole = json.loads(gristmill_here("trace", recipe, "--train-step", "3", "--whole", "--json").out)
    shown = json.loads(gristmill_here("trace", recipe, "--train-step", "3", "--json").out)
    for document, stretch in zip(whole, shown, strict=True):
        assert document["content_id"] == stretch["content_id"]
        assert stretch["text"].strip("\ufffd") in document["text"]
    one = shown[0]
    found = json.loads(gristmill_here("trace", recipe, "--document", one["content_id"], "--json").out)
    assert (3, one["position"]) in {(at["train_step"], at["position"]) for at in found}
    refused = gristmill_here("trace", recipe, "--document", "some text", code=None)
    assert "ready token shards (ready) are found by content id only" in refused.err
