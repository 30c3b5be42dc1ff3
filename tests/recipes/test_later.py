"""What validates and is not there yet is named with its line, before anything runs."""

import pytest

from recipes.pretraining import attention
from recipes.schema.located import RecipeErrors
from recipes.schema.recipe import load_recipe
from recipes.schema.validation import not_yet

RECIPE = """
sources:
  a: {path: a.jsonl, language: de}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
sequences: {packing: best_fit}
ablation: {proxy: llama_tiny, tokens: 4K, runs: {dirichlet: 4}, objective: {a: 1}, orders: [ORDER]}
schedule: [{name: main, tokens: 4K, weights: natural, order: ORDER}]
model: {preset: llama_tiny, context: 16}
execution: {engine: ENGINE}
"""


@pytest.mark.parametrize(("engine", "lines"), [("local", []), ("ray", [9])])
@pytest.mark.parametrize("order", ["uniform", "{by: {word_count: asc}}"])
def test_key_that_comes_later_is_named_with_its_line(tmp_path, order, engine, lines):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("ORDER", order).replace("ENGINE", engine))
    assert [one.place.line for one in not_yet(load_recipe(path))] == lines


@pytest.mark.parametrize("option", ["cache: /scratch"])
def test_training_option_that_nothing_reads_yet_is_refused_instead_of_ignored(tmp_path, option):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("ORDER", "uniform").replace("engine: ENGINE", f"training: {{{option}}}"))
    (one,) = not_yet(load_recipe(path))
    assert one.place.line == 9
    assert "is not there yet" in one.reason


def test_limit_of_the_work_directory_that_nothing_keeps_yet_is_refused_instead_of_ignored(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("ORDER", "uniform").replace("engine: ENGINE", "disk: 30 GiB"))
    (one,) = not_yet(load_recipe(path))
    assert (one.place.line, one.path) == (9, "execution.disk")


def test_extends_by_set_is_refused_since_files_were_laid_over_each_other_before(tmp_path):
    for name in ("r.yaml", "other.yaml"):
        (tmp_path / name).write_text(RECIPE.replace("ORDER", "uniform").replace("ENGINE", "local"))
    with pytest.raises(RecipeErrors, match=r"'other\.yaml': what a recipe extends"):
        load_recipe(tmp_path / "r.yaml", ("extends=other.yaml",))


@pytest.mark.parametrize(("kernel", "parts", "gpus", "told"), [
    ("flex", ["train"], (), "no backward on a CPU"),
    ("varlen", ["train"], (), "no kernel for a CPU"),
    ("varlen", ["curate", "plan"], (), None),
    ("varlen", ["train"], ("H100",), None),
    ("sdpa", ["train"], (), None),
])  # fmt: skip
def test_attention_without_its_kernel_is_refused_where_training_runs(tmp_path, monkeypatch, kernel, parts, gpus, told):
    monkeypatch.setattr(attention, "visible_gpus", lambda: gpus)
    path = tmp_path / "r.yaml"
    text = RECIPE.replace("ORDER", "uniform").replace("engine: ENGINE", f"training: {{attention: {kernel}}}")
    path.write_text(text + "training: {precision: bf16}\n")
    recipe = load_recipe(path)
    if told is None:
        attention.refuse_unserved_attention(recipe, parts)
        return
    with pytest.raises(RecipeErrors, match=told) as caught:
        attention.refuse_unserved_attention(recipe, parts)
    assert [one.place.line for one in caught.value.errors] == [9]
