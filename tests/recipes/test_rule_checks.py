"""Mistakes in rules that `gristmill validate` names with their lines."""

from pathlib import Path

import pytest

from curation.signals import SIGNALS
from recipes.checks.condition_types import TRUTH, types_of_signals
from recipes.checks.rules import rule_problems, signal_hint, signal_list
from recipes.curating.compiling import compile_recipe
from recipes.errors import RunError
from recipes.schema.recipe import RecipeErrors, load_recipe

RECIPE = """
sources:
  books: {path: books/*.jsonl, language: de, where: "pages > 3"}
steps:
  - language: {min_score: 0.5}
  - rules:
      name: house
      drop:
        syntax: "word_count <"
        typo: "word_cuont < 30"
        brought: "pages < 10"
        known: "language_score < 0.9 AND num_characters < 10"
  - measure: {signals: [word_count, mean_word_lenght]}
"""


def problems_of(text, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return rule_problems(load_recipe(path))


def test_list_of_signals_is_the_registry():
    assert signal_list() == sorted(SIGNALS)


def test_syntax_error_unknown_signal_and_unknown_measure_are_named_with_line_and_fix(tmp_path):
    found = [str(problem) for problem in problems_of(RECIPE, tmp_path)]
    assert len(found) == 3
    assert "r.yaml:9" in found[0]
    assert "word_count <" in found[0]
    assert "r.yaml:10" in found[1]
    assert "did you mean word_count?" in found[1]
    assert "r.yaml:13" in found[2]
    assert "did you mean mean_word_length?" in found[2]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("word_count = 'a'", "cannot compare string with a number"),
        ("language < 3", "cannot compare string with a number"),
        ("word_count + 1", "a number, not true or false: compare it with something"),
        ("licence", "text, not true or false"),
        ("digit_share > 20", "digit_share is a share, from 0 to 1, and is compared with 20; did you mean 0.2?"),
        ("word_count < 3 OR (NOT latin_share <= 120)", "latin_share is a share, from 0 to 1, and is compared with 120"),
        ("100 * digit_share > 20", None),
        ("digit_share > 0.2 AND word_count % 2 = 1 OR NOT c4_lorem_ipsum", None),
        ("url LIKE 'http%' AND upper(language) = 'DE' AND repaired IS NOT NULL", None),
        ("pages + 1", None),  # its type only the data tells
    ],
)
def test_conditions_without_a_truth_value_and_shares_above_one_are_named_with_their_line(tmp_path, sql, said):
    text = RECIPE[: RECIPE.index("  - rules")] + f'  - rules: {{name: house, drop: {{odd: "{sql}"}}}}\n'
    found = [str(problem) for problem in problems_of(text, tmp_path)]
    assert len(found) == (said is not None)
    assert said is None or ("r.yaml:6: steps.house.drop.odd" in found[0] and said in found[0])


def test_types_of_truths_are_the_registrys():
    assert {name for name, kind in types_of_signals(signal_list()).items() if kind == TRUTH} == {
        name for name, signal in SIGNALS.items() if signal.dtype == "bool"
    }


def test_misspelt_sources_bring_no_errors_about_patterns(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "sorces: {a: {path: a.jsonl, language: de}}\nsteps: [{rules: gopher}, {dedup: minhash}]\n"
    )
    with pytest.raises(RecipeErrors) as error:
        load_recipe(tmp_path / "r.yaml")
    assert "did you mean sources?" in str(error.value)
    assert "no source is called so" not in str(error.value)


LABELS = """
sources:
  books: {path: books/*.jsonl, language: de}
steps:
  - lines:
      drop:
        foreign: "language NOT IN ('de', 'eng_Latn') AND characters > 100"
        typo: "wrods < 3"
  - language: {min_score: 0.5}
  - rules: {drop: {german: "language = 'Germna'", fine: "language <> 'de' AND url = 'German'"}}
"""


def test_labels_of_languages_that_would_match_nothing_are_named_with_ours(tmp_path):
    found = [str(problem) for problem in problems_of(LABELS, tmp_path)]
    assert len(found) == 3
    assert "no such signal of lines; did you mean words?" in found[0]
    assert "'eng_Latn'" in found[1]
    assert "write language = 'en'" in found[1]
    assert "did you mean 'german'" in found[2]
    # a model of one's own may have labels that no table knows
    own = LABELS.replace("{min_score: 0.5}", "{min_score: 0.5, model: models/own.bin}")
    assert len(problems_of(own, tmp_path)) == 2


def test_language_without_text_to_train_on_is_named_with_both_remedies(tmp_path):
    step = "steps:\n  - perplexity: {preset: sound, model: {train_on: [books], order: 3}}\n"
    sources = "sources:\n  books: {path: b.jsonl, language: de}\n  laws: {path: l.jsonl, language: zh}\n"
    (found,) = problems_of(sources + step, tmp_path)
    assert "r.yaml:5" in str(found)
    assert "'zh', which the step scores; add one, or name the step's `sources`" in str(found)


ORDERED = """
sources:
  books: {path: b.jsonl, language: de}
steps: [{measure: {signals: [digit_share]}}]
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
schedule: [{name: main, tokens: 4K, weights: natural, order: {by: {SIGNAL: asc}}}]
model: {preset: llama_tiny, context: 16}
"""


def test_order_by_an_unknown_signal_is_named_with_its_line(tmp_path):
    (found,) = problems_of(ORDERED.replace("SIGNAL", "digit_shore"), tmp_path)
    assert "r.yaml:6" in str(found)
    assert "did you mean digit_share?" in str(found)


def test_order_by_a_signal_that_no_step_measures_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(ORDERED.replace("SIGNAL", "word_count"))
    with pytest.raises(RunError, match=r"no step measures 'word_count'.*add a step - measure"):
        compile_recipe(load_recipe(path))
    path.write_text(ORDERED.replace("SIGNAL", "digit_share"))
    assert compile_recipe(load_recipe(path)).columns["books"]["digit_share"] == "digit_share"


def test_recipe_of_the_readme_compiles(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    path = tmp_path / "readme.yaml"
    path.write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    recipe = load_recipe(path)
    assert rule_problems(recipe) == []
    assert {stage.label for stage in compile_recipe(recipe).stages} >= {"sound scores", "minhash"}


def test_shipped_recipes_have_no_mistake_in_their_rules():
    from importlib.resources import files

    for name in ("smallest.yaml", "quickstart.yaml"):
        assert rule_problems(load_recipe(str(files("recipes").joinpath(name)))) == []


def test_ready_tokens_with_a_tokenizer_to_train_are_named_with_their_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(ORDERED.replace("SIGNAL", "digit_share").replace("b.jsonl", "b.bin, format: megatron"))
    with pytest.raises(RecipeErrors, match=r"r\.yaml:3.*the tokenizer that wrote them"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("num_words", "; did you mean word_count?"), ("n_lines", "; did you mean line_count?"),
        ("num_chars", "; did you mean character_count?"), ("symbol_ratio", "; did you mean symbol_share?"),
        ("ppl", "; did you mean perplexity?"), ("word_cuont", "; did you mean word_count?"),
        ("gibberish", "; docs/signals.md lists them all"),
    ],
)  # fmt: skip
def test_another_tools_name_of_a_signal_is_answered_with_ours(name, told):
    known = {*signal_list(), "num_characters", "size_bytes", "perplexity"}
    assert signal_hint(name, known) == told
