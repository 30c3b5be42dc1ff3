"""Flags that all verbs share do the same in each; `clean` touches nothing that is not ours."""

import json

import pytest
from click.testing import CliRunner

from recipes.cli.clean import unreached_folders
from recipes.cli.main import gristmill

RECIPE = """
sources:
  a: {path: a.jsonl, language: de}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
ablation: {proxy: {preset: llama_tiny, context: 16}, tokens: 2K, runs: {dirichlet: 2}}
schedule: [{name: main, tokens: 4K, weights: ablation}]
model: {preset: llama_tiny, context: 16}
execution: {raw: raw, workdir: work, workers: 1}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "Ein Text"}\n')
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    "verb", ["run", "curate", "tokenize", "plan", "ablate", "pin", "train", "trace --train-step 0"]
)
def test_dry_run_makes_nothing_and_says_what_would_be_made(recipe, verb):
    verb, *flags = verb.split()
    done = CliRunner().invoke(gristmill, [verb, str(recipe), *flags, "--dry-run", "--json"], catch_exceptions=False)
    assert {row["stage"]: row["missing"] for row in json.loads(done.stdout)} == {
        "a: read": 1, "tokenizer": 1, "a: tokens": 1, "domains": 1,
    }  # fmt: skip
    assert [path.name for path in (recipe.parent / "work").iterdir() if "-" in path.name] == []
    assert recipe.read_text() == RECIPE


def test_clean_leaves_what_is_no_artifact(recipe):
    workdir = recipe.parent / "work"
    for name in ("runs/r", "logs", "my-texts", "raw", "a.rows-0123456789abcdef", "a.rows-fedcba9876543210"):
        (workdir / name).mkdir(parents=True)
    (workdir / "runs" / "r" / "reached.json").write_text('{"curate": ["a.rows-fedcba9876543210"]}')
    assert [path.name for path in unreached_folders(workdir)] == ["a.rows-0123456789abcdef"]
    CliRunner().invoke(gristmill, ["clean", str(recipe), "--delete", "--dry-run"], catch_exceptions=False)
    assert (workdir / "a.rows-0123456789abcdef").exists()
    CliRunner().invoke(gristmill, ["clean", str(recipe), "--delete"], catch_exceptions=False)
    assert sorted(path.name for path in workdir.iterdir()) == [
        "a.rows-fedcba9876543210", "logs", "my-texts", "raw", "runs",
    ]  # fmt: skip
