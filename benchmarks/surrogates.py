"""How well surrogates rank mixtures that they have not seen, on RegMix's public tables.

    python -m benchmarks.surrogates [--quick] [--json] [--tables FOLDER]

512 training and 256 held-out runs of 1M-parameter models on 17 Pile domains, 13 losses. From random subsets of 48 and
96 training runs a surrogate is chosen by cross-validation inside the subset, and the 256 held-out runs are ranked by
each loss: the mean Spearman correlation over losses and subsets. RegMix's own number is repeated by its protocol, which
stops LightGBM early on the test runs and takes weights as they are in the files, not quite summing to 1. `--quick`
takes two subsets instead of ten and 128 runs in place of 512.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mixing.ablation.objective import Objective
from mixing.ablation.read_runs import read_two
from mixing.ablation.runs import RunsTable
from mixing.ablation.surrogates import COMBINATION, FITS, all_rows, combined
from mixing.ablation.validation import choose, rank_correlation, scores, validate

SIZES = (48, 96)


def read_tables(folder: Path) -> tuple[RunsTable, RunsTable]:
    """Training and held-out runs."""
    train, test = (
        read_two(folder / f"{part}_mixture_1m.csv", folder / f"{part}_pile_loss_1m.csv") for part in ("train", "test")
    )
    return train, test


def even_objective(runs: RunsTable) -> Objective:
    """Every loss alike, against the mean run: what chooses the surrogate."""
    num_targets = len(runs.targets)
    return Objective("shares", runs.targets, np.full(num_targets, 1 / num_targets), runs.losses.mean(0))


def mean_rank_correlation(predicted_NT: np.ndarray, losses_NT: np.ndarray) -> float:
    """Mean over losses of Spearman's correlation."""
    ranks = [rank_correlation(predicted_NT[:, t], losses_NT[:, t]) for t in range(losses_NT.shape[1])]
    return float(np.mean([rank or 0.0 for rank in ranks]))


def one_subset(train: RunsTable, test: RunsTable, size: int, seed: int) -> tuple[str, dict[str, float]]:
    """The surrogate chosen inside a random subset of runs, and every surrogate's correlation on the held-out runs."""
    picked = np.random.default_rng(seed).choice(train.num_runs, size, replace=False)
    runs = train.rows(picked)
    objective = even_objective(runs)
    held_out = validate(list(FITS), runs.weights, runs.losses, objective, 1, seed)
    fits = {name: fit(runs.weights, runs.losses, all_rows(runs.losses)) for name, fit in FITS.items()}
    fits[COMBINATION] = combined(fits, held_out.shares)
    chosen = choose(held_out.predictions, runs.losses, objective)
    return chosen, {name: mean_rank_correlation(fit(test.weights)[0], test.losses) for name, fit in fits.items()}


def weights_as_written(folder: Path, part: str) -> np.ndarray:
    """The mixtures of a file, not normalised."""
    return np.genfromtxt(folder / f"{part}_mixture_1m.csv", delimiter=",", skip_header=1)[:, 1:]


def regmix_protocol(folder: Path, target: str) -> float:
    """RegMix's LightGBM on one loss, stopped early on the test runs as in its notebook: rank correlation there."""
    import lightgbm

    train, test = read_tables(folder)
    column = train.targets.index(target)
    held_out_ND = weights_as_written(folder, "test")
    model = lightgbm.LGBMRegressor(
        objective="regression",
        metric=["l1", "l2"],
        num_iterations=1000,
        learning_rate=0.01,
        seed=42,
        verbosity=-1,
        num_threads=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(
            weights_as_written(folder, "train"),
            train.losses[:, column],
            eval_set=[(held_out_ND, test.losses[:, column])],
            eval_metric="l2",
            callbacks=[lightgbm.early_stopping(3, verbose=False)],
        )
        predicted_N = np.asarray(model.predict(held_out_ND))
    return float(rank_correlation(predicted_N, test.losses[:, column]) or 0.0)


def fold_report(runs: RunsTable) -> float:
    """Seconds for all fits and the cross-validated report of all surrogates on all losses."""
    start = time.perf_counter()
    objective = even_objective(runs)
    held_out = validate(list(FITS), runs.weights, runs.losses, objective, 1, 0)
    for fit in FITS.values():
        fit(runs.weights, runs.losses, all_rows(runs.losses))
    for predictions in held_out.predictions.values():
        scores(predictions, runs.losses, objective)
    return time.perf_counter() - start


def measure(tables: Path, quick: bool) -> dict[str, object]:
    """All numbers."""
    train, test = read_tables(tables)
    seeds = range(2 if quick else 10)
    measured: dict[str, object] = {}
    with ProcessPoolExecutor(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) as pool:
        for size in SIZES:
            subsets = [pool.submit(one_subset, train, test, size, seed) for seed in seeds]
            results = [subset.result() for subset in subsets]
            chosen = [correlations[name] for name, correlations in results]
            measured[f"chosen_{size}"] = round(float(np.mean(chosen)), 4)
            measured[f"chosen_{size}_least"] = round(min(chosen), 4)
            measured[f"names_{size}"] = dict(Counter(name for name, _ in results))
            for name in (*FITS, COMBINATION):
                if name != "constant":
                    measured[f"{name}_{size}"] = round(float(np.mean([one[name] for _, one in results])), 4)
    measured["regmix_lightgbm_pile_cc"] = round(100 * regmix_protocol(tables, "pile_cc"), 2)
    measured["report_seconds"] = round(fold_report(train.rows(np.arange(128)) if quick else train), 1)
    return measured


def main() -> None:
    """Print the numbers, as JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tables", type=Path, default=None)
    arguments = parser.parse_args()
    shared = os.environ.get("GRISTMILL_TEST_DATA")
    tables = arguments.tables or (Path(shared) / "regmix" if shared else None)
    if tables is None or not tables.is_dir():
        parser.error("RegMix's tables are not here: give --tables FOLDER or set GRISTMILL_TEST_DATA")
    measured = measure(tables, arguments.quick)
    if arguments.json:
        print(json.dumps(measured))
    else:
        for name, value in measured.items():
            print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
