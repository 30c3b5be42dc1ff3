"""CCNet's order of work on real text: the shipped example, from files to buckets."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipes.ledger.queries import open_ledger
from recipes.run import Run
from recipes.schema.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("GRISTMILL_TEST_DATA")
TEXTS = {
    "wiki/de": [("de_wiki", 25)], "wiki/en": [("en_books", 40)], "wiki/zh": [("zh_wiki", 150)],
    "web/de": [("de_kids", 40), ("de_tech", 20)], "web/en": [("en_qa", 60), ("en_tech", 20)],
    "web/zh": [("zh_dialogue", 40), ("zh_law", 40)],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(not DATA, reason="GRISTMILL_TEST_DATA is not set")
def test_ccnet_example_gives_every_kept_page_a_bucket_and_orders_sources(tmp_path, gristmill):
    for place, sources in TEXTS.items():
        folder = tmp_path / "raw" / place
        folder.mkdir(parents=True)
        for name, number in sources:
            table = pq.read_table(Path(DATA) / "text" / f"{name}.parquet").slice(0, number)
            pq.write_table(table, folder / f"{name}.parquet")
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "ccnet.yaml"
    path.write_bytes((ROOT / "recipes" / "examples" / "ccnet.yaml").read_bytes())
    gristmill("curate", path, "--set", "execution.workers=1")
    with Run.open(load_recipe(path), silent=True) as run:
        ledger = open_ledger(run).scan(["web_de", "web_en", "web_zh"]).collect()
    kept = ledger.filter(ledger["kept"])
    shares = kept["bucket"].value_counts(normalize=True)
    assert dict(shares.rows()).keys() == {"head", "middle", "tail"}
    columns = [name for name in kept.columns if name.split("@")[0] in ("perplexity", "lines_perplexity")]
    assert len(columns) == 2
    assert kept.select(columns).null_count().row(0) == (0, 0)
    assert not any(kept[name].is_nan().any() for name in columns)
    german = kept.filter(kept["source"] == "web_de")
    technical = german["shard"].str.contains("tech")
    assert (
        german.filter(~technical)[columns[0]].median() < german.filter(technical)[columns[0]].median()
    )  # articles for children are nearer to an encyclopedia than technical pages
