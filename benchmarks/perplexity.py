"""Speed of perplexity, each as a ratio to the packages' own functions in the same run, and distance from lmplz.

    python -m benchmarks.perplexity [--quick] [--json]

German text of `$GRISTMILL_TEST_DATA` (else English documentation that comes with Python), one thread, processor time,
best of interleaved rounds. A 5-gram over a SentencePiece unigram model is trained on some sources and scores others.

* `raw_mb_s`: the limit through the packages: SentencePiece's pieces, joined, scored by kenlm; the text is normalised.
* `score_vs_raw`: CCNet's scoring of raw text through kenlm, over that limit; `kernel_vs_raw`: through our own kernel,
  which starts each round without the words it remembers.
* `score_vs_datatrove`, `kernel_vs_datatrove`: the same over datatrove's `KenlmModel` on the same models.
* `kernel_vs_kenlm_difference`: largest relative difference of the perplexities of kernel and kenlm on the same pieces.
* `lmplz_max_abs_difference`: largest difference of log10 probabilities and backoffs from the ARPA files of lmplz.
* `train_mb_s`, `train_peak_mib` (new peak of the process with mapped files, given 2 GiB); `train_cpu_vs_lmplz` and
  `train_seconds_vs_lmplz`: our training and ARPA text over lmplz on one core, which is given the pieces (null unless
  lmplz is on the PATH).
* `model_mib`, `model_pss_mib_1_worker`, `model_pss_mib_2_workers`: the model's arrays, and the memory that processes
  which score at once hold of them together (each page by its share): the same for any number of workers.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import pydoc_data.topics
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.perplexity import kneser_ney, normalize
from curation.perplexity.arpa import export_arpa, lmplz_path
from curation.perplexity.model import open_model, read_vocabulary
from curation.perplexity.pieces import WordPieces
from curation.perplexity.score import load_scorer
from curation.perplexity.training import Training, token_stream, train_model

DATA = os.environ.get("GRISTMILL_TEST_DATA")


def documents(names: tuple[str, ...], megabytes: float) -> pa.Array:
    """Documents of shared sources by turns until there are so many megabytes, or of Python's documentation."""
    if not DATA:
        topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
        return pa.array(topics * max(1, round(megabytes)), pa.large_string())
    columns = [pq.read_table(Path(DATA) / "text" / f"{name}.parquet").column("text").to_pylist() for name in names]
    chosen, size = [], 0.0
    for row in zip(*columns, strict=False):
        chosen += row
        size += sum(len(text.encode()) for text in row) / 1e6
        if size > megabytes:
            break
    return pa.array(chosen, pa.large_string())


