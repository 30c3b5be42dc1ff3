"""A run whose recipe, raw text or work directory is another by now: no verb answers by what no longer holds."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from curation.ledger import lost_text, shown_texts, texts_of
from recipes.cli.main import gristmill as verbs
from recipes.ledger.queries import open_ledger
from recipes.pretraining.training_cost import training_is_there
from recipes.report.funnel import funnels
from recipes.report.markup import Section
from recipes.report.record import read_record
from recipes.report.samples import add_samples
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.tokenizing.token_rate import TYPICAL, token_rates

# A rule is called as one source is, a dedup step as the other.
RECIPE = """\
sources:
  c4: {path: c4.jsonl, language: de}
  web: {path: web.jsonl, language: de}
steps:
  - rules: {name: c4, drop: {RULES}}
  - dedup: {preset: exact, name: web}
  - rules: {name: long, drop: {long: num_characters > 900}}
execution: {raw: raw, workdir: work, workers: 1}
"""
RULES, FEWER, MORE = (
    "over: num_characters > 450, under: num_characters < 30",
    "over: num_characters > 450, under: num_characters < 5",
    "above: num_characters > 800, over: num_characters > 450, under: num_characters < 30",
)


def write(rules, name="r.yaml", execution=""):
    path = Path(name)
    path.write_text(
        RECIPE.replace("RULES", rules).replace("raw: raw, workdir: work", execution or "raw: raw, workdir: work")
    )
    return path


def called(*arguments):
    result = CliRunner().invoke(verbs, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def opened(path):
    return Run.open(load_recipe(path), silent=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A curated run of two sources; tests leave its files as they were."""
    place = tmp_path_factory.mktemp("changed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("raw").mkdir()
        for source, letter in (("c4", "a"), ("web", "b")):
            texts = [letter * length for length in (10, 20, 100, 300, 500)] + ["ein Satz, der in beiden Quellen steht."]
            lines = [json.dumps({"id": f"{source}-{n}", "text": text}) for n, text in enumerate(texts)]
            Path("raw", f"{source}.jsonl").write_text("\n".join(lines) + "\n")
        yield place


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_until_a_step_makes_it_for_all_sources_and_the_ledger_ends_there(here):
    called("curate", write(RULES), "--until", "c4")
    kinds = {path.name.rpartition("-")[0] for path in Path("work").iterdir()}
    assert {"c4.decisions", "web.decisions"} <= kinds  # not after `c4: read`
    assert "web.duplicates" not in kinds
    (fate,) = json.loads(called("why", "r.yaml", "web-1", "--json"))
    assert fate["reason"] == "c4.under"
    assert [said["step"] for said in fate["steps"]] == ["c4"]
    with opened("r.yaml") as run:
        assert open_ledger(run).until == "c4"
    write(FEWER)
    called("curate", "r.yaml", "--until", "c4")
    (fate,) = json.loads(called("why", "r.yaml", "web-1", "--json"))
    assert fate["kept"]  # by the rules of now
    called("curate", write(RULES))
    with opened("r.yaml") as run:
        assert open_ledger(run).until is None


def test_funnel_tells_a_step_from_the_source_of_its_name(here):
    called("curate", write(RULES))
    with opened("r.yaml") as run:
        found = {one.source: one for one in funnels(read_record(run))}
    assert [step.step for step in found["web"].steps] == ["read", "c4", "web", "long"]
    assert [step.step for step in found["c4"].steps] == ["read", "c4", "web", "long"]
    assert (found["c4"].kept, found["web"].kept) == (3, 2)


def test_report_shows_documents_of_a_rule_by_the_reasons_of_the_run(here):
    called("curate", write(RULES))
    write(MORE)
    with opened("r.yaml") as run:
        record, section = read_record(run), Section("curation", "Curation", "")
        add_samples(record, section, funnels(record))
    rows = [dict(zip([column.title for column in section.tables[-1].columns], row)) for row in section.tables[-1].rows]
    dropped = {(row["reason"], row["values"]) for row in rows if row["what it did"] == "dropped"}
    assert dropped == {
        ("over", "num_characters = 500"), ("under", "num_characters = 10"), ("under", "num_characters = 20"),
    }  # fmt: skip


def test_forecast_of_a_recipe_that_trains_nothing_looks_for_no_training(here):
    called("curate", write(RULES))
    with opened("r.yaml") as run:
        assert not training_is_there(run)


def test_report_finds_stages_in_the_store_they_are_reused_from(here):
    called("curate", write(RULES))
    called("curate", write(RULES, "v.yaml", "raw: raw, workdir: other, reuse: [work]"))
    with opened("v.yaml") as run:
        record = read_record(run)
    assert not list(Path("other").glob("c4.rows-*"))
    assert all(record.made_in(stage) for stage in record.stages)
    assert record.path("web duplicates", "all.json").parent.parent.name == "work"


def test_text_of_a_shard_that_changed_is_not_shown_for_the_old_one(here):
    called("curate", write(RULES))
    raw = Path("raw/c4.jsonl")
    before = raw.read_text()
    with opened("r.yaml") as run:
        ledger = open_ledger(run)
        (shard,) = ledger.source("c4").shards
        os.utime(raw, ns=(1, 1))  # read again, found the same
        assert texts_of(shard, [0], raw=True) == {0: "a" * 10}
        raw.write_text(before.replace("a", "x"))
        assert lost_text(shard) == "c4.jsonl changed since curation"
        assert texts_of(shard, [0], raw=True) == {}
        raw.write_text(before[: before.index("\n") + 1])
        assert token_rates(run, ledger) == {"c4": TYPICAL, "web": TYPICAL}
        (fate,) = json.loads(called("why", "r.yaml", "c4-2", "--json"))
        assert fate["text"] == "(text no longer there: c4.jsonl changed since curation)"
        raw.unlink()
        assert shown_texts(shard, [2]) == {2: "(text no longer there: c4.jsonl is gone)"}
    raw.write_text(before)


def test_file_name_that_is_not_utf8_is_named_with_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open(b"M\xfcller.jsonl", "w") as file:  # noqa: PTH123  a path of bytes
        file.write('{"text": "Hallo"}\n')
    Path("r.yaml").write_text("sources: {w: {path: '*.jsonl', language: de}}\n")
    result = CliRunner().invoke(verbs, ["curate", "r.yaml"])
    assert str(result.exception) == "source w: file name b'M\\xfcller.jsonl' is not UTF-8; rename it"
