"""Sources of which little is left: shards set aside, none left, a shard without rows, parts that the source brings."""

import gzip
import json

import pytest

from curation.ledger import Ledger

RECIPE = """
sources:
  bad: {path: "bad*.gz", language: de, broken: 1}
  good: {path: [a.jsonl, empty.jsonl, z.jsonl.gz], language: de, broken: 0.5}
steps:
  - rules: {name: short, drop: {short: "word_count < 3"}}
  - dedup: {preset: exact}
domains: {split: {good: topic}, held_out: {tokens: 50 tokens, share: 0.1}}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
execution: {raw: raw, workdir: work, workers: 1}
"""
TOPICS = ["新闻", "体育"]


@pytest.fixture(scope="module")
def tokenized(gristmill, tmp_path_factory):
    """The folder of a run up to its domains, with two shards of three that cannot be read."""
    folder = tmp_path_factory.mktemp("set_aside")
    (folder / "raw").mkdir()
    lines = [{"text": f"Dokument {n} hat einen kurzen Text. " * 4, "topic": TOPICS[n % 2]} for n in range(12)]
    (folder / "raw" / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "raw" / "empty.jsonl").write_text("")
    for name in ("bad.jsonl.gz", "z.jsonl.gz"):
        (folder / "raw" / name).write_bytes(b"this is no gzip")
    (folder / "left.yaml").write_text(RECIPE)
    gristmill("tokenize", folder / "left.yaml")
    return folder


def test_source_without_a_shard_left_has_no_rows(tokenized):
    ledger = Ledger.from_json((tokenized / "work" / "runs" / "left" / "ledger.json").read_text())
    assert [name for name, _ in ledger.source("bad").broken] == ["bad.jsonl.gz"]
    assert ledger.scan(["bad"]).collect().height == 0
    frame = ledger.scan().select("source", "kept").collect()  # a shard without rows has all the columns
    assert frame["source"].to_list() == ["good"] * 12
    assert frame["kept"].all()


def test_parts_that_a_source_brings_are_domains(tokenized):
    (domains,) = tokenized.glob("work/domains-*/all.domains.json")
    listed = json.loads(domains.read_text())
    assert {d["name"]: d["num_documents"] > 0 for d in listed} == {"good/体育": True, "good/新闻": True}
    assert len({d["training"] for d in listed}) == len({d["held_out"] for d in listed}) == 2


def test_clean_keeps_what_is_left_of_a_source(gristmill, tokenized):
    assert json.loads(gristmill("clean", tokenized / "left.yaml", "--json").out) == []


def test_finished_run_with_shards_set_aside_misses_nothing(gristmill, tokenized):
    assert json.loads(gristmill("status", tokenized / "left.yaml", "--json").out)["missing"] == []


def test_mended_shard_is_to_be_read(gristmill, tokenized):
    recipe, shard = tokenized / "left.yaml", tokenized / "raw" / "z.jsonl.gz"
    broken = shard.read_bytes()
    shard.write_bytes(gzip.compress(b'{"text": "Ein Text kommt hinzu"}\n'))
    rows = json.loads(gristmill("run", recipe, "--dry-run", "--json").out)["stages"]
    shard.write_bytes(broken)
    assert {row["stage"]: row["missing"] for row in rows if row["stage"].endswith(": read")} == {
        "bad: read": 0,
        "good: read": 1,
    }


def test_queries_of_a_source_without_rows_answer(gristmill, tokenized):
    changed = ("--set", "steps.short.drop.short='word_count < 9'")
    sources = [c["source"] for c in json.loads(gristmill("whatif", tokenized / "left.yaml", "--json", *changed).out)]
    assert sources == ["good"]
    found = json.loads(gristmill("diff", tokenized / "left.yaml", tokenized / "left.yaml", "--json").out)
    assert found["sources"]["bad"]["rows"] == [0, 0]
