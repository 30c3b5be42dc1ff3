"""What validates and is not there yet is named with its line, before anything runs."""

import pytest

from recipes.recipe import load_recipe
from recipes.validation import not_yet

RECIPE = """
sources:
  a: {path: a.jsonl, language: de}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
ablation: {proxy: llama_tiny, tokens: 4K, runs: {dirichlet: 4}, objective: {a: 1}, orders: [ORDER]}
schedule: [{name: main, tokens: 4K, weights: natural, order: ORDER}]
model: {preset: llama_tiny, context: 16}
"""


@pytest.mark.parametrize(("order", "lines"), [("uniform", []), ("{by: {word_count: asc}}", [5, 6])])
def test_order_by_a_signal_is_said_to_come_later(tmp_path, order, lines):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("ORDER", order))
    found = not_yet(load_recipe(path))
    assert sorted(one.place.line for one in found) == lines
    assert all("order of a signal is not there yet" in str(one) for one in found)
