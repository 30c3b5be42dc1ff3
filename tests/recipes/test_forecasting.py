"""Forecasts: a sample scaled to what the run itself would read."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from curation.ledger import Source
from mixing.shards import read_record
from mixing.stages import domain_bytes, domain_sizes, domain_texts
from recipes.curating.curate import curate
from recipes.ledger.forecasting import counted, disk_bytes, forecast, poisson_upper, scaled, wilson
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.tokenizing.token_rate import TYPICAL, rate_of, sampled_texts, token_rates

RECIPE = """
sources:
  half: {path: a.jsonl, language: de, sample: 0.5}
  whole: {path: a.jsonl, language: de}
steps:
  - rules: {name: short, drop: {short: "num_characters < 10"}}
domains: {split: {whole: topic}}
execution: {raw: raw, workdir: work, workers: 1}
"""


def test_forecast_counts_what_a_sampled_source_reads(tmp_path):
    (tmp_path / "raw").mkdir()
    lines = [json.dumps({"text": f"Dokument {n} von vielen", "topic": "ab"[n % 4 == 0]}) for n in range(1000)]
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "f.yaml").write_text(RECIPE)
    with Run.open(load_recipe(tmp_path / "f.yaml"), silent=True) as run:
        found = {source.source: source for source in forecast(run, 0.4, ()).sources}
    assert found["whole"].rows == pytest.approx(1000, rel=0.15)
    assert found["half"].rows == pytest.approx(500, rel=0.2)
    assert found["whole"].drops == {}
    parts = found["whole"].domains
    assert sum(parts.values()) == pytest.approx(found["whole"].tokens, abs=2)
    assert parts["whole/a"] / found["whole"].tokens == pytest.approx(0.75, abs=0.06)
    assert found["half"].domains == {"half": found["half"].tokens}


def test_sampled_texts_come_from_many_shards_and_later_ones_make_up_for_empty_ones(monkeypatch):
    sizes = [0] * 20 + [100_000] * 20  # characters that each shard keeps, in documents of 1,000

    def kept_text(shard, columns=()):
        texts = [None, *["x" * 1000 for _ in range(sizes[shard] // 1000)]]
        yield pa.record_batch({"text": pa.array(texts, pa.large_string()), "size_bytes": [3000] * len(texts)})

    monkeypatch.setattr("recipes.tokenizing.token_rate.kept_text", kept_text)
    sampled = sampled_texts(Source("a", "de", tuple(range(40))))
    assert sum(len(one.text) for one in sampled) == 400_000
    assert sum(one.size_bytes for one in sampled) == 1_200_000  # steps left a third of what was read
    assert sum(len(one.text) for one in sampled_texts(Source("a", "de", (39,)))) == 100_000
    reached = []
    monkeypatch.setattr(
        "recipes.tokenizing.token_rate.kept_text", lambda shard, _: reached.append(shard) or kept_text(39)
    )
    sampled_texts(Source("a", "de", tuple(range(40))))
    assert reached == [place * 40 // 16 for place in range(16)]


EDITED = """
sources:
  menus: {path: a.jsonl, language: de}
  plain: {path: b.jsonl, language: de}
steps:
  - lines: {name: menu, drop: {menu: "uppercase_share > 0.3"}}
