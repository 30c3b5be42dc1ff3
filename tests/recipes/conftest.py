"""Runs of the command line, for the tests of whole runs: small texts, a small recipe, one finished run for all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipes.cli.main import main
from recipes.texts.made_text import made_lines

ROOT = Path(__file__).resolve().parents[2]
SMALL_RECIPE = """
seed: 1
sources:
  de: {path: "de/*.jsonl", language: de, licence: CC0-1.0}
  en: {path: "en/*.jsonl", language: en, licence: CC0-1.0}
  code: {path: "code/*.jsonl", language: code}
steps:
  - language: {min_score: 0.5}
  - rules: {preset: gopher, sources: [de, en]}
  - perplexity: {preset: sound, sources: [de], model: {train_on: [de], order: 3}, pieces: {unigram: 400}}
  - dedup: {preset: minhash, keep: [longest]}
domains:
  split: {de: bucket}
  held_out: {tokens: 4K, share: 0.05}
  max_epochs: 20
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
schedule:
  - {name: main, tokens: 32K, weights: natural}
  - {name: cooldown, tokens: 8K, ramp: 4K, weights: {"*": 1}}
model: {preset: llama_tiny, context: 64}
training: {batch: 16 sequences}
"""
# Files of a work directory that tell of a run, not of its result.
_TELLING_NAMES = {
    "run.json", ".run.lock", ".workers.lock", "inputs.json",
    "status.json", "training.spec.json", "ended.json", "preflight.json",
}  # fmt: skip
_TELLING_FOLDERS = {"logs", "runs"}
_TIMES = {"elapsed_s", "tokens_per_s", "seconds", "time", "memory_gib", "mfu"}


@dataclass(frozen=True)
class Outcome:
    """What a command returned and said."""

    code: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command: this checkout's code, single-threaded, lines that are not wrapped."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1", **threads, **changes}


def command_of(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "recipes.cli.main", *map(str, arguments)]


def gristmill_run(*arguments: object, code: int | None = 0, **options) -> Outcome:
    """Run a command to its end; `code` is the exit code that is wanted, None for any."""
    changes = options.pop("env", {})
    done = subprocess.run(
        command_of(*arguments), capture_output=True, text=True, timeout=600, env=environment(**changes), **options
    )
    assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Outcome(done.returncode, done.stdout, done.stderr)


def called_here(*arguments: object, code: int | None = 0) -> Outcome:
    """Call a command in this process, for what starts no workers."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["gristmill", *map(str, arguments)])
        patch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as stopped:
            main()
    said = Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())
    assert code is None or said.code == code, f"exit code {said.code}\n{said.out}\n{said.err}"
    return said


def started_run(*arguments: object, **options) -> subprocess.Popen:
    """Start a command and return its process."""
    return subprocess.Popen(
        command_of(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), **options
    )


def contents_of(workdir: Path) -> dict[str, str]:
    """Hash of every file of a work directory that is a result, by its path; times in tables are left out."""
    found = {}
    for path in sorted(workdir.rglob("*")):
        parts = path.relative_to(workdir).parts
        if not path.is_file() or parts[0] in _TELLING_FOLDERS or path.name in _TELLING_NAMES or path.suffix == ".log":
            continue
        content = _without_times(path) if path.suffix == ".csv" else path.read_bytes()
        found["/".join(parts)] = hashlib.blake2b(content, digest_size=16).hexdigest()
    return found


def _without_times(path: Path) -> bytes:
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    return repr([{name: value for name, value in row.items() if name not in _TIMES} for row in rows]).encode()


def stages_of(workdir: Path) -> dict[str, int]:
    """Stage folders with the newest modification time among their artifacts (ns)."""
    found = {}
    for folder in sorted(workdir.iterdir()):
        if folder.is_dir() and folder.name not in _TELLING_FOLDERS:
            files = [path for path in folder.rglob("*") if path.is_file() and path.name not in _TELLING_NAMES]
            found[folder.name] = max((path.stat().st_mtime_ns for path in files), default=0)
    return found


def metrics_rows(log: Path) -> list[dict[str, str]]:
    """Rows of a training's metrics.csv without their speeds."""
    with (log / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "tokens_per_s"} for row in csv.DictReader(file)]


def write_corpus(raw: Path) -> None:
    """Made text: two shards of German and of English, one of program text."""
    for name, language, shards in (("de", "made_de", 2), ("en", "made_en", 2), ("code", "made_code", 1)):
        folder = raw / name
        folder.mkdir(parents=True)
        lines = list(made_lines(language, num_documents=90 * shards))
        for shard in range(shards):
            (folder / f"part-{shard}.jsonl").write_bytes(b"".join(lines[shard::shards]))


def write_small_recipe(folder: Path, raw: Path, workdir: Path, workers: int = 2, name: str = "small") -> Path:
    """The small recipe with its paths."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(
        f"{SMALL_RECIPE}execution: {{raw: {raw}, workdir: {workdir}, workers: {workers}}}\n", encoding="utf-8"
    )
    return path


@dataclass(frozen=True)
class Finished:
    """A run that was made without interruption."""

    recipe: Path
    raw: Path
    workdir: Path
    said: str


@pytest.fixture(scope="session")
def metrics_of():
    return metrics_rows


@pytest.fixture(scope="session")
def gristmill():
    return gristmill_run


@pytest.fixture(scope="session")
def gristmill_here():
    return called_here


@pytest.fixture(scope="session")
def start():
    return started_run


@pytest.fixture(scope="session")
def contents():
    return contents_of


@pytest.fixture(scope="session")
def stages():
    return stages_of


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Raw text that no test changes."""
    raw = tmp_path_factory.mktemp("corpus")
    write_corpus(raw)
    return raw


@pytest.fixture
def small(tmp_path, corpus):
    """Write the small recipe with a work directory of its own."""

    def written(raw: Path = corpus, workdir: Path = tmp_path / "work", workers: int = 1, **options) -> Path:
        return write_small_recipe(tmp_path, raw, workdir, workers, **options)

    return written


@pytest.fixture(scope="session")
def finished(tmp_path_factory, corpus):
    """The small recipe's run up to its plan, by two workers, never interrupted. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_small_recipe(folder, corpus, folder / "work")
    said = gristmill_run("run", recipe, "--until", "plan").err
    return Finished(recipe, corpus, folder / "work", said)


@pytest.fixture
def copy_of_finished(finished, tmp_path):
    """A work directory with all that the finished run made, and a recipe beside it."""
    subprocess.run(["cp", "-a", str(finished.workdir), str(tmp_path / "work")], check=True)
    recipe = write_small_recipe(tmp_path, finished.raw, tmp_path / "work", workers=1)
    return Finished(recipe, finished.raw, tmp_path / "work", finished.said)


@pytest.fixture(scope="session")
def write_byte_tokenizer():
    """Write a byte-level tokenizer with one special token into a folder."""

    def write(folder: Path) -> None:
        import tokenizers

        encoder = tokenizers.Tokenizer(tokenizers.models.BPE())
        encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        encoder.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        )
        encoder.train_from_iterator(["a b"], trainer)
        folder.mkdir(parents=True, exist_ok=True)
        encoder.save(str(folder / "tokenizer.json"))

    return write
