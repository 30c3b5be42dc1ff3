"""`gristmill plan --sizes`: plans without data, with their pictures, and what an edit changes in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from recipes.cli.main import gristmill as verbs

EXAMPLES = Path(__file__).resolve().parents[2] / "recipes" / "examples"


def said(*arguments):
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def asked(name, workdir):
    sizes = EXAMPLES / f"{name}_sizes.csv"
    return ["plan", EXAMPLES / f"{name}_plan.yaml", "--sizes", sizes, "--set", f"execution.workdir={workdir}"]


@pytest.mark.parametrize(
    ("name", "tokens", "told"),
    [
        ("llammlein", 3_000_001_101_824, "main: 3,000,001,101,824 tokens = 1,430,512 x 1,024 sequences of 2,048"),
        ("mindllm", 325_582_848_000, "mixed: 166,566,297,600 tokens = 105,900 x 768 sequences of 2,048"),
    ],
)
def test_published_plans_are_printed_from_sizes_alone(tmp_path, name, tokens, told):
    shown = said(*asked(name, tmp_path), "--out", tmp_path / "old.json")
    assert f"{tokens:,} tokens" in shown
    assert told in shown
    assert "Shares over training" in (tmp_path / "runs" / f"{name}_plan" / "plan.html").read_text()
    found = json.loads(said(*asked(name, tmp_path), "--diff", tmp_path / "old.json", "--json"))
    assert found["difference"][0].startswith("no difference: both plans hold the same")
    assert {row["domain"] for row in found["rows"]} > ({"zh_*"} if name == "mindllm" else {"web_de/head"})


def test_an_edited_later_phase_leaves_all_before_it_as_it_was(tmp_path):
    said(*asked("mindllm", tmp_path), "--out", tmp_path / "old.json")
    edit = 'schedule.mixed.weights={"en_*": 0.6, "zh_*": 0.4}'
    shown = said(*asked("mindllm", tmp_path), "--set", edit, "--diff", tmp_path / "old.json")
    assert "unchanged before position 77,644,800 (train step 101,100, 159,016,550,400 tokens)" in shown
    assert "nothing is trained twice, nothing is left out" in shown
