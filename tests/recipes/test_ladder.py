"""The table that laws are fitted to, from the runs of a ladder."""

import json

import numpy as np
import pytest

from recipes.ablation.scaling import table_of_runs


@pytest.fixture
def ladder(tmp_path):
    """Runs of a ladder as files: (name, operations, path) of each."""

    def made(losses_of, diverged=()):
        runs = []
        for number in range(5):
            size, tokens = 10**6 * 3**number, 2 * 10**7 * 3**number
            held_out = [{"step": 1, "tokens": tokens, "losses": losses_of(number), "bits_per_byte": {}}]
            row = {
                "name": f"r{number}", "num_parameters": size, "num_tokens": tokens, "held_out": held_out,
                "diverged_at": 3 if number in diverged else None,
            }  # fmt: skip
            path = tmp_path / f"r{number}.run.json"
            path.write_text(json.dumps(row))
            runs.append((f"r{number}", 6.0 * size * tokens, str(path)))
        return tuple(runs)

    return made


def test_loss_of_a_rung_is_the_mean_over_what_every_rung_measured(ladder):
    table = table_of_runs(ladder(lambda number: {"a": 4.0 - number / 2, "b": 1.0} | ({"c": 9.0} if number else {})))
    np.testing.assert_allclose(table.losses, np.sqrt([4.0, 3.5, 3.0, 2.5, 2.0]))


def test_diverged_rung_takes_nothing_from_the_others(ladder):
    table = table_of_runs(ladder(lambda number: {"a": 4.0 - number / 2}, diverged=(2,)))
    assert table.names == ("r0", "r1", "r3", "r4")
    assert "1 runs without size, tokens or loss were left out: r2." in table.notes
