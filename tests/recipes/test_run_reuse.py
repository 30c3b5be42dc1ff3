"""What a second run makes again: nothing, what a changed threshold touches, the shards of one more file."""

import json
import re
import shutil
import time

import pytest

from recipes.texts.made_text import made_lines


def kinds(names):
    """`de.signals-<key>` -> `de.signals`, each once."""
    return sorted({name.rpartition("-")[0] for name in names})


def test_run_twice_makes_nothing_again(gristmill, copy_of_finished, contents, stages):
    before, times = contents(copy_of_finished.workdir), stages(copy_of_finished.workdir)
    started = time.monotonic()
    said = gristmill("run", copy_of_finished.recipe, "--until", "plan").err
    assert time.monotonic() - started < 15
    assert contents(copy_of_finished.workdir) == before
    assert stages(copy_of_finished.workdir) == times
    lines = [line for line in said.splitlines() if line.startswith("  ") and "rows" in line]
    assert lines
    assert all(line.endswith("reused") for line in lines)


def test_every_stage_is_reused_from_a_read_only_store(gristmill_here, finished, small, tmp_path, stages):
    recipe = small()
    said = gristmill_here("run", recipe, "--set", f"execution.reuse=[{finished.workdir}]", "--until", "plan").err
    assert stages(tmp_path / "work") == {}
    timed = re.findall(r" s(?:, \d+ kernels? compiled on the way)?$", finished.said, re.MULTILINE)
    assert said.count("reused") == len(timed) - 1  # all but the line that says how long it took


def test_changed_threshold_makes_decisions_and_what_follows(gristmill, copy_of_finished, stages):
    before = stages(copy_of_finished.workdir)
    gristmill("run", copy_of_finished.recipe, "--set", "steps.gopher.min_words=60", "--until", "tokenize")
    after = stages(copy_of_finished.workdir)
    assert {name: after[name] for name in before} == before  # nothing that was there was written again
    made = kinds(after.keys() - before.keys())
    # Code has no gopher rules, but what it keeps follows from the dedup step over all sources. The language model is
    # trained on kept text, so scores follow too. Rows, signals of the registry and signatures are not made again.
    assert made == [
        "code.tokens", "de.decisions", "de.signals", "de.tokens", "domains", "en.decisions", "en.tokens",
        "minhash.duplicates", "sound.cutoffs", "sound.de.model", "tokenizer",
    ]  # fmt: skip
    assert sum(name.startswith("de.signals-") for name in after.keys() - before.keys()) == 1
    gristmill("run", copy_of_finished.recipe, "--until", "plan")  # as it was before: nothing to make
    assert stages(copy_of_finished.workdir) == after


def test_added_file_makes_its_own_shard_and_what_follows(gristmill, corpus, copy_of_finished, tmp_path, stages):
    shutil.copytree(corpus, tmp_path / "raw")
    recipe = copy_of_finished.recipe
    at = ("--set", f"execution.raw={tmp_path / 'raw'}")
    before, shards = stages(copy_of_finished.workdir), shards_of(copy_of_finished.workdir)
    gristmill("run", recipe, *at, "--until", "plan")
    assert stages(copy_of_finished.workdir) == before  # a copy of the raw files elsewhere is the same input
    lines = list(made_lines("made_en", num_documents=40, seed=7))
    (tmp_path / "raw" / "en" / "part-2.jsonl").write_bytes(b"".join(lines))
    gristmill("run", recipe, *at, "--until", "tokenize")
    new = shards_of(copy_of_finished.workdir) - shards
    local = {name for name in new if name.split(".")[1].startswith(("rows", "signals", "signatures", "decisions"))}
    assert local
    assert all("/en_part-2.jsonl-" in name for name in local)
    assert kinds(name.split("/")[0] for name in local) == ["en.decisions", "en.rows", "en.signals", "en.signatures"]
    made = kinds(stages(copy_of_finished.workdir).keys() - before.keys())
    assert made == ["code.tokens", "de.tokens", "domains", "en.tokens", "minhash.duplicates", "tokenizer"]


def shards_of(workdir):
    """Records of all tasks, by path."""
    records = [path for path in workdir.glob("*-*/*.json") if path.name != "run.json" and "manifest-" not in path.name]
    return {path.relative_to(workdir).as_posix() for path in records}


def test_touched_file_is_read_and_found_the_same(gristmill_here, corpus, copy_of_finished, tmp_path, stages):
    shutil.copytree(corpus, tmp_path / "raw", copy_function=shutil.copy)  # new modification times
    before = stages(copy_of_finished.workdir)
    gristmill_here("curate", copy_of_finished.recipe, "--set", f"execution.raw={tmp_path / 'raw'}", "--verify-inputs")
    assert stages(copy_of_finished.workdir) == before


def test_manifests_name_every_file_with_its_bytes(finished):
    manifests = list(finished.workdir.glob("*-*/manifest-*.json"))
    assert len(manifests) == len(
        [p for p in finished.workdir.iterdir() if p.name not in {"logs", "runs", "inputs.json"}]
    )
    for manifest in manifests:
        for task in json.loads(manifest.read_text())["tasks"]:
            for name, file in task["files"].items():
                assert (manifest.parent / name).stat().st_size == file["bytes"], name


@pytest.mark.parametrize("verb", ["run", "curate", "tokenize"])
def test_dry_run_makes_nothing(gristmill_here, small, tmp_path, stages, verb):
    said = gristmill_here(verb, small(), "--dry-run").out
    assert stages(tmp_path / "work") == {}
    assert "to make" in said
