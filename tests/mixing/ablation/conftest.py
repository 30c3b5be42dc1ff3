"""Swarms whose truth is known: losses follow c + exp(b + T . sqrt(w)), plus noise by seed."""

from __future__ import annotations

import numpy as np
import pytest

from mixing.ablation.design import DesignOptions, design
from mixing.ablation.runs import table_of

NAMES = ("books", "code", "forum", "law")
NATURAL = {"books": 0.1, "code": 0.05, "forum": 0.6, "law": 0.25}
SLOPES = np.array([[-2.0, 0, -0.3, 0], [0, -2.0, -0.2, 0], [-0.3, 0, -1.5, -0.2], [0, 0, -0.3, -1.8]])


def true_losses(weights):
    """Losses of a mixture by name, nats."""
    roots = np.sqrt([weights.get(name, 0.0) for name in NAMES])
    return dict(zip(NAMES, 2.0 + np.exp(0.7 + SLOPES @ roots), strict=True))


def flat_losses(weights):
    """Losses on which the mixture has no influence."""
    return dict.fromkeys(NAMES, 3.0)


def rows_of(runs, losses_of=true_losses, noise=0.003):
    """Run files' rows for planned runs: noise by name, so that equal runs are equal."""
    rows = []
    for run in runs:
        chance = np.random.default_rng(list(run.name.encode()))
        losses = {name: loss + noise * chance.standard_normal() for name, loss in losses_of(run.weights).items()}
        early = {name: loss + 1 for name, loss in losses.items()}
        rows.append(
            {
                "name": run.name,
                "weights": run.weights,
                "seed": run.seed,
                "held_out": [
                    {"step": 1, "tokens": 500, "losses": early, "bits_per_byte": {}},
                    {"step": 2, "tokens": 1000, "losses": losses, "bits_per_byte": dict.fromkeys(losses, 1.0)},
                ],
                "diverged_at": None,
                "num_parameters": 15_000_000,
                "num_tokens": 1000,
            }
        )
    return rows


@pytest.fixture(scope="session")
def make_table():
    """A table of a swarm: `make_table(dirichlet=24, …)`."""

    def make(losses_of=true_losses, noise=0.003, **numbers):
        runs = design(NAMES, NATURAL, DesignOptions(**numbers))
        return table_of(rows_of(runs, losses_of, noise), {run.name: run.kind for run in runs})

    return make


@pytest.fixture(scope="session")
def natural():
    """Natural weights of the made swarms."""
    return dict(NATURAL)


@pytest.fixture(scope="session")
def truth():
    """The true objective of a mixture: mean log loss against natural weights."""

    def objective(weights):
        at_natural, here = true_losses(NATURAL), true_losses(weights)
        return float(np.mean([np.log(here[name] / at_natural[name]) for name in NAMES]))

    return objective


@pytest.fixture(scope="session")
def make_rows():
    """Rows of planned runs."""
    return rows_of


@pytest.fixture(scope="session")
def flat():
    """Losses that no mixture moves."""
    return flat_losses