tokenizer: {algorithm: byte_bpe, vocabulary: 300, text: {size: 20 KiB, shares: {menus: 0.5, plain: 0.5}}}
sequences: {bos: true}
execution: {raw: raw, workdir: work, workers: 1}
"""


def test_tokens_and_shares_of_edited_sources_are_those_of_the_text_that_is_left(tmp_path):
    (tmp_path / "raw").mkdir()
    for name, menu in (("a", "IMPRESSUM UND DATENSCHUTZ\n" * 20), ("b", "")):
        lines = [json.dumps({"text": f"{menu}Das {n}. Haus am Bach hat {n * n} Türen."}) for n in range(2000)]
        (tmp_path / "raw" / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "e.yaml").write_text(EDITED)
    with Run.open(load_recipe(tmp_path / "e.yaml"), silent=True) as run:
        ledger, tokens = run.curation.ledger(), run.tokens
        rates = token_rates(run, ledger)
    for name, rate in rates.items():
        kept = ledger.scan([name]).filter("kept").collect()
        there = sum(read_record(shard).num_tokens for shard in tokens.shards if shard.source == name)
        assert rate.tokens(kept["size_bytes"].sum(), kept.height) == pytest.approx(there, rel=1e-3)
    shards = tuple(shard for source in ledger.sources for shard in source.shards)
    left = dict.fromkeys(rates, 0)
    for name, _, text in domain_texts(shards, {}):
        left[name] += sum(len(one.encode()) for one in text.to_pylist())
    assert domain_bytes(shards, {}) == left
    sizes = {name: np.concatenate([each for _, each in domain_sizes(shards, {}, name)]).sum() for name in left}
    assert sizes == left


def test_rate_of_one_document_has_a_wide_interval():
    rate = rate_of([1000], [4000], "tokenizer")
    assert (rate.low, rate.per_byte, rate.high) == pytest.approx((0.25 / 1.6, 0.25, 0.25 * 1.6))


def test_wilson_interval_of_half_is_even():
    low, high = wilson(50, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson(0, 0) == (0.0, 1.0)


def rows_of(kept, sizes, contents, clusters=None, compared=False):
    """Rows of a sample: kept, their bytes, which content they have, how large the cluster is that they are in."""
    kept = np.asarray(kept)
    dropped = "minhash.duplicate" if compared else "rules.short"
    return pl.DataFrame(
        {
            "kept": kept,
            "reason": [None if one else dropped for one in kept],
            "size_bytes": sizes,
            "content_id": contents,
            "cluster_size": np.ones(len(kept), np.int64) if clusters is None else clusters,
            "compared": compared,
        }
    )


def test_intervals_cover_documents_bytes_and_tokens_of_the_whole():
    """Over 200 samples of a twentieth of documents with long tails: at least nine in ten intervals hold the truth."""
    rng = np.random.default_rng(3)
    sizes = np.exp(rng.normal(7, 1.2, 20_000)).astype(np.int64)
    tokens = np.round(sizes * rng.normal(0.25, 0.02, 20_000))
    kept = rng.random(20_000) < 0.3
    truth = [kept.sum(), sizes[kept].sum(), tokens[kept].sum()]
    covered = np.zeros((200, 3))
    for turn in range(200):
        chosen = rng.random(20_000) < 0.05
        frame = rows_of(kept[chosen], sizes[chosen], np.flatnonzero(chosen))
        mine = chosen & kept
        rate = rate_of(tokens[mine][:150].tolist(), sizes[mine][:150].tolist(), "tokenizer")
        found = scaled("a", counted([frame]), 0.05, 20_000, rate)
        intervals = [(found.kept_low, found.kept_high), (found.bytes_low, found.bytes_high)]
        intervals.append((found.tokens_low, found.tokens_high))
        covered[turn] = [low <= value <= high for value, (low, high) in zip(truth, intervals)]
    assert (covered.mean(axis=0) >= 0.9).all()
    assert covered[:, :2].mean() < 1  # no interval is so wide that it says nothing


def deduplicated(families, chosen):
    """Rows of a sample of which one of each family is kept; families: a number for each document."""
    mine = families[chosen]
    _, first, inverse, number = np.unique(mine, return_index=True, return_inverse=True, return_counts=True)
    kept = np.zeros(len(mine), bool)
    kept[first] = True
    return rows_of(kept, np.full(len(mine), 100), np.flatnonzero(chosen), number[inverse], compared=True)


FAMILIES = {
    "none": np.arange(8000),
    "pairs": np.arange(8000) // 2,
    "a tenth in pairs": np.concatenate([np.arange(7200), 7200 + np.arange(800) // 2]),
    "tens": np.arange(8000) // 10,
    "one large": np.concatenate([np.arange(4000), np.full(4000, 4000)]),
}


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("name", FAMILIES)
def test_intervals_cover_what_deduplication_keeps(name, share):
    """Over 60 samples, whatever the families: at least nine in ten hold the truth, and the middle is near it."""
    families, rng = FAMILIES[name], np.random.default_rng(5)
    truth = len(np.unique(families))
    found = [
        scaled("a", counted([deduplicated(families, rng.random(8000) < share)]), share, 8000, rate_of([25], [100], "x"))
        for _ in range(60)
    ]
    assert np.mean([one.kept_low <= truth <= one.kept_high for one in found]) >= 0.9
    if share > 0.01:  # of a hundredth there are 80 documents, which show a pair or none
        assert np.median([one.kept for one in found]) == pytest.approx(truth, rel=0.25)


def test_copies_to_the_letter_are_sampled_together_and_widen_the_interval():
    contents = np.repeat(np.arange(100), 20)
    alone = counted([rows_of(contents % 2 == 0, np.full(2000, 10), np.arange(2000))])
    together = counted([rows_of(contents % 2 == 0, np.full(2000, 10), contents)])
    assert (alone.spread, together.spread) == (1.0, pytest.approx(20))
    first = np.arange(2000) % 20 == 0  # one of each stays: their share is as sure as can be
    assert counted([rows_of(first, np.full(2000, 10), contents, compared=True)]).lost_pairs == 0


def test_poisson_upper_is_near_the_exact_bound():
    exact = {0: 3.689, 1: 5.572, 5: 11.668, 50: 65.92}  # tables of the Poisson distribution
    assert {n: poisson_upper(n) for n in exact} == pytest.approx(exact, rel=0.01)


def test_a_source_of_which_a_sample_keeps_nothing_may_still_give_text():
    found = scaled("a", counted([rows_of(np.zeros(50, bool), np.full(50, 300), np.arange(50))]), 0.01, 5000, TYPICAL)
    assert (found.kept, found.bytes, found.tokens) == (0, 0, 0)
    assert found.bytes_high == found.kept_high * 300 > 0
    assert found.tokens_high > 0


def test_disk_bytes_of_a_sample_hold_those_of_the_whole(tmp_path):
    rng = np.random.default_rng(1)
    columns = {f"signal_{n}": rng.random(40_000).astype(np.float32) for n in range(12)} | {"row": np.arange(40_000)}
    whole = pl.DataFrame(columns)
    whole.write_parquet(tmp_path / "whole.parquet")
    for share in (0.01, 0.1):
        whole.sample(fraction=share, seed=2).write_parquet(tmp_path / "some.parquet")
        low, expected, high = disk_bytes(tmp_path / "some.parquet", share)
        size = (tmp_path / "whole.parquet").stat().st_size
        assert low <= size <= high
        assert expected == pytest.approx(size, rel=0.35)
    (tmp_path / "all.json").write_text("{}")
    assert disk_bytes(tmp_path / "all.json", 0.01) == (2, 2, 2)


REAL = """
sources:
  wiki: {path: de_wiki.parquet, language: de, sample: 0.5}
  law: {path: de_law.parquet, language: de, sample: 0.5}
  math: {path: en_math.parquet, language: en, sample: 0.5}
  zh: {path: zh_law.parquet, language: zh, sample: 0.5}
