"""RegMix's public tables: subsets of runs rank the held-out runs as well as published."""

import os
from pathlib import Path

import numpy as np
import pytest

from mixing.ablation.read_runs import read_two
from mixing.ablation.surrogates import FITS, all_rows
from mixing.ablation.validation import rank_correlation

TABLES = Path(os.environ.get("GRISTMILL_TEST_DATA", "/nowhere")) / "regmix"
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not TABLES.is_dir(), reason="GRISTMILL_TEST_DATA names no folder with regmix/"),
]


def test_exponential_sqrt_of_96_regmix_runs_ranks_the_held_out_runs():
    train, test = (
        read_two(TABLES / f"{part}_mixture_1m.csv", TABLES / f"{part}_pile_loss_1m.csv") for part in ("train", "test")
    )
    ranks = []
    for seed in range(3):
        runs = train.rows(np.random.default_rng(seed).choice(512, 96, replace=False))
        predicted = FITS["exponential_sqrt"](runs.weights, runs.losses, all_rows(runs.losses))(test.weights)[0]
        ranks.append(np.mean([rank_correlation(predicted[:, t], test.losses[:, t]) for t in range(13)]))
    assert np.mean(ranks) >= 0.983
