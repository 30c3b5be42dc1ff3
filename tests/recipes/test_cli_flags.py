"""Flags that all verbs share do the same in each; `clean` touches nothing that is not ours."""

import json

import pytest
from click.testing import CliRunner

from recipes.artifacts import StageFolder
from recipes.cli.clean import unreached_folders
from recipes.cli.main import gristmill
from recipes.cli.options import Flags

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
    found = json.loads(done.stdout)
    assert {row["stage"]: row["missing"] for row in found["stages"]} == {
        "a: read": 1, "tokenizer": 1, "a: tokens": 1, "domains": 1,
    }  # fmt: skip
    parts = ["ablate", "plan", "train", "evaluate"]
    last = {"run": "evaluate", "pin": "ablate", "trace": "train"}.get(verb, verb)
    later = parts[: parts.index(last) + 1] if last in parts else []
    assert [(part["part"], part["state"]) for part in found["parts"]] == [(part, "after the text") for part in later]
    assert [path.name for path in (recipe.parent / "work").iterdir() if "-" in path.name] == []
    assert recipe.read_text() == RECIPE


@pytest.mark.parametrize(
    ("verb", "needs"), [("finetune", "finetuning"), ("export", "tokenizer, schedule, model, export")]
)
def test_part_that_is_not_asked_for_names_the_sections_that_ask_for_it(recipe, verb, needs):
    done = CliRunner().invoke(gristmill, [verb, str(recipe)])
    assert f"it does not ask for {verb}: `{verb}` needs {needs}" in str(done.exception)


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


@pytest.mark.parametrize("verb", ["ablate", "plan", "why x"])
def test_until_that_a_verb_would_pass_over_is_refused_with_what_it_can_be(recipe, gristmill_here, verb):
    verb, *more = verb.split()
    said = gristmill_here(verb, recipe, *more, "--until", "tokenize", code=1).err
    assert f"{verb} does not stop on its way" in said
    assert "curate, tokenize, ablate, plan, train" in said
    assert not any("-" in path.name for path in (recipe.parent / "work").iterdir())


@pytest.mark.parametrize("verb", ["why x", "index web@1 --remove 00", "forecast", "validate"])
def test_dry_run_of_a_verb_that_has_none_is_refused_and_not_offered(recipe, verb):
    verb, *more = verb.split()
    done = CliRunner().invoke(gristmill, [verb, str(recipe), *more, "--dry-run"])
    assert done.exit_code == 2
    assert f"--dry-run: {verb} makes no part of a run" in done.output
    assert "--dry-run" not in CliRunner().invoke(gristmill, [verb, "--help"]).output
    assert "--dry-run" in CliRunner().invoke(gristmill, ["train", "--help"]).output


