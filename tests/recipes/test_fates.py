"""A document's fate as the run decided it, whatever the recipe says by now."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from curation.decisions import DecisionOptions, RuleStep, make_decisions
from curation.ledger import Ledger, Source
from curation.passes import ShardInputs, make_rows
from curation.source import Reader
from recipes.errors import RunError
from recipes.ledger.queries import fates
from recipes.ledger.whatif import whatif
from recipes.tokenizing.token_rate import TYPICAL


class Files:
    """Where a stage writes, in a test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"


def step(**rules: str) -> RuleStep:
    return RuleStep("short", tuple(rules.items()), (("num_characters", "num_characters"),))


@pytest.fixture
def run(tmp_path):
    """A run whose step `short` drops for `few` and `middling`."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "kurz"}\n{"text": "ein langer Text, der bleibt"}\n')
    shard = ShardInputs("a", "a.jsonl", str(path), "de", Reader("jsonl"))
    make_rows(shard, None, Files(tmp_path, "rows"))
    shard = ShardInputs("a", "a.jsonl", str(path), "de", Reader("jsonl"), layers=(str(tmp_path / "rows.parquet"),))
    rules = step(few="num_characters < 3", middling="num_characters < 10")
    make_decisions(shard, DecisionOptions((rules,)), Files(tmp_path, "decisions"))
    layers = (*shard.layers, str(tmp_path / "decisions.parquet"))
    shard = ShardInputs("a", "a.jsonl", str(path), "de", Reader("jsonl"), layers=layers)
    (tmp_path / "ledger.json").write_text(Ledger((Source("a", "de", (shard,)),)).to_json())
    return SimpleNamespace(folder=tmp_path, ledger_file="ledger.json", recipe=None)


@pytest.mark.parametrize(
    ("now", "sql"),
    [
        ({"few": "num_characters < 3", "middling": "num_characters < 10"}, "num_characters < 10"),
        ({"any": "num_characters < 2", "few": "num_characters < 3", "middling": "num_characters < 11"},
         "num_characters < 11"),
        ({"few": "num_characters < 3"}, ""),
    ],
)  # fmt: skip
def test_reasons_are_those_of_the_run_though_the_recipe_has_other_rules_by_now(run, monkeypatch, now, sql):
    monkeypatch.setattr("recipes.ledger.queries.rule_steps", lambda _: {"a": [step(**now)]})
    (fate,) = fates(run, "kurz")
    assert (fate.kept, fate.reason) == (False, "short.middling")
    values = {"num_characters": 4} if sql else {}
    assert fate.steps == [{"step": "short", "drops": {"middling": {"sql": sql, "values": values}}, "undecided": []}]
    (fate,) = fates(run, "langer")
    assert (fate.kept, fate.steps[0]["drops"]) == (True, {})


def test_whatif_refuses_decisions_of_other_rules_than_the_recipe_has_by_now(run, monkeypatch):
    for name, made in {
        "rule_steps": {"a": [step(few="num_characters < 3")]},
        "compile_recipe": SimpleNamespace(stages=[]),
        "_only_rules_change": None,
        "token_rates": {"a": TYPICAL},
    }.items():
        monkeypatch.setattr(f"recipes.ledger.whatif.{name}", lambda *_, made=made: made)
    with pytest.raises(RunError, match="a: step short was curated with other rules than the recipe has by now"):
        whatif(run, None)
    same = {"a": [step(few="num_characters < 3", middling="num_characters < 10")]}
    monkeypatch.setattr("recipes.ledger.whatif.rule_steps", lambda _: same)
    (change,) = whatif(run, None)
    assert (change.kept_before, change.kept_after) == (1, 1)