steps:
  - language: {min_score: 0.5, max_drop: 1}
  - rules: {preset: gopher_quality, max_drop: 1}
  - dedup: {preset: minhash, max_drop: 1}
execution: {raw: RAW, workdir: WORK, workers: 1}
"""


@pytest.mark.slow
def test_forecast_of_real_text_covers_the_run(tmp_path):
    folder = Path(os.environ.get("GRISTMILL_TEST_DATA", "")) / "text"
    if not (folder / "de_wiki.parquet").is_file():
        pytest.skip("GRISTMILL_TEST_DATA names no folder with text/de_wiki.parquet")
    path = tmp_path / "real.yaml"
    path.write_text(REAL.replace("RAW", str(folder)).replace("WORK", str(tmp_path / "work")))
    with Run.open(load_recipe(path), silent=True) as run:
        found = forecast(run, 0.2, ())
        ledger = curate(run).ledger()
    inside = []
    for source in found.sources:
        rows = ledger.scan([source.source]).select("kept", "size_bytes").collect()
        size = rows.filter("kept")["size_bytes"].sum()
        inside.append(source.kept_low <= rows["kept"].sum() <= source.kept_high)
        inside.append(source.bytes_low <= size <= source.bytes_high)
        assert source.rows == pytest.approx(rows.height, rel=0.06)
    assert sum(inside) >= len(inside) - 1
    assert found.disk_bytes > 0
    assert {step.stage for step in found.steps} >= {"wiki: read", "wiki: minhash signatures", "minhash duplicates"}
