"""Comparing tokenizers from the command line, and extending one, on a run whose text is curated already."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pytest

from mixing.tokenizer import load_tokenizer
from mixing.tokenizer_training import TokenizerOptions, train_tokenizer


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    """A tokenizer of someone else's, which knows English only."""
    folder = tmp_path_factory.mktemp("english") / "english"
    text = pa.array(["the quick brown fox jumps over the lazy dog and the house " * 40], pa.large_string())
    train_tokenizer([text], TokenizerOptions("bpe", 340), folder)
    return folder


def test_report_compares_the_recipes_tokenizer_with_others_and_with_samples(gristmill, copy_of_finished, english):
    recipe = copy_of_finished.recipe
    asked = ["tokenize", recipe, "--report", "--against", english, "--sizes", "8KiB,32KiB", "--vocabularies", "500"]
    found = json.loads(gristmill(*asked, "--json").out)
    assert [one["name"] for one in found] == ["recipe", "english", "500 on 8 KiB", "500 on 32 KiB"]
    measured = {json.dumps([(s["source"], s["num_characters"]) for s in one["report"]["sources"]]) for one in found}
    assert len(measured) == 1  # the same text for all
    assert {s["language"] for s in found[0]["report"]["languages"]} == {"de", "en", "code"}
    german = [next(s for s in one["report"]["languages"] if s["language"] == "de") for one in found]
    assert german[1]["tokens_per_word"] > 1.5 * german[0]["tokens_per_word"]  # English alone does not know German
    assert found[2]["report"]["trained_bytes"] < found[3]["report"]["trained_bytes"] <= 40 * 1024
    assert load_tokenizer(found[3]["path"]).vocabulary == 500
    again = gristmill(*asked)  # reused, and told in words
    assert "tokens per word" in again.out.lower()
    assert "not back" in again.out
    folder = copy_of_finished.workdir / "runs" / "small"
    with (folder / "report" / "tokenizer_sizes.csv").open() as stream:
        assert {row["language"] for row in csv.DictReader(stream)} == {"de", "en", "code"}
    assert "Tokens per word by amount of training text" in (folder / "tokenizers.html").read_text()


def test_report_flags_without_report_or_nonsense_are_refused(gristmill_here, finished):
    assert "add --report" in gristmill_here("tokenize", finished.recipe, "--sizes", "1MiB", code=1).err
    refused = gristmill_here("tokenize", finished.recipe, "--report", "--sizes", "four", code=1).err
    assert "--sizes four" in refused


def test_recipe_extends_a_tokenizer_and_tokenises_with_it(gristmill, copy_of_finished, english):
    changed = f"tokenizer={{base: {english}, vocabulary: 460}}"
    gristmill("tokenize", copy_of_finished.recipe, "--set", changed)
    (made,) = copy_of_finished.workdir.glob("tokenizer-*/all.tokenizer/extension.json")
    base, new = load_tokenizer(english), load_tokenizer(made.parent)
    assert json.loads(made.read_text())["base_vocabulary"] == base.vocabulary < new.vocabulary == 460
    assert new.encoder.get_vocab().items() >= base.encoder.get_vocab().items()
