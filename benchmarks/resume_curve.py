"""A training killed at three moments and continued, its curve laid over that of one which nobody killed.

    python -m benchmarks.resume_curve --folder DIR [--csv FILE] [--plot FILE]

Two runs of one recipe on real text (GRISTMILL_TEST_DATA) in two work directories: one goes through, the other gets
SIGKILL at three train steps, each between two checkpoints, and is called again. Written are the losses of both by
train step, and their picture. Exit 1 where a loss, a gradient norm, a held-out loss or a line that was trained twice
differs by one bit. Some two minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
from markupsafe import Markup

from benchmarks.end_to_end import ROOT, command, environment
from recipes.report.curves import Curve, curves_over
from recipes.report.markup import Figure
from recipes.report.standalone import svg_of

KILLED_AT = (27, 68, 95)
NUM_STEPS, EVERY = 120, 20
TEXT_BYTES = 1_500_000
COMPARED = ("tokens", "loss", "gradient_norm", "learning_rate", "loss/kids", "loss/qa")
RECIPE = f"""# written by benchmarks.resume_curve
sources:
  kids: {{path: ../de_kids.jsonl, language: de}}
  qa: {{path: ../en_qa.jsonl, language: en}}
domains: {{held_out: {{tokens: 4K, share: 0.02}}, max_epochs: 10}}
tokenizer: {{algorithm: byte_bpe, vocabulary: 2000}}
schedule: [{{name: main, tokens: {NUM_STEPS} train steps, weights: natural}}]
model: {{preset: llama_1m, context: 128}}
training: {{batch: 8 sequences, precision: fp32, learning_rate: {{peak: 3e-3, warmup: 10 train steps}}}}
checkpoints: {{every: {EVERY} train steps, early: false}}
evaluation: {{every: 40 train steps}}
execution:
  {{workdir: work, workers: 1, log_every: 1 train steps, training: {{devices: 1, micro_batch: 8, preflight: "off"}}}}
"""


def write_text(folder: Path) -> None:
    """The beginning of two real sources as JSONL."""
    data = Path(os.environ["GRISTMILL_TEST_DATA"]) / "text"
    for name in ("de_kids", "en_qa"):
        rows, size = [], 0
        for row in pq.read_table(data / f"{name}.parquet", columns=["id", "text"]).to_pylist():
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
            size += len(row["text"].encode())
            if size > TEXT_BYTES:
                break
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")


def prepare(folder: Path) -> tuple[Path, Path]:
    """Two recipes, each with its plan in a work directory of its own."""
    write_text(folder)
    places = folder / "whole", folder / "killed"
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "curve.yaml").write_text(RECIPE, encoding="utf-8")
    call(places[0], "run", "--until", "plan")
    shutil.copytree(places[0] / "work", places[1] / "work")
    return places


def call(place: Path, verb: str, *more: str) -> None:
    """Run a verb to its end."""
    done = subprocess.run(command(verb, place / "curve.yaml", *more), env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{verb}: exit code {done.returncode}\n{done.stderr}")


def rows_of(place: Path, table: str = "metrics") -> list[dict[str, str]]:
    """The lines of a training's log; a last one that is half written does not count."""
    for path in place.glob(f"work/training-*/runs/curve/{table}.csv"):
        return list(csv.DictReader(path.read_text().rpartition("\n")[0].splitlines()))
    return []


def train_until(place: Path, step: int) -> list[dict[str, str]]:
    """Train, and kill the command with SIGKILL once it has logged a train step; the lines that it left.

    Its process dies with it: the kernel sees to that.
    """
    with subprocess.Popen(
        command("train", place / "curve.yaml"), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        while int((rows_of(place) or [{"step": "0"}])[-1]["step"]) < step:
            if running.poll() is not None:
                raise SystemExit(f"the training ended by itself before train step {step}")
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
    return rows_of(place)


def kill_and_continue(place: Path) -> tuple[list[tuple[int, int]], list[dict[str, str]]]:
    """Kill a training three times and finish it; (killed behind, continued from) each time, and all lines it left."""
    stops, left = [], []
    for step in KILLED_AT:
        rows = train_until(place, step)
        left += rows
        saved = [
            int(path.parent.name.split("-")[1]) for path in place.glob("work/training-*/checkpoints/*/manifest.json")
        ]
        stops.append((int(rows[-1]["step"]), max(saved)))
    call(place, "train")
    return stops, left


def num_differing(whole: list[dict[str, str]], others: list[dict[str, str]]) -> int:
    """Values of lines that are not those of the whole run's line of the same train step, digit by digit."""
    own = {row["step"]: row for row in whole}
    return sum(row[name] != own[row["step"]][name] for row in others for name in COMPARED)


def write_table(
    whole: list[dict[str, str]], killed: list[dict[str, str]], stops: list[tuple[int, int]], path: Path
) -> None:
    """Both losses by train step; where it was killed behind one, the step of the checkpoint that it went on from."""
    came = dict(stops)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "tokens", "loss", "loss_killed", "difference", "killed_and_continued_from"])
        for one, two in zip(whole, killed, strict=True):
            apart = float(two["loss"]) - float(one["loss"])
            continued = came.get(int(one["step"]), "")
            writer.writerow([one["step"], one["tokens"], one["loss"], two["loss"], apart, continued])


def picture_of(
    whole: list[dict[str, str]], killed: list[dict[str, str]], stops: list[tuple[int, int]], csv_path: Path
) -> str:
    """Both curves over train steps, and below them their difference."""
    curves = [
        Curve(name, tuple((float(row["step"]), float(row["loss"])) for row in rows), colour, thin=thin)
        for name, rows, colour, thin in (("never killed", whole, "k0", False), ("killed", killed, "k1", True))
    ]
    apart = tuple(
        (float(one["step"]), float(two["loss"]) - float(one["loss"])) for one, two in zip(whole, killed, strict=True)
    )
    borders = [(float(step), f"killed at {step}, from {saved}") for step, saved in stops]
    upper = curves_over(curves, "training loss of both runs", ("Train step", "Training loss (nats a token)"), borders)
    axes = ("Train step", "Difference (nats a token)")
    lower = curves_over([Curve("difference", apart, "k1")], "difference of both losses", axes, height=170.0)
    title = "A training killed three times lies on the one that was not"
    reading = "The curves are laid over each other; the difference below is drawn on its own scale."
    return svg_of(Figure("resume", title, reading, Markup(upper + lower), f"see {csv_path.name}"))


def main() -> int:
    """Train both, write table and picture; 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for text and both runs")
    parser.add_argument("--csv", type=Path, default=ROOT / "docs" / "experiments" / "resume_curve.csv")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "experiments" / "resume_curve.svg")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    place, other = prepare(options.folder)
    call(place, "train")
    stops, left = kill_and_continue(other)
    whole, killed = rows_of(place), rows_of(other)
    differing = num_differing(whole, [*left, *killed])
    held_out = zip(rows_of(place, "held_out"), rows_of(other, "held_out"), strict=True)
    differing += sum(one != two for one, two in held_out)
    write_table(whole, killed, stops, options.csv)
    options.plot.write_text(picture_of(whole, killed, stops, options.csv), encoding="utf-8")
    told = ", ".join(f"{step} (from {saved})" for step, saved in stops)
    print(f"{len(whole)} train steps, killed behind {told}; {differing} values differ")
    return int(differing > 0 or len(whole) != NUM_STEPS)


if __name__ == "__main__":
    sys.exit(main())