def test_fetch_says_as_json_what_is_missing(recipe):
    done = CliRunner().invoke(gristmill, ["fetch", str(recipe), "--dry-run", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {"folder": str(recipe.parent / "raw"), "wanted": [], "missing": []}
    done = CliRunner().invoke(gristmill, ["fetch", str(recipe), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["fetched"] == []


def test_whatif_compares_the_same_sample_with_and_without_the_change(recipe):
    flags = Flags(recipe, ("tokenizer.vocabulary=400",), sample=0.5)
    run = flags.open_run_as_written()
    assert (run.recipe.tokenizer.vocabulary, run.recipe.sources["a"].sample) == (300, 0.5)
    assert run.name == Flags(recipe, sample=0.5).load().name != "r"


def test_validate_data_names_every_source_that_cannot_be_opened(recipe, gristmill_here):
    lines = "".join(f"  {name}: {{path: {name}.jsonl, language: de}}\n" for name in ("b", "c"))
    recipe.write_text(RECIPE.replace("tokenizer:", f"{lines}tokenizer:", 1))
    said = gristmill_here("validate", recipe, "--data", code=1)
    assert "source a: 1 shard," in said.out
    assert "valid" not in said.out
    assert "source b: no file matches 'b.jsonl'" in said.err
    assert "source c: no file matches 'c.jsonl'" in said.err


def test_folder_with_a_readme_beside_its_text_is_refused(recipe, gristmill_here):
    """Sorted first it would decide how all files are read: a document a file."""
    (recipe.parent / "raw" / "README.md").write_text("# About these texts")
    recipe.write_text(RECIPE.replace("a.jsonl", "."))
    said = gristmill_here("validate", recipe, "--data", code=1)
    assert (
        "source a: its files are of several formats: jsonl (1, such as a.jsonl), text (1, such as README.md)"
        in said.err
    )
    assert "text" not in said.out


def test_files_of_a_folder_that_are_left_unopened_are_named(recipe, gristmill_here):
    for name in ("LICENSE", "data.arrow", "x.bin", "y.bin", ".hidden"):
        (recipe.parent / "raw" / name).write_text("x")
    recipe.write_text(RECIPE.replace("a.jsonl", "."))
    said = gristmill_here("validate", recipe, "--data").out
    assert "left unopened, for their suffix tells no format: LICENSE, data.arrow, x.bin and 1 more" in said
    recipe.write_text(RECIPE)
    assert "unopened" not in gristmill_here("validate", recipe, "--data").out


def test_validate_data_of_a_good_recipe_is_one_json_value(recipe, gristmill_here):
    found = json.loads(gristmill_here("validate", recipe, "--data", "--json").out)
    assert (found["valid"], found["sources"]) == (True, ["a"])
    assert found["data"]["a"].startswith("1 shard, 0.0 MB, jsonl; of the first 1 row 0 cannot be read")
    lines = gristmill_here("validate", recipe, "--data").out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["source a", str(recipe)]


def test_show_resolved_prints_what_set_reads(recipe, gristmill_here):
    lines = gristmill_here("show", recipe, "--resolved", "--set", "sources.a.where='stars > 3'").out.splitlines()
    shown = {path: value for path, _, value in (line.rpartition("  # ")[0].partition(" = ") for line in lines)}
    assert (shown["sources.a.format"], shown["sequences.document_masks"]) == ("null", "false")
    assert (shown["sources.a.fields"], shown["sources.a.where"]) == ("{}", "stars > 3")
    assert shown["sources.a.max_document"] == "64 MiB"
    wanted = [f"--set={path}={shown[path]}" for path in ("sources.a.fields", "sources.a.where", "domains.max_epochs")]
    again = gristmill_here("show", recipe, "--resolved", *wanted).out
    assert "sources.a.where = stars > 3  #" in again


def test_clean_leaves_what_a_run_is_making(recipe, gristmill_here):
    workdir = recipe.parent / "work"
    folders = [workdir / f"{name}-0123456789abcdef" for name in ("held", "written", "free")]
    for folder in [*folders, workdir / "runs" / "r"]:
        folder.mkdir(parents=True)
    (workdir / "runs" / "r" / "reached.json").write_text("{}")
    output = StageFolder(folders[1]).output("task")
    with StageFolder(folders[0]).locked(lambda _: None), output.held():
        said = gristmill_here("clean", recipe, "--delete").err
    assert [folder.exists() for folder in folders] == [True, True, False]
    assert "held-0123456789abcdef: left alone; a run is making it" in said
    gristmill_here("clean", recipe, "--delete")
    assert not any(folder.exists() for folder in folders)


def test_clean_of_variants_leaves_an_unfinished_training(recipe, gristmill_here):
    workdir = recipe.parent / "work"
    artifacts = {name: workdir / f"{name}-0123456789abcdef" for name in ("plain", "shared", "begun", "ended")}
    for folder in artifacts.values():
        folder.mkdir(parents=True)
    for run, names in (("r", ["plain"]), ("r@00000001", ["shared", "begun"]), ("r@00000002", ["shared", "ended"])):
        beside = workdir / "runs" / run
        beside.mkdir(parents=True)
        (beside / "reached.json").write_text(json.dumps({"train": [artifacts[name].name for name in names]}))
        pinned = {"finished": run.endswith("2"), "folders": [artifacts[name].name for name in names]}
        (beside / "trained_on.json").write_text(json.dumps(pinned))
        (beside / "flags.json").write_text(json.dumps("--set seed=7"))
    said = gristmill_here("clean", recipe, "--variants", "--delete")
    assert {name for name, folder in artifacts.items() if folder.exists()} == {"plain", "shared", "begun"}
    assert (workdir / "runs" / "r@00000001").exists()
    assert not (workdir / "runs" / "r@00000002").exists()
    assert "r@00000001 (--set seed=7): left alone; its training has not come to its end" in said.err
    (workdir / "runs" / "r@00000001" / "trained_on.json").unlink()
    gristmill_here("clean", recipe, "--variants", "--delete")
    assert {name for name, folder in artifacts.items() if folder.exists()} == {"plain"}


def test_sample_takes_a_share_of_what_a_source_would_read(recipe):
    recipe.write_text(RECIPE.replace("language: de}", "language: de, sample: 0.2}", 1))
    assert Flags(recipe, sample=0.5).load().sources["a"].sample == pytest.approx(0.1)
    assert Flags(recipe, ("sources.a.sample=0.4",), sample=0.5).load().sources["a"].sample == pytest.approx(0.2)
    assert Flags(recipe).load().sources["a"].sample == 0.2


def test_validate_names_a_signal_that_nothing_gives(recipe, gristmill_here):
    """`keep` may name any signal, so only the compiled steps tell that there is no such one."""
    steps = "steps: [{dedup: {preset: minhash, keep: [{wordy: desc}]}}]\nexecution"
    recipe.write_text(RECIPE.replace("execution", steps))
    outcome = gristmill_here("validate", recipe, code=2)
    assert "steps.minhash: no signal or column 'wordy' for source a" in outcome.err
