"""Whole runs in the order of a signal and over packed sequences, traced back to documents. Minutes, so slow."""

import csv
import json

import pytest

pytestmark = pytest.mark.slow
RECIPE = """
seed: 1
sources:
  made_de: {path: "catalogue:made_de", language: de, licence: CC0-1.0}
  made_en: {path: "catalogue:made_en", language: en, licence: CC0-1.0}
steps:
  - measure: {signals: [word_count], sources: [made_de]}
domains: {held_out: {tokens: 8K, share: 0.05}, max_epochs: 20}
tokenizer: {algorithm: byte_bpe, vocabulary: 1000}
sequences: {packing: PACKING, document_masks: true}
ablation:
  proxy: {preset: llama_tiny, layers: 1, width: 32, heads: 2, kv_heads: 2, feedforward: 64, context: 32,
          training: {batch: 8 sequences}}
  tokens: 4K
  runs: {one_domain: 0, dirichlet: 1, repeats: 1}
  orders: [{by: {word_count: desc}}]
  evaluate: 1 points
schedule:
  - {name: main, tokens: 16K, weights: {made_de: 0.5, made_en: 0.5}, order: {by: {word_count: asc}}}
  - {name: long, tokens: 8K, context: 128, ramp: 4K, weights: {made_de: 0.8, made_en: 0.2},
     order: {by: {num_characters: desc}}}
model: {preset: llama_tiny, layers: 1, context: 64}
training: {batch: 16 sequences}
execution: {raw: RAW, workdir: WORK, workers: 2, training: {devices: 1, threads: 1}}
"""


@pytest.mark.parametrize("packing", ["contiguous", "best_fit"])
def test_run_by_signal_trains_short_documents_first_and_traces_them(gristmill, tmp_path, packing):
    recipe = tmp_path / "orders.yaml"
    text = (
        RECIPE.replace("PACKING", packing).replace("RAW", str(tmp_path / "raw")).replace("WORK", str(tmp_path / "work"))
    )
    recipe.write_text(text)
    gristmill("run", recipe)
    gristmill("ablate", recipe)

    (held_out,) = (tmp_path / "work").glob("training-*/runs/*/held_out.csv")
    rows = list(csv.DictReader(held_out.read_text().splitlines()))
    last = {row["domain"]: float(row["loss"]) for row in rows if row["step"] == rows[-1]["step"]}
    (evaluation,) = (tmp_path / "work").rglob("evaluation.json")
    found = {one["domain"]: one["loss_nats"] for one in json.loads(evaluation.read_text())["domains"]}
    assert found == pytest.approx(last, rel=1e-5)  # with document masks, as the training measured

    def words(step):
        traced = json.loads(gristmill("trace", recipe, "--train-step", step, "--signals", "--json").out)
        german = [one for one in traced if one["domain"] == "made_de"]
        return sum(one["signals"]["word_count"] * one["num_tokens"] for one in german) / sum(
            one["num_tokens"] for one in german
        )

    assert words(0) < words(7) < words(15)
    one = json.loads(gristmill("trace", recipe, "--train-step", "20", "--json").out)[0]
    piece = one["text"].strip()[:60]
    steps = json.loads(gristmill("trace", recipe, "--document", piece, "--json").out)
    assert any(found["position"] == one["position"] for found in steps)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "work").glob("proxies-*/*.run.json")]
    orders = {tuple(map(str, run["order"])) for run in runs}
    assert len(orders) == 2
