"""The smallest recipe from raw text to an exported model: twice, killed on the way, pinned. Minutes, so slow."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from curation.ledger import Ledger
from recipes.run import Run
from recipes.schema.recipe import load_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).absolute().parents[2]


def write_recipe(folder, raw):
    """`smallest.yaml` with folders of its own."""
    path = folder / "smallest.yaml"
    execution = (
        f"execution: {{raw: {raw}, workdir: {folder / 'work'}, workers: 2, training: {{devices: 2, threads: 1}}}}"
    )
    text = (ROOT / "recipes" / "smallest.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("execution: {raw: ../raw, workdir: ../work}", execution), encoding="utf-8")
    assert execution in path.read_text(encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(gristmill, tmp_path_factory):
    """A whole run that was never interrupted: its recipe, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder, folder / "raw")
    started = time.monotonic()
    gristmill("run", recipe)
    return recipe, time.monotonic() - started


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_second_whole_run_reuses_everything(gristmill, whole, contents, stages):
    recipe, _ = whole
    before, times = contents(recipe.parent / "work"), stages(recipe.parent / "work")
    started = time.monotonic()
    gristmill("run", recipe)
    assert time.monotonic() - started < 20
    assert contents(recipe.parent / "work") == before
    assert stages(recipe.parent / "work") == times


@pytest.mark.parametrize("seed", range(5))
def test_whole_run_killed_at_any_moment_leaves_the_same_bytes(gristmill, start, whole, tmp_path, contents, seed):
    recipe, took_s = whole
    mine = write_recipe(tmp_path, recipe.parent / "raw")
    process = start("run", mine)
    moment = random.Random(seed).uniform(0.2 * seed, 0.2 * seed + 0.2) * took_s
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=moment)
    process.kill()
    process.communicate()
    gristmill("run", mine)
    assert_same(contents(tmp_path / "work"), contents(recipe.parent / "work"))


def test_training_whose_process_is_killed_leaves_the_same_model(start, whole, tmp_path, contents):
    recipe, _ = whole
    shutil.copytree(recipe.parent / "work", tmp_path / "work", symlinks=True)
    for made in ("training-*", "export-*"):
        for folder in (tmp_path / "work").glob(made):
            shutil.rmtree(folder)
    process = start("run", write_recipe(tmp_path, recipe.parent / "raw"))
    deadline = time.monotonic() + 120
    while not (ranks := [pid for pid in below(process.pid) if "training" in command_line(pid)]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(4)
    os.kill(ranks[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert_same(contents(tmp_path / "work"), contents(recipe.parent / "work"))


def below(pid):
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *below(child)]
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_execution_and_checkpoints_enter_no_key_of_training(whole):
    recipe, _ = whole
    keys = set()
    for override in (
        "seed=1", "checkpoints.every=3 train steps", "checkpoints.keep=all", "execution.log_every=1 train steps",
        "execution.training.micro_batch=2", "execution.training.threads=2", "execution.training.stall=60 s",
    ):  # fmt: skip
        with Run.open(load_recipe(recipe, (override,)), silent=True) as run:
            keys.add((run.training.key, run.training.folder))
    assert len(keys) == 1
    with Run.open(load_recipe(recipe, ("training.learning_rate.peak=2e-3",)), silent=True) as run:
        assert (run.training.key, run.training.folder) not in keys


def test_rows_of_the_ledger_are_the_lines_of_the_files(whole):
    import zstandard

    recipe, _ = whole
    ledger = Ledger.from_json((recipe.parent / "work" / "runs" / "smallest" / "ledger.json").read_text())
    assert [source.name for source in ledger.sources] == ["made_code", "made_de", "made_en", "made_zh"]
    for source in ledger.sources:
        lines = []
        for shard in source.shards:
            with zstandard.open(shard.path, "rb") as stream:
                lines += [line for line in stream.read().split(b"\n") if line.strip()]
        assert ledger.scan([source.name]).collect().height == len(lines)


def test_pin_writes_the_chosen_weights_and_the_plan_stays(gristmill, whole, tmp_path):
    recipe, _ = whole
    pinned = tmp_path / "pinned.yaml"  # another name: a recipe of the same name would be refused the other's folder
    pinned.write_text(recipe.read_text())
    before = json.loads(gristmill("plan", recipe, "--json").out)
    gristmill("pin", pinned)
    assert "weights: ablation" not in pinned.read_text()
    after = json.loads(gristmill("plan", pinned, "--json").out)
    shares = [
        {row["domain"]: row["share"] for row in found["rows"] if row["phase"] == "main"} for found in (before, after)
    ]
    assert shares[1] == pytest.approx(shares[0], abs=2e-3)


def test_status_report_and_export_are_there(gristmill, whole):
    recipe, _ = whole
    status = json.loads(gristmill("status", recipe, "--json").out)
    assert status["missing"] == []
    assert [(one["state"], one["step"]) for one in status["training"]] == [("done", status["training"][0]["num_steps"])]
    assert (recipe.parent / "work" / "runs" / "smallest" / "report.html").stat().st_size > 10_000
    (exported,) = (recipe.parent / "work").glob("export-*/huggingface")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in exported.iterdir()}
