"""MindLLM's protocol: one pass over each domain, all scaled by one factor."""

import json
from dataclasses import replace

import pytest

from mixing.domain_stage import Domain
from recipes.ablation.one_pass import scale_of, written

DOMAIN = Domain("a", "a.index", "a.held", 1000, 10, 4000, 4000, 100, 400)


def test_factor_makes_the_mean_run_as_long_as_the_others_and_never_repeats():
    listed = [DOMAIN, replace(DOMAIN, name="b", num_tokens=3000)]
    factor = scale_of(listed, 500)
    assert factor == 0.25
    assert sum(domain.num_tokens * factor for domain in listed) / 2 == 500
    assert scale_of(listed, 10_000) == 1.0


def test_written_runs_are_the_mean_over_seeds_without_those_that_diverged(tmp_path):
    def row(name, loss, diverged=None):
        measured = [{"step": 1, "tokens": 50, "losses": {"a": loss + 1}, "bits_per_byte": {}},
                    {"step": 2, "tokens": 100, "losses": {"a": loss}, "bits_per_byte": {}}]  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({
            "name": name, "weights": {"a": 1.0}, "seed": 0, "held_out": measured, "diverged_at": diverged,
            "num_tokens": 100, "num_parameters": 1,
        }))  # fmt: skip
        return str(path)

    shown = written((("a", row("pass.a", 3.0)), ("a", row("pass.a.s1", 4.0)), ("a", row("pass.a.s2", 9.0, 2))))
    assert shown["a"]["losses"] == {"a": pytest.approx(3.5)}
    assert shown["a"]["tokens"] == 100
    assert shown["a"]["curve"] == {"tokens": [50, 100], "losses": {"a": [4.5, 3.5]}}  # ends at the mean above
