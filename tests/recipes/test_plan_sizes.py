"""`gristmill plan --sizes`: plans without data, with their pictures, and what an edit changes in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from recipes.ablation.swarm import Untrained
from recipes.cli.main import gristmill as verbs
from recipes.run import Run

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


def test_plan_against_an_older_recipe_trains_nothing_and_makes_no_text(tmp_path, monkeypatch):
    """Its ablation may take days: a recipe that has no plan yet is told with the command that makes one."""
    old = tmp_path / "old.yaml"
    old.write_text(
        "sources: {a: {path: a.jsonl, language: de}}\ntokenizer: {algorithm: byte_bpe, vocabulary: 300}\n"
        "ablation: {proxy: llama_tiny, tokens: 4K, runs: {dirichlet: 4}, objective: {a: 1}}\n"
        "schedule: [{name: main, tokens: 4K, weights: ablation}]\nmodel: {preset: llama_tiny, context: 16}\n"
    )
    (tmp_path / "a.jsonl").write_text('{"text": "ein Satz"}\n')
    told = refused(*asked("mindllm", tmp_path / "new"), "--diff", old)
    assert told == f"--diff: {old} has no plan yet, nor its text; `gristmill plan {old}` makes both"
    assert not list((tmp_path / "work").glob("a.rows-*"))
    monkeypatch.setattr("recipes.show.text_is_made", lambda run: True)
    monkeypatch.setattr(Run, "tokens", property(lambda run: None))
    trained = []

    def ablate(run):
        if run.trains:
            trained.append(run.name)
        raise Untrained(run)

    monkeypatch.setattr("recipes.ablation.ablate.ablate", ablate)
    told = refused(*asked("mindllm", tmp_path / "new"), "--diff", old)
    assert told.startswith(f"--diff: {old} has no plan yet: {old}: phase main: its weights come from the ablation")
    assert not trained


def refused(*arguments):
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments])
    assert result.exit_code != 0
    return str(result.exception)


def test_weights_of_a_file_that_do_not_sum_to_one_are_refused_with_lines_to_paste(tmp_path):
    wrong, right = tmp_path / "wrong.csv", tmp_path / "right.csv"
    wrong.write_text("domain,weight\nen_pile,0.5\nzh_wudao,0.39899\nzh_*,0.1\nzh_web,0.00001\n")
    told = refused(*asked("mindllm", tmp_path), "--set", f"schedule.mixed.weights={wrong}")
    assert "weights sum to 0.999, not 1" in told
    lines = told.split("normalised:\n")[1]
    assert "\nzh_web,1e-05" in lines  # small shares are not rounded away
    right.write_text(f"domain,weight\n{lines}\n")
    accepted = ["--set", f"schedule.mixed.weights={right}", "--set", "domains.max_epochs=2"]
    assert "mixed" in said(*asked("mindllm", tmp_path), *accepted)


def test_a_short_domain_is_told_both_remedies_for_its_phase(tmp_path):
    told = refused(*asked("mindllm", tmp_path), "--set", 'schedule.mixed.weights={"en_*": 0.3, "zh_*": 0.7}')
    assert "'zh_books': 18.6B tokens needed (5.7% of 326B) but supply 15B x 1 epochs" in told
    assert "lower its weight to 0.09 in 'mixed' or raise max_epochs to 1.25" in told


def test_a_weight_too_small_to_be_drawn_is_a_warning_with_the_budget_that_reaches_it(tmp_path):
    tiny = 'schedule.mixed.weights={"en_*": 0.999999999, zh_books: 0.000000001, "zh_w*": 0}'
    twice = ["--set", tiny, "--set", "domains.max_epochs=9"]
    told = said(*asked("mindllm", tmp_path), *twice)
    reach = re.search(r"'zh_books': weight 1e-09 is never drawn in 326B tokens; .* lengthened to (\S+) tokens\)", told)
    assert told.count("never drawn") == 1
    longer = f"schedule.mixed.tokens={reach[1]}"
    assert "never drawn" not in said(*asked("mindllm", tmp_path), *twice, "--set", longer)
