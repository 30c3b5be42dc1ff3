"""In which values two recipes differ, however they are written."""

import json

from recipes.cli.diff import config_lines
from recipes.schema.recipe import load_recipe
from recipes.schema.resolved import differing, values_of

RECIPE = """
sources: {de: {path: a.jsonl, language: de}, en: {path: b.jsonl, language: en}}
steps:
  - rules: {preset: gopher, min_words: 30}
  - rules: {preset: c4}
  - dedup: {preset: minhash, keep: [longest]}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
domains: {max_epochs: 4}
schedule: [{name: main, tokens: 32K, weights: natural}]
model: {preset: llama_tiny, context: 64}
training: {batch: 8 sequences}
"""


def changed(tmp_path, *replaced):
    """What differs between the recipe and one in which texts are replaced; the values have been through JSON."""
    (tmp_path / "one.yaml").write_text(RECIPE)
    other = RECIPE
    for old, new in replaced:
        assert old in other
        other = other.replace(old, new)
    (tmp_path / "other.yaml").write_text(other)
    values = [values_of(load_recipe(tmp_path / name)) for name in ("one.yaml", "other.yaml")]
    return differing(json.loads(json.dumps(values[0])), values[1])


def test_differing_is_nothing_where_only_the_writing_differs(tmp_path):
    assert not changed(
        tmp_path,
        ("max_epochs: 4", "max_epochs: {'*': 4.0}"),
        ("batch: 8 sequences", "batch: 8sequences"),
        ("tokens: 32K", "tokens: 32_000 tokens"),
        ("min_words: 30", "min_words: 30.0"),
        ("{preset: c4}", "c4"),
        ("sources: {de: {path: a.jsonl, language: de}, en:", "sources: {en:"),
        ("language: en}}", "language: en}, de: {path: [a.jsonl], language: [de]}}"),
    )


def test_differing_names_values_as_they_were_written(tmp_path):
    found = changed(
        tmp_path,
        ("weights: natural", "weights: natural^0.5"),  # both are of the kind natural
        ("keep: [longest]", "keep: [{source: de}]"),
        ("min_words: 30", "min_words: 31"),
        ("max_epochs: 4", "max_epochs: {de: 4}"),
    )
    assert found == {
        "schedule.main.weights": ("natural", "natural^0.5"),
        "steps.minhash.keep": ("[longest]", "[source: de]"),
        "steps.gopher.min_words": ("30", "31"),
        "domains.max_epochs": ("4", "{de: 4}"),
    }


def test_differing_tells_the_order_of_steps(tmp_path):
    moved = (("  - rules: {preset: c4}\n", ""), ("steps:\n", "steps:\n  - rules: {preset: c4}\n"))
    assert changed(tmp_path, *moved) == {"steps": ("[gopher, c4, minhash]", "[c4, gopher, minhash]")}


def test_differing_tells_a_step_that_is_only_in_one(tmp_path):
    found = changed(tmp_path, ("  - rules: {preset: c4}\n", ""))
    assert found.pop("steps") == ("[gopher, c4, minhash]", "[gopher, minhash]")
    assert found
    assert all(path.startswith("steps.c4.") and pair[1] is None for path, pair in found.items())


def test_diff_tells_a_step_that_is_only_in_one_in_a_line(tmp_path):
    found = changed(tmp_path, ("  - rules: {preset: c4}\n", ""), ("min_words: 30", "min_words: 31"))
    assert list(config_lines(found, "one", "other")) == [
        "steps: [gopher, c4, minhash] → [gopher, minhash]",
        "steps.gopher.min_words: 30 → 31",
        "steps.c4: only in one",
    ]


def test_diff_tells_options_that_only_another_preset_has(tmp_path):
    found = changed(tmp_path, ("{preset: c4}", "{preset: ccnet, name: c4}"))
    lines = list(config_lines(found, "one", "other"))
    assert "steps.c4.preset: c4 → ccnet" in lines
    assert any(line.endswith("→ nothing") for line in lines)  # an option that ccnet does not have
    assert not any("only in" in line for line in lines)
