"""litdata's sets and Hugging Face datasets start a recipe: split and ordered by what stands beside their tokens."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixing.domain_stage import read_domains
from mixing.order import open_order
from mixing.sort_values import open_sort_values
from recipes.curating.curate import ALL
from recipes.pretraining.train import read_plan
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.texts.made_text import made_lines

TEXT = """
sources: {en: {path: en.jsonl, language: en}}
domains: {held_out: {tokens: 1K, share: 0.05}}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
execution: {workers: 1}
"""
ROWS = """
sources:
  rows: {path: "rows/*.parquet", format: datasets, language: en}
  chunks: {path: chunks/en, format: litdata, language: en}
domains: {held_out: {tokens: 1K, share: 0.05}, max_epochs: 99, split: {rows: topic}}
tokenizer: chunks/tokenizer
schedule: [{name: main, tokens: 16K, weights: {"rows/*": 0.5, chunks: 0.5}, order: {by: {quality: desc}}}]
model: {preset: llama_tiny, layers: 1, width: 32, heads: 2, kv_heads: 2, feedforward: 64, context: 64}
training: {batch: 8 sequences}
execution: {raw: ., workers: 1}
"""


@pytest.fixture(scope="module")
def tokenised(tmp_path_factory, gristmill_here):
    """A recipe of one small source whose tokens are made."""
    folder = tmp_path_factory.mktemp("tokenised")
    (folder / "en.jsonl").write_bytes(b"".join(made_lines("made_en", num_documents=120)))
    recipe = folder / "small.yaml"
    recipe.write_text(TEXT, encoding="utf-8")
    gristmill_here("tokenize", recipe)
    return recipe


def test_ready_tokens_are_split_and_ordered_by_columns_beside_them(tokenised, gristmill_here, tmp_path):
    recipe = tmp_path / "rows.yaml"
    gristmill_here("tokenize", tokenised, "--to", "litdata", "--out", tmp_path / "chunks")
    gristmill_here("tokenize", tokenised, "--to", "parquet", "--out", tmp_path / "rows")
    table = pq.read_table(tmp_path / "rows" / "en.parquet")
    quality = [row["row"] / 100 for row in table.to_pylist()]
    table = table.append_column("quality", pa.array(quality)).append_column(
        "topic", pa.array(["law" if row > 0.4 else None for row in quality])
    )
    for path in (tmp_path / "rows").glob("*.parquet"):
        path.unlink()
    pq.write_table(table, tmp_path / "rows" / "en.parquet")
    recipe.write_text(ROWS, encoding="utf-8")
    with Run.open(load_recipe(recipe), silent=True) as run:
        names = [domain.name for domain in read_domains(run.tokens.domains_path)]
        assert names == ["chunks", "rows/law", "rows/unknown"]
        plan, values = read_plan(run.plan), open_sort_values(run.sort_values.file(ALL, ".values.json"))
        order = open_order(plan, values)
        domain, _, epoch, sequence = order.locate(range(plan.num_positions))
        of_law = values("rows/law", "quality", 64)[sequence[(domain == 1) & (epoch == 0)]]
        assert len(of_law) > 60
        assert (of_law[48:] <= of_law[:-48]).all()  # falling, up to an order window
    shown = json.loads(gristmill_here("trace", recipe, "--train-step", "3", "--signals", "--json").out)
    assert {one["signals"]["quality"] > 0.4 for one in shown if one["domain"] == "rows/law"} == {True}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("domains.split.rows=topik", "domains.split: source rows has no column 'topik' beside its tokens"),
        ("schedule.main.order.by={qualty: asc}", "schedule.main.order: no step measures 'qualty'; known: "),
        ("sources.rows.fields.tokens=ids", "no column 'ids'; known: "),
        ("sources.chunks.path=rows", "index.json: missing"),
        ("sources.chunks.path=nowhere", "no file matches 'nowhere'"),
        ("domains.split.chunks=topic", "chunks: litdata holds tokens alone, nothing to split by"),
        ("sources.rows.where=row>3", "ready tokens are read whole"),
        ("sources.chunks.fields.tokens=ids", "litdata has no named columns of tokens"),
    ],
)
def test_what_ready_tokens_do_not_bring_is_refused_before_anything_runs(tmp_path, gristmill_here, setting, told):
    recipe = tmp_path / "rows.yaml"
    recipe.write_text(ROWS, encoding="utf-8")
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"input_ids": [[3, 4]], "topic": ["x"]}), tmp_path / "rows" / "en.parquet")
    (tmp_path / "chunks" / "en").mkdir(parents=True)
    (tmp_path / "chunks" / "tokenizer").mkdir()
    (tmp_path / "chunks" / "tokenizer" / "tokenizer.json").touch()
    (tmp_path / "chunks" / "en" / "index.json").write_text(
        json.dumps({"chunks": [{"filename": "a"}], "config": {"x": 1}})
    )
    (tmp_path / "chunks" / "en" / "a").touch()
    refused = gristmill_here("validate", recipe, "--data", "--set", setting, code=None)
    assert refused.code != 0
    assert told in refused.err
    assert not list((tmp_path / "work").glob("*tokens*"))
