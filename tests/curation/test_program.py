"""From steps to stages: what a source changes for itself, and what is refused."""

import pytest

from curation.program import LocalStage, ProgramError, compile_program
from recipes.recipe import load_recipe, step_for

HEAD = """
sources:
  code: {path: code.jsonl, language: code}
  de: {path: de.jsonl, language: de%s}
  en: {path: en.jsonl, language: en}
steps:
"""


@pytest.fixture
def compiled(tmp_path):
    """The stages of some steps; `own` are values of the source `de` for steps."""

    def made(steps: str, own: str = ""):
        path = tmp_path / "steps.yaml"
        path.write_text(HEAD % (f", steps: {own}" if own else "") + steps)
        recipe = load_recipe(path)
        resolve = lambda step, source: step_for(step, source, recipe)  # noqa: E731
        return compile_program(recipe.sources, recipe.steps, resolve, recipe.domains.validate_only).stages

    return made


def drops_of(stages):
    return {stage.source: dict(stage.steps) for stage in stages if isinstance(stage, LocalStage) and stage.steps}


@pytest.mark.parametrize("step", ["rules: {preset: gopher", "clean: {preset: web", "language: {excerpt: null"])
def test_program_max_drop_of_a_source_counts(compiled, step):
    name = step.removesuffix("}").split(": ")[2] if "preset" in step else "language"
    found = drops_of(compiled(f"  - {step}, max_drop: 0.5}}\n", f"{{{name}: {{max_drop: 0.9}}}}"))
    assert (found["de"], found["en"]) == ({name: 0.9}, {name: 0.5})


@pytest.mark.parametrize(("step", "own"), [("dedup: minhash", "minhash: {threshold: 0.5}")])
def test_program_own_values_of_a_step_over_all_sources_are_refused(compiled, step, own):
    with pytest.raises(ProgramError, match="all its sources at once"):
        compiled(f"  - {step}\n", f"{{{own}}}")


def test_program_two_languages_of_one_text_are_refused(compiled):
    assert compiled("  - language: {}\n  - language: {name: again, min_score: 0.9}\n")
    with pytest.raises(ProgramError, match="another step identifies the language of de"):
        compiled("  - language: {}\n  - language: {name: again, excerpt: {pieces: 2}}\n")


def test_program_kept_by_a_signal_of_differently_edited_texts_is_refused(compiled):
    dedup = "  - dedup: {preset: exact, keep: [{word_count: desc}]}\n"
    assert compiled("  - clean: web\n" + dedup)
    with pytest.raises(ProgramError, match="texts that different steps edited"):
        compiled("  - clean: {preset: web, sources: [de]}\n" + dedup)


def test_program_perplexity_of_program_text_alone_is_nothing(compiled):
    step = "  - perplexity: {preset: sound, sources: [code], model: {train_on: [de]}}\n"
    assert compiled(step) == []


def test_program_language_model_that_is_not_there_is_named(compiled, tmp_path):
    with pytest.raises(ProgramError, match=r"no\.arpa: no such file"):
        compiled("  - perplexity: {preset: sound, model: ./no.arpa, pieces: words}\n")
    (tmp_path / "de.arpa").write_text("")
    assert compiled("  - perplexity: {preset: sound, model: ./de.arpa, pieces: words}\n")
    with pytest.raises(ProgramError, match=r"de\.sp\.model, the pieces of"):
        compiled("  - perplexity: {preset: sound, model: ./de.arpa}\n")
