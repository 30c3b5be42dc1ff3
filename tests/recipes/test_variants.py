"""Runs with flags of their own take no other run's place."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from recipes.cli.main import gristmill as verbs
from recipes.cli.options import Flags

RECIPE = """\
sources: {de: {path: de.jsonl, language: de, licence: CC0-1.0}}
steps: [{rules: {name: long, drop: {short: num_characters < 20}}}]
execution: {raw: ., workdir: work}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("de.jsonl").write_text('{"text": "kurz"}\n{"text": "ein Satz von mittlerer Länge"}\n')
    Path("r.yaml").write_text(RECIPE)
    return Path("r.yaml")


def called(*arguments):
    return CliRunner().invoke(verbs, [str(one) for one in arguments], catch_exceptions=True)


@pytest.mark.parametrize(
    "same",
    [
        "execution.workers=2",
        "checkpoints.every=3M",
        "sources.de.language=de",
        "sources.de.sample=1.0",
        "sources.de.sample=1",
        "sources.de.path=[de.jsonl]",
        "sources.de.max_document=65536KiB",
        "domains.max_epochs=4.0",
        "domains.max_epochs={'*': 4}",
        "domains.held_out.tokens=1000K",
    ],
)
def test_flags_that_change_nothing_of_the_result_keep_the_name(recipe, same):
    assert Flags(recipe, (same,)).load().name == "r"


@pytest.mark.parametrize(
    "other", ["domains.max_epochs=5", "sources.de.max_document=65 MiB", "domains.held_out.share=0.02", "seed=1"]
)
def test_flags_that_change_the_result_name_a_run_of_its_own(recipe, other):
    assert Flags(recipe, (other,)).load().name.startswith("r@")


def test_flags_name_a_run_by_what_they_change(recipe):
    names = {Flags(recipe, ("sources.de.sample=0.5",)).load().name, Flags(recipe, sample=0.5).load().name}
    assert len(names) == 1  # the same recipe, however it was asked for
    assert names != {Flags(recipe, sample=0.25).load().name}
    assert all(name.startswith("r@") for name in names)


def test_a_sample_leaves_the_ledger_and_report_of_the_recipe_alone(recipe):
    assert called("curate", recipe, "--set", "sources.de.sample=0.5").exit_code == 0
    missing = called("why", recipe, "de.jsonl:0")
    assert missing.exit_code == 1
    assert "with other flags it was: --set sources.de.sample=0.5" in str(missing.exception)
    assert called("curate", recipe).exit_code == 0
    before = Path("work/runs/r/ledger.json").read_bytes()
    assert called("curate", recipe, "--sample", "0.25").exit_code == 0
    assert Path("work/runs/r/ledger.json").read_bytes() == before
