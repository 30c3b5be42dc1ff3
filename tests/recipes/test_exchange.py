"""Tokens of a run for other tools: every domain's training text and held-out text, and nothing twice."""

import json

from mixing.exchange import read_megatron
from mixing.tokenizer import load_tokenizer


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
