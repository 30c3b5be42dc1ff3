"""Swarms that stop hopeless runs, place runs one after another, and are asked before they are finished."""

import csv
import json

import pytest

pytest.importorskip("torch", reason="training needs the `training` extra")
pytestmark = pytest.mark.slow

RECIPE = """
seed: 1
sources:
  de: {path: "de/*.jsonl", language: de}
  en: {path: "en/*.jsonl", language: en}
  code: {path: "code/*.jsonl", language: code}
domains: {held_out: {tokens: 4K, share: 0.05}, max_epochs: 20}
tokenizer: {algorithm: byte_bpe, vocabulary: 400}
ablation:
  proxy: {preset: llama_tiny, layers: 1, width: 16, heads: 2, kv_heads: 2, feedforward: 32, context: 32,
          training: {batch: 8 sequences}}
  tokens: 4K
  runs: {one_domain: 1, dirichlet: 8, repeats: 2, sequential: 2}
  evaluate: 4 points
  stop: {at: 0.25, keep: 0.5}
  confirm: {model: {preset: llama_tiny, layers: 1, width: 16, heads: 2, kv_heads: 2, feedforward: 32, context: 32,
            training: {batch: 8 sequences}}, tokens: 8K, seeds: 2}
schedule: [{name: main, tokens: 16K, weights: ablation}]
model: {preset: llama_tiny, context: 32}
"""


@pytest.fixture(scope="module")
def study(corpus, gristmill, tmp_path_factory):
    """A finished study with early stopping: its recipe and its analysis."""
    folder = tmp_path_factory.mktemp("study")
    recipe = folder / "study.yaml"
    recipe.write_text(f"{RECIPE}execution: {{raw: {corpus}, workdir: {folder / 'work'}, workers: 2}}\n")
    return recipe, json.loads(gristmill("ablate", recipe, "--json").out)


def rows_of(path):
    """Rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def run_files(recipe):
    """Rows of whole runs, by the name of the run's file."""
    return {path.name: path for path in (recipe.parent / "work").glob("proxies-*/*.run.json")}


def test_study_stops_half_of_the_drawn_runs_and_places_the_last_two(study):
    recipe, analysis = study
    kinds = [run["kind"] for run in analysis["runs"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "natural": 2, "one_domain": 3, "dirichlet": 4, "sequential": 2,
    }  # fmt: skip
    assert len(analysis["stopped"]) == 4
    assert not set(analysis["stopped"]) & {run["name"] for run in analysis["runs"]}
    work = recipe.parent / "work"
    assert not list(work.glob("proxies-*/*.pt"))  # weights and moments of paused runs are gone
    rows = rows_of(next(work.glob("weights-*/*.stopped.csv")))
    assert [row["name"] for row in rows] == analysis["stopped"]


def test_study_confirms_over_pairs_of_seeds(study):
    recipe, analysis = study
    confirmed = analysis["confirmation"]
    assert confirmed["seeds"] == [101, 102]
    assert [arm["name"] for arm in confirmed["arms"]] == ["natural", "proposed"]
    change = confirmed["arms"][1]["objective"]
    assert change["low"] < change["difference"] < change["high"]
    wanted = analysis["proposed"]["weights"] if confirmed["verdict"] == "confirmed" else analysis["natural"]
    assert analysis["chosen"] == wanted
    rows = rows_of(next((recipe.parent / "work").glob("confirmed-*/*.confirmation.csv")))
    assert {row["measured"] for row in rows} == {"objective", "de", "en", "code"}


def test_lost_run_is_said_missing_then_trained_anew_to_the_same_bytes(study, gristmill, tmp_path):
    recipe, analysis = study
    kept = next(run["name"] for run in analysis["runs"] if run["kind"] == "dirichlet")
    path = next(path for name, path in run_files(recipe).items() if name.startswith(kept))
    before = path.read_bytes()
    path.unlink()
    said = gristmill("ablate", recipe, "--rows", tmp_path / "rows.csv", "--partial", "--json")
    partial = json.loads(said.out)
    rows = rows_of(tmp_path / "rows.csv")
    assert (partial["finished"], partial["planned"]) == (len(rows), 15)
    assert kept not in {row["name"] for row in rows}
    assert json.loads(gristmill("ablate", recipe, "--json").out) == analysis
    assert path.read_bytes() == before  # this time without a pause on the way


def test_status_counts_finished_proxies(study, gristmill_here):
    told = json.loads(gristmill_here("status", study[0], "--json").out)
    proxies = told["proxies"]
    assert (proxies["planned"], proxies["finished"], proxies["stopped"], proxies["left"]) == (15, 11, 4, 0)
    said = gristmill_here("status", study[0]).out
    assert "ablation: 11 of 15 proxies are finished, 4 were stopped early" in said


def test_forecast_of_a_finished_study_counts_nothing_again(study, gristmill_here):
    foretold = json.loads(gristmill_here("forecast", study[0], "--sample", "0.2", "--json").out)["ablation"]
    assert [(part["number"], part["left"], part["seconds"]) for part in foretold] == [(15, 0, 0.0), (4, 0, 0.0)]
    assert foretold[0]["stopped"] == 4


def test_rows_and_a_table_exclude_each_other(study, gristmill_here, tmp_path):
    (tmp_path / "t.csv").write_text("w:a,loss:a\n")
    said = gristmill_here("ablate", study[0], "--partial", "--runs", tmp_path / "t.csv", code=None)
    assert said.code != 0
