"""Weights for other trainers: each format read back as its trainer would."""

import ast
import json
import math
import shlex

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from recipes.ablation.trainers import TRAINERS, Share, TrainersError, row_probabilities, written_for
from recipes.tokenizing.tokens import _shares_of_file

SHARES = [Share("web/head", 0.7, 1000, 10, 0.5), Share("zh law", 0.3, 500, 50, 3.0)]


def yaml_of(trainer):
    """A format that is YAML, read."""
    return YAML(typ="safe").load(written_for(trainer, SHARES, "/data/tokens/"))


def floats_in(text):
    """The numbers with a point that a piece of Python holds."""
    return [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, float)
    ]


def test_megatron_line_is_weight_and_prefix_in_turn():
    words = shlex.split(written_for("megatron", SHARES, "/data/tokens/"))
    assert words == ["--data-path", "0.7", "/data/tokens/web.head", "0.3", words[4]]
    assert words[4].startswith("/data/tokens/zh")


def test_nanotron_stage_has_a_weight_for_each_folder():
    dataset = yaml_of("nanotron")[0]["data"]["dataset"]
    assert dataset["dataset_weights"] == [0.7, 0.3]
    assert dataset["dataset_folder"][0] == "/data/tokens/web.head"


def test_olmo_core_list_sums_to_one_and_allows_the_passes_that_the_schedule_makes():
    sources = yaml_of("olmo-core")["sources"]
    assert sum(source["target_ratio"] for source in sources) == pytest.approx(1.0)
    assert "max_repetition_ratio" not in sources[0]
    assert sources[1]["max_repetition_ratio"] >= 3.0


def test_llm_foundry_streams_have_proportions():
    assert yaml_of("llm-foundry")["dataset"]["streams"]["zh law"]["proportion"] == 0.3


@pytest.mark.parametrize("trainer", ["tinyllama", "litdata", "huggingface"])
def test_python_of_a_trainer_parses_and_holds_two_numbers(trainer):
    assert sum(floats_in(written_for(trainer, SHARES, "/data/tokens"))) == pytest.approx(1.0, abs=1e-5)


def test_huggingface_draws_rows_so_that_tokens_come_out():
    rows = row_probabilities(SHARES)
    # web has 100 tokens a document, law 10: per 1000 tokens 7 web rows against 30.
    assert rows["web/head"] / rows["zh law"] == pytest.approx(7 / 30)
    with pytest.raises(TrainersError, match="empty"):
        row_probabilities([Share("empty", 1.0, 10, 0)])


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [1 / 7] * 7, [0.6, 0.39991, 0.00009], [1 - 3e-11, 3e-11]])
def test_rounded_numbers_are_taken_by_their_readers(weights, tmp_path):
    shares = [Share(f"d{k}", weight, 10_000, 100 + k) for k, weight in enumerate(weights)]
    (tmp_path / "w.json").write_text(written_for("json", shares, "tokens"))
    read = _shares_of_file(tmp_path / "w.json")
    assert list(read.values()) == pytest.approx(weights, rel=1e-2, abs=1e-6)
    chances = floats_in(written_for("huggingface", shares, "tokens"))
    assert abs(math.fsum(chances) - 1) < 1e-9
    assert len(np.random.default_rng(0).choice(len(chances), size=5, p=chances)) == 5  # as datasets draws


@given(st.lists(st.integers(1, 9999), min_size=1, max_size=6), st.data())
def test_row_probabilities_give_back_the_shares_of_tokens(parts, data):
    total = sum(parts)
    lengths = [data.draw(st.integers(1, 5000)) for _ in parts]
    shares = [
        Share(str(k), part / total, 10 * size, 10) for k, (part, size) in enumerate(zip(parts, lengths, strict=True))
    ]
    rows = row_probabilities(shares)
    tokens = {share.domain: rows[share.domain] * share.num_tokens / share.num_documents for share in shares}
    whole = sum(tokens.values())
    for share in shares:
        assert tokens[share.domain] / whole == pytest.approx(share.weight)


def test_every_trainer_of_the_command_is_there(gristmill_here, copy_of_finished):
    from recipes.cli.weights import _TRAINERS

    assert set(_TRAINERS) == set(TRAINERS)
    recipe = copy_of_finished.recipe
    shown = json.loads(gristmill_here("weights", recipe, "--json").out)
    assert sum(shown["weights"].values()) == pytest.approx(1.0)
    said = gristmill_here("weights", recipe, "--to", "nanotron", "--tokens", "t")
    stage = YAML(typ="safe").load(said.out)
    assert len(stage[0]["data"]["dataset"]["dataset_weights"]) == sum(
        weight > 0 for weight in shown["weights"].values()
    )
    refused = gristmill_here("weights", recipe, "--phase", "nowhere", code=None)
    assert "no phase nowhere" in refused.err
