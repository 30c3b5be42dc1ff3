"""Artifacts: keys, commit by rename, records, locks, reuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.stages import TokenOptions
from recipes.artifacts import ArtifactError, InputChecksums, Store, checksum, key_of
from recipes.pipeline import content_key, options_that_count, tokenizer_key

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_key_does_not_depend_on_the_order_of_a_mapping(options):
    assert key_of(options) == key_of(dict(reversed(options.items())))


def test_key_differs_for_different_values():
    assert len({key_of(1), key_of("1"), key_of([1]), key_of(1, None), key_of({"a": 1})}) == 5


def write(folder, task, text="grain", **counts):
    output = folder.output(task)
    output.path(".txt").write_text(text)
    output.commit(counts)


def test_task_is_missing_until_its_record_is_written(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    output = folder.output("a")
    output.path(".txt").write_text("grain")
    assert folder.missing(["a", "b"]) == ["a", "b"]
    output.commit({"rows": 3})
    assert folder.missing(["a", "b"]) == ["b"]
    assert folder.record("a")["counts"] == {"rows": 3}


def test_task_whose_file_was_cut_short_counts_as_missing(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    write(folder, "a")
    folder.file("a", ".txt").write_text("gr")
    assert folder.missing(["a"]) == ["a"]


def test_folder_is_committed_like_a_file_and_replaces_an_unrecorded_one(tmp_path):
    folder = Store(tmp_path).stage("model.de", "00ff")
    folder.path.mkdir()
    (folder.path / "all.model").mkdir()
    (folder.path / "all.model" / "stale").write_text("left by a killed task")
    output = folder.output("all")
    made = output.path(".model")
    (made / "deep").mkdir(parents=True)
    (made / "card.json").write_text("{}")
    (made / "deep" / "words").write_text("a b")
    output.commit({"tokens": 2})
    assert sorted(folder.record("all")["files"]) == ["all.model/card.json", "all.model/deep/words"]
    assert not (folder.path / "all.model" / "stale").exists()
    (folder.path / "all.model" / "deep" / "words").unlink()
    assert folder.missing(["all"]) == ["all"]


def test_abandoned_output_leaves_nothing(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    output = folder.output("a")
    output.path(".txt").write_text("half")
    output.abandon()
    assert [p.name for p in folder.path.iterdir()] == []


def test_manifest_names_its_tasks_and_adding_one_leaves_the_others_untouched(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    write(folder, "a")
    write(folder, "b")
    before = folder.file("a", ".txt").stat().st_mtime_ns
    first = folder.finish(["a", "b"])
    write(folder, "c")
    second = folder.finish(["a", "b", "c"])
    assert first != second
    assert [t["task"] for t in json.loads(second.read_text())["tasks"]] == ["a", "b", "c"]
    assert folder.file("a", ".txt").stat().st_mtime_ns == before


def test_manifest_of_a_stage_with_a_missing_task_is_refused(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    write(folder, "a")
    with pytest.raises(ArtifactError, match="task b is not whole"):
        folder.finish(["a", "b"])


def test_lock_removes_what_a_killed_run_left_half_written(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    write(folder, "a")
    leftover = folder.path / "b.parquet.123-abc.tmp"
    leftover.write_text("half")
    with folder.locked(lambda owner: None):
        assert not leftover.exists()
    assert folder.missing(["a"]) == []


def test_second_run_waits_and_is_told_who_holds_the_stage(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    code = (
        "import sys; from pathlib import Path; from recipes.artifacts import Store\n"
        f"folder = Store(Path({str(tmp_path)!r})).stage('signals.de', '00ff')\n"
        "with folder.locked(lambda why: print(why, flush=True)): print('has it', flush=True)"
    )
    with folder.locked(lambda owner: None):
        child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline().startswith(f"process {os.getpid()} is making it")
    assert child.stdout.readline() == "has it\n"
    assert child.wait() == 0
    child.stdout.close()


def test_run_that_waits_for_a_killed_runs_worker_is_told_so(tmp_path):
    folder = Store(tmp_path).stage("signals.de", "00ff")
    code = (
        "import sys; from pathlib import Path; from recipes.artifacts import Store\n"
        f"with Store(Path({str(tmp_path)!r})).stage('signals.de', '00ff').output('a').held():\n"
        "    print('writes', flush=True); sys.stdin.readline()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-P", "-c", code], **pipes) as worker:
        assert worker.stdout.readline() == "writes\n"
        told = []

        def waiting(why):
            told.append(why)
            worker.stdin.write("end\n")
            worker.stdin.flush()

        with folder.locked(waiting):
            pass
    assert len(told) == 1
    assert told[0].startswith("the run that made it is gone, but a worker of it")
    assert str(worker.pid) in told[0] or not Path("/proc/locks").exists() or "unknown" in told[0]


def test_read_only_store_is_used_when_it_has_every_task(tmp_path):
    lab, mine = tmp_path / "lab", tmp_path / "mine"
    write(Store(lab).stage("tokens.de", "00ff"), "a")
    store = Store(mine, reuse=(lab,))
    assert store.stage("tokens.de", "00ff", ["a"]).read_only
    assert not store.stage("tokens.de", "00ff", ["a", "b"]).read_only


def test_checksum_is_read_again_only_when_size_or_time_changed(tmp_path):
    shard = tmp_path / "x.jsonl"
    shard.write_text("{}")
    memory = tmp_path / "inputs.json"
    known = InputChecksums(memory)
    first = known.of(shard)
    known.save()
    assert first == checksum(shard)
    poisoned = json.loads(memory.read_text())
    poisoned[str(shard)][2] = "remembered"
    memory.write_text(json.dumps(poisoned))
    assert InputChecksums(memory).of(shard) == "remembered"
    assert InputChecksums(memory, verify=True).of(shard) == first
    shard.write_text("{ }")
    assert InputChecksums(memory).of(shard) == checksum(shard) != first


def test_commit_on_a_full_disk_leaves_no_record(tmp_path):
    """A write limit stands in for a full disk: the error names it, and the task stays missing."""
    code = (
        "import resource, sys, signal; from pathlib import Path; from recipes.artifacts import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"output = Store(Path({str(tmp_path)!r})).stage('signals.de', '00ff').output('a')\n"
        "try:\n    output.path('.bin').write_bytes(bytes(5000)); output.commit({})\n"
        "except OSError as error:\n    output.abandon(); print(type(error).__name__)\n"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "OSError\n"
    folder = Store(Path(tmp_path)).stage("signals.de", "00ff")
    assert folder.missing(["a"]) == ["a"]
    assert [p.name for p in folder.path.iterdir()] == []


def test_model_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    """Each source names its language model: gigabytes that every plan of a run would read for each."""
    read = []
    monkeypatch.setattr("recipes.pipeline.checksum", lambda file: read.append(file) or checksum(file))
    model = tmp_path / "models" / "de.bin"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    first = [content_key(str(model)), content_key(str(model)), content_key(str(model.parent))]
    assert read == [model]
    model.write_bytes(b"other weights")
    second = [content_key(str(model)), content_key(str(model)), content_key(str(model.parent))]
    assert read == [model, model]
    assert first[0] == first[1] == checksum_of_bytes(tmp_path, b"weights") != second[0]
    assert first[2] != second[2]


def test_settings_beside_a_tokenizers_file_count_and_files_alone_keep_their_key(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    (tmp_path / "model.safetensors").write_text("whatever else lies there")
    options = TokenOptions(False, True, "", tokenizer=str(file))
    keys = [(tokenizer_key(str(file)), str(options_that_count(options)))]
    assert keys[0][0] == content_key(str(file))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for eos in ("</s>", "<|im_end|>"):
            (tmp_path / name).write_text(json.dumps({"eos_token": eos}))
            keys.append((tokenizer_key(str(file)), str(options_that_count(options))))
    assert len({key for key, _ in keys}) == len({counted for _, counted in keys}) == 5
    assert tokenizer_key(str(tmp_path)) == content_key(str(tmp_path))


def checksum_of_bytes(folder, content):
    (folder / "same").write_bytes(content)
    return checksum(folder / "same")
