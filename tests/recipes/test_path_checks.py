"""Files that a recipe names and that are not there: told by validate, and by a run before it reads anything."""

import pytest

from recipes.checks.paths import path_problems
from recipes.schema.recipe import load_recipe

RECIPE = """
sources: {web: {path: "*.jsonl", language: de}}
tokenizer: ./tok
schedule: [{name: main, tokens: 1M}]
model: {preset: llama_tiny, context: 64}
training: {batch: 16 sequences}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("tokenizer={0}/models/gpt/v2/", "tokenizer: value '{0}/models/gpt/v2': no such file or folder (there is {0}"),
        ("tokenizer={0}/nowhere.json", "tokenizer: value '{0}/nowhere.json': no such file or folder; name"),
        ("tokenizer={0}/empty", "this folder holds no tokenizer.json"),
        ("tokenizer={{base: {0}/none, vocabulary: 900}}", "tokenizer.base: value '{0}/none': no such file"),
        ("schedule.main.weights={0}/w.csv", "schedule.main.weights: value '{0}/w.csv': no such file"),
        ("training.from={0}/old/step-9", "training.from: value '{0}/old/step-9': no such file"),
    ],
)  # fmt: skip
def test_a_path_where_nothing_lies_is_told_with_its_place(recipe, gristmill_here, setting, told):
    folder = recipe.parent
    (folder / "empty").mkdir()
    (folder / "tok").mkdir()
    (folder / "tok" / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert not path_problems(load_recipe(recipe))
    refused = gristmill_here("validate", recipe, "--set", setting.format(folder), code=2)
    assert told.format(folder) in refused.err


def test_a_run_looks_for_its_tokenizer_before_it_reads_anything(recipe, gristmill_here):
    refused = gristmill_here("run", recipe, code=2)
    assert "r.yaml:3: tokenizer: value" in refused.err
    assert "no such file or folder" in refused.err
    assert not list((recipe.parent / "work").glob("web.*"))