def seconds(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def score_speeds(folder: Path, texts: pa.Array, rounds: int) -> dict:
    import kenlm
    import sentencepiece
    from datatrove.utils.perplexity import KenlmModel

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    judge = kenlm.Model(str(folder / "model.arpa"))
    normalized, plain = normalize.ccnet(texts).to_pylist(), texts.to_pylist()
    peer = KenlmModel("local", "de")
    peer._model, peer._tokenizer = (
        judge,
        type("Local", (), {"tokenize": lambda _, t: " ".join(pieces.encode_as_pieces(t))})(),
    )
    own, foreign = load_scorer(folder), load_scorer(folder / "model.arpa", folder / "pieces.model")
    # as at the start of a task: words met in an earlier round are not looked up
    forget = own.open().pieces._kernel.forget
    runs = {
        "raw": lambda: [judge.score(" ".join(pieces.encode_as_pieces(text))) for text in normalized],
        "score": lambda: foreign.score(texts),
        "kernel": lambda: (forget(), own.score(texts)),
        "normalize": lambda: normalize.ccnet(texts),
        "datatrove": lambda: [peer.get_perplexity(text) for text in plain],
    }
    times = {name: [] for name in runs}
    for at in range(rounds + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if at:  # the first round compiles and fills caches
                times[name].append(spent)
    size = sum(len(text.encode()) for text in plain) / 1e6
    speed = {name: size / min(spent) for name, spent in times.items()}
    names = pieces.id_to_piece
    encoded = own.open().pieces.encode(normalize.ccnet(texts))
    parts = [" ".join(map(names, ids.tolist())) for ids in np.split(encoded.ids, encoded.offsets[1:-1])]
    expected = np.array([10 ** (-judge.score(line) / (len(line.split()) + 1)) for line in parts])
    lines = own.score_lines(texts)
    found = 10 ** (-lines.log10_probability / lines.num_tokens)
    return {
        "raw_mb_s": speed["raw"],
        "score_mb_s": speed["score"],
        "kernel_mb_s": speed["kernel"],
        "normalize_mb_s": speed["normalize"],
        "datatrove_mb_s": speed["datatrove"],
        "score_vs_raw": speed["score"] / speed["raw"],
        "kernel_vs_raw": speed["kernel"] / speed["raw"],
        "score_vs_datatrove": speed["score"] / speed["datatrove"],
        "kernel_vs_datatrove": speed["kernel"] / speed["datatrove"],
        "kernel_vs_kenlm_difference": float(np.max(np.abs(found / expected - 1))),
    }


def read_arpa(stream) -> dict:
    found, n = {}, 0
    for line in stream.read().split("\n"):
        if line.startswith("\\"):
            n = int(line[1]) if line[1].isdigit() else 0
        elif n and line:
            probability, gram, *backoff = line.split("\t")
            found[gram] = (float(probability), float(backoff[0]) if backoff else 0.0)
    return found


def lmplz_difference() -> float | None:
    """Largest difference from all ARPA files of the oracle; None without the shared data."""
    if not DATA:
        return None
    oracle, worst = Path(DATA) / "kenlm_oracle", 0.0
    for language in ("de", "zh"):
        lines = pa.array((oracle / f"{language}.train.txt").read_text("utf-8").split("\n")[:-1], pa.large_string())
        for name, order, prune in (("3", 3, ()), ("5", 5, ()), ("4.pruned", 4, (0, 0, 1, 2))):
            with tempfile.TemporaryDirectory() as folder:
                stream = token_stream(WordPieces())
                options = kneser_ney.Options(order, prune)
                kneser_ney.train((stream.sentences(a) for a in (lines,)), stream, options, Path(folder))
                export_arpa(Path(folder), Path(folder) / "own.arpa")
                with (Path(folder) / "own.arpa").open(encoding="utf-8") as own:
                    ours = read_arpa(own)
            with gzip.open(oracle / f"{language}.{name}.arpa.gz", "rt", encoding="utf-8", newline="\n") as theirs:
                expected = read_arpa(theirs)
            assert ours.keys() == expected.keys()
            worst = max(worst, *(abs(x - y) for gram in expected for x, y in zip(ours[gram], expected[gram])))
    return worst


def lmplz_seconds(folder: Path, texts: pa.Array) -> tuple[float, float] | None:
    """Wall and processor time of lmplz on the same pieces, and nothing but it; None where it is not installed."""
    program = lmplz_path()
    if program is None:
        return None
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    lines = "\n".join(" ".join(pieces.encode_as_pieces(line)) for line in normalize.ccnet(texts).to_pylist())
    command = [
        program,
        "-o",
        "5",
        "--discount_fallback",
        "--skip_symbols",
        "-S",
        "2G",
        "--arpa",
        str(folder / "lmplz.arpa"),
    ]
    core = {min(os.sched_getaffinity(0))}
    start, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, input=lines.encode(), check=True, capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )  # fmt: skip
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime


def mapped_mib(folder: str, texts: pa.Array, meet, found) -> None:
    """Score, wait until all have scored, and tell the share of memory this process holds of a folder's files."""
    scorer = load_scorer(folder)  # held, since its arrays are unmapped with it
    scorer.score(texts)
    meet.wait()
    held = 0
    for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
        if folder in part.split("\n", 1)[0]:
            held += int(re.search(r"^Pss: +(\d+) kB", part, re.M)[1])
    found.put(held / 1024)
    meet.wait()


def shared_mib(folder: Path, texts: pa.Array, workers: int) -> float:
    """Memory of a model's files that so many scoring processes hold together."""
    spawn = multiprocessing.get_context("spawn")
    meet, found = spawn.Barrier(workers), spawn.Queue()
    running = [spawn.Process(target=mapped_mib, args=(str(folder), texts, meet, found)) for _ in range(workers)]
    for process in running:
        process.start()
    held = sum(found.get(timeout=300) for _ in running)
    for process in running:
        process.join()
    return held


def run(quick: bool) -> dict:
    train_mb, score_mb, rounds = (4, 2, 3) if quick else (100, 8, 5)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        train_texts = documents(("de_wiki", "de_books", "de_law"), train_mb)
        small = train_texts.slice(0, max(10, len(train_texts) // (10 if quick else 40)))
        train_model([small], Training(order=5, pieces=16_000, scoring="ccnet", arpa=True), folder / "small")
        size = sum(len(text.encode()) for text in train_texts.to_pylist()) / 1e6
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, spent = time.monotonic(), time.process_time()
        options = Training(order=5, pieces=str(folder / "small" / "pieces.model"), scoring="ccnet")
        card = train_model([train_texts.slice(i, 500) for i in range(0, len(train_texts), 500)], options, folder / "m")
        wall, spent = time.monotonic() - start, time.process_time() - spent
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        start, exported = time.monotonic(), time.process_time()
        export_arpa(folder / "m", folder / "m" / "model.arpa")
        export_wall, exported = time.monotonic() - start, time.process_time() - exported
        theirs = lmplz_seconds(folder / "m", train_texts)
        assert open_model(folder / "m").order == 5
        assert read_vocabulary(folder / "m")[0] == "<unk>"
        return {
            "train_mb": size,
            "train_ngrams": sum(card["ngrams"]),
            "train_cpu_s": spent,
            "train_wall_s": wall,
            "train_mb_s": size / spent,
            "train_peak_mib": peak,
            "train_seconds_vs_lmplz": None if theirs is None else (wall + export_wall) / theirs[0],
            "train_cpu_vs_lmplz": None if theirs is None else (spent + exported) / theirs[1],
            "model_mib": sum(path.stat().st_size for path in (folder / "m").glob("*.bin")) / 2**20,
            **{
                f"model_pss_mib_{number}_worker{'s' * (number > 1)}": shared_mib(
                    folder / "m", train_texts.slice(0, 200), number
                )
                for number in (1, 2)
            },
            "lmplz_max_abs_difference": lmplz_difference(),
            **score_speeds(folder / "m", documents(("de_kids", "de_tech", "de_books"), score_mb), rounds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some seconds instead of some minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = run(arguments.quick)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26s} {value if value is None or isinstance(value, int) else f'{value:.6g}'}")


if __name__ == "__main__":
    main()
