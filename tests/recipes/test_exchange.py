"""Tokens of a run for other tools: every domain's training text and held-out text, and nothing twice."""

import json

from mixing.exchange import read_megatron


def test_tokenize_to_megatron_writes_each_domain_and_its_held_out_text(copy_of_finished, gristmill_here, tmp_path):
    recipe = copy_of_finished.recipe
    out = tmp_path / "out"
    found = json.loads(gristmill_here("tokenize", recipe, "--to", "megatron", "--out", out, "--json").out)
    assert {name.removesuffix(".held_out") for name in found} == {name for name in found if "held_out" not in name}
    for name, counts in found.items():
        read = read_megatron(out / name)
        assert (len(read.ends), len(read.tokens)) == (counts["num_documents"], counts["num_tokens"])
    refused = gristmill_here("tokenize", recipe, "--to", "ds", "--out", out, code=None)
    assert "not empty; name a new folder" in refused.err
    refused = gristmill_here("tokenize", recipe, "--to", "ds", code=None)
    assert "go together" in refused.err
