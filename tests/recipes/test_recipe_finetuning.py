"""The `finetuning` section: what may stand there, and what is answered to what may not."""

import pytest

from recipes.schema.recipe import RecipeErrors, load_recipe
from recipes.schema.validation import not_yet

TUNED = """
finetuning:
  from: ./base
  examples: [chat/*.jsonl, qa.parquet]
"""
TRAINED = """
sources:
  a: {path: a.jsonl, language: de}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
schedule: [{name: main, tokens: 4K, weights: natural}]
model: {preset: llama_tiny, context: 16}
finetuning: {examples: chat.jsonl, REST}
"""


@pytest.fixture
def load(tmp_path):
    def read(text, *overrides):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        return load_recipe(path, overrides)

    return read


def test_recipe_that_only_tunes_needs_no_sources_and_files_are_sets_of_their_names(load, tmp_path):
    recipe = load(TUNED)
    assert recipe.sources == {}
    assert not_yet(recipe) == []
    assert {name: one.path for name, one in recipe.finetuning.examples.items()} == {
        "chat": (str(tmp_path / "chat" / "*.jsonl"),),
        "qa": (str(tmp_path / "qa.parquet"),),
    }


def test_template_is_a_word_or_a_file_beside_the_recipe(load, tmp_path):
    assert load(TUNED).finetuning.template == "chatml"
    mine = load(TUNED + "  template: mine.jinja\n").finetuning.template
    assert mine == str(tmp_path / "mine.jinja")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("  template: chatlm\n", "did you mean chatml?"),
        ("  epochs: {chta: 2, qa: 1}\n", "says none for 'chat'"),
        ("  epochs: {chta: 2, '*': 1}\n", "no set is called so; did you mean chat?"),
        ("  lora: {targets: q_proj}\n", "q_proj is called query here"),
        ("  lora: {targets: [query, gates]}\n", "no layer is called 'gates'; the layers are query, key"),
        ("  lora: {ranks: 4}\n", "did you mean rank?"),
        ("  selection: {entropy: [2, 1]}\n", "low is not below high"),
        (
            "  selection: {entropy: [1, 2], clusters: 0}\n",
            "finetuning.selection.clusters: value 0: input should be greater than",
        ),
        (
            "  examples: {a: {path: a.jsonl, fields: {messages: m, input: i}}}\n",
            "either messages, or instruction, input",
        ),
        ("  selection: {entropy: [1, 1.5]}\n", "model_entropy: missing: the loss of the model"),
        ("  context: 64\n  batch: 63 tokens\n", "less than one sequence of 64 tokens"),
        ("  examples: {a: {path: a.jsonl, fields: {question: q}}}\n", "no part of a conversation"),
        ("  examples: [a/x.jsonl, b/x.jsonl]\n", "two sets would be called 'x'"),
    ],
)
def test_mistake_is_answered_with_its_place_and_fix(load, lines, told):
    text = TUNED if "examples" not in lines else TUNED.replace("  examples: [chat/*.jsonl, qa.parquet]\n", "")
    with pytest.raises(RecipeErrors) as refused:
        load(text + lines)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("lora: {rank: 33}", r"more than the width of query \(32\)"),
        ("lora: {rank: 33, targets: up}", r"more than the width of up \(32\)"),
        ("lora: {rank: 17, targets: [query, value]}", r"more than the width of value \(16\)"),
        ("lora: {rank: 17, targets: [query, up]}", None),
        ("lora: {targets: gate}", None),
        ("selection: {entropy: [1, 1.5]}", None),
    ],
)
def test_tuning_of_the_model_that_the_recipe_trains(load, rest, told):
    text = TRAINED.replace("REST", rest)
    kv_heads = 2 if "17" in rest else 4
    sizes = ("model.width=32", "model.heads=4", f"model.kv_heads={kv_heads}")
    if told is None:
        load(text, *sizes)
        return
    with pytest.raises(RecipeErrors, match=told):
        load(text, *sizes)


def test_tuning_of_nothing_is_refused(load):
    with pytest.raises(RecipeErrors, match="tuning of what"):
        load("sources: {a: {path: a.jsonl, language: de}}\nfinetuning: {examples: chat.jsonl}\n")
    with pytest.raises(RecipeErrors, match="sources: missing, such as"):
        load("finetuning: {examples: chat.jsonl}\n")
