"""Token shards of a real run: what is held out is nowhere trained on, and damage is found."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from mixing.domain_stage import read_domains
from mixing.domains import DomainTokens
from mixing.shards import map_tokens, read_documents, read_record
from recipes.ledger.tracing import documents_of_step, open_plan
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.texts.made_text import made_lines

RECIPE = """
sources:
  first: {path: first.jsonl, language: de, licence: CC0-1.0}
  second: {path: second.jsonl, language: de}
domains: {held_out: {tokens: 3K, share: 0.2}, max_epochs: 99}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
schedule: [{name: main, tokens: 100K, weights: natural}]
model: {preset: llama_tiny, context: 64}
training: {batch: 16 sequences}
"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory, gristmill):
    """A run up to its plan over two sources that share half of their documents; no step removes the copies."""
    folder = tmp_path_factory.mktemp("copies")
    lines = list(made_lines("made_de", num_documents=120))
    (folder / "first.jsonl").write_bytes(b"".join(lines[:80]))
    (folder / "second.jsonl").write_bytes(b"".join(lines[40:]))
    recipe = folder / "copies.yaml"
    recipe.write_text(f"{RECIPE}execution: {{raw: {folder}, workdir: {folder / 'work'}, workers: 1}}\n")
    gristmill("run", recipe, "--until", "plan")
    return recipe


def test_held_out_text_is_trained_on_at_no_position_of_the_plan(copies):
    with Run.open(load_recipe(copies), silent=True) as run:
        opened = open_plan(run)
        domains = read_domains(run.tokens.domains_path)
        ids = {}
        for files in run.tokens.shards:
            for batch in read_documents(files, ["row", "content_id", "licence"]):
                raw = (copies.parent / f"{files.source}.jsonl").read_bytes().split(b"\n")
                known = {"first": "CC0-1.0", "second": "unknown"}[files.source]  # where a row brings none of its own
                wanted = [
                    json.loads(raw[row].decode(errors="replace")).get("licence", known)
                    for row in batch["row"].to_pylist()
                ]
                assert batch["licence"].to_pylist() == wanted
                ids |= {
                    (files.source, row): one
                    for row, one in zip(batch["row"].to_pylist(), batch["content_id"].to_pylist())
                }
        trained = {
            ids[one.source, one.row] for step in range(opened.plan.num_steps) for one in documents_of_step(opened, step)
        }
        held = pq.read_table(next(run.tokens.domains_path.parent.glob("*held_out.parquet")))
    of_source = [{one for (name, _), one in ids.items() if name == source} for source in ("first", "second")]
    copied = set.intersection(*of_source)
    assert len(copied) > 30  # the test would prove little without copies on both sides
    out = set(ids.values()) - trained
    assert out & copied
    assert all(domain.held_out_tokens > 500 for domain in domains)
    assert held.num_rows >= len(out) > 5
    # each source's held-out documents, whole: none of them, nor a copy of one, is trained on
    for domain in domains:
        index = DomainTokens.open(run.tokens.domains_path.parent / domain.held_out)
        rows = set(index.documents[:, 1].tolist())
        assert rows
        assert not {ids[domain.name, row] for row in rows} & trained


def test_a_token_shard_that_was_cut_is_made_again_and_a_flipped_bit_is_found_when_asked(
    copies, gristmill, gristmill_here
):
    with Run.open(load_recipe(copies), silent=True) as run:
        files = run.tokens.shards[0]
    whole = files.tokens_path.read_bytes()
    files.tokens_path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"{len(whole) - 1} bytes, but"):
        read_record(files)
    gristmill("tokenize", copies)  # its size is not the recorded one: it is made again, to the same bytes
    assert files.tokens_path.read_bytes() == whole
    assert "2 token shards with" in gristmill_here("tokenize", copies, "--verify").out
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    files.tokens_path.write_bytes(flipped)
    assert len(map_tokens(files, read_record(files))) == len(whole) // 2  # the size is right
    assert f"{files.tokens_path.name}: checksum" in gristmill_here("tokenize", copies, "--verify", code=1).err
    files.tokens_path.write_bytes(whole)
