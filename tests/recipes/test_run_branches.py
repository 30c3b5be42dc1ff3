"""Runs that share a trunk: a longer one and another cooldown go on from its checkpoint, with its curve before them."""

import json

import pytest

pytest.importorskip("lightning")

RECIPE = """
sources: {a: {path: a.jsonl, language: en}, b: {path: b.jsonl, language: en}}
domains: {held_out: {tokens: 1K, share: 0.1}, max_epochs: 50}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
schedule: [{name: main, tokens: MAIN train steps, weights: natural}COOLDOWN]
model: {preset: llama_tiny, layers: 1, context: 32}
training: {batch: 7 sequences, learning_rate: {peak: 3e-3, warmup: 4 train steps, shape: wsd, decay: 8 train steps}}
checkpoints: {every: 50 train steps}
execution: {workdir: WORKDIR, workers: 1, log_every: 1 train steps, training: {devices: 1, preflight: "off"}}
"""


@pytest.fixture
def train(tmp_path, gristmill, metrics_of):
    """Train a recipe of this name in a work directory; returns what it said and its log without times."""
    for source, words in (("a", ("grain", "mill")), ("b", ("flour", "water"))):
        names = [f"{word}{number}" for word in words for number in range(80)]
        lines = [{"id": str(i), "text": " ".join(names[(i * k) % 160] for k in range(1, 90))} for i in range(1, 120)]
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def trained(name, workdir, main, cooldown=""):
        text = RECIPE.replace("MAIN", str(main)).replace("COOLDOWN", cooldown)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.replace("WORKDIR", str(tmp_path / workdir)))
        said = gristmill("train", path).err
        return said, metrics_of(next((tmp_path / workdir).glob(f"training-*/runs/{name}")))

    return trained


@pytest.mark.slow
def test_lengthened_run_goes_on_from_the_trunk_and_lies_on_the_uninterrupted_curve(train):
    """The trunk's decay begins after 16 of 24 train steps; there it left a checkpoint."""
    _, trunk = train("trunk", "shared", 24)
    said, longer = train("longer", "shared", 32)
    assert "continues from step-00000016" in said
    _, alone = train("longer", "alone", 32)
    assert longer == alone
    assert longer[:16] == trunk[:16]
    assert [row["learning_rate"] for row in longer[16:24]] != [row["learning_rate"] for row in trunk[16:]]


@pytest.mark.slow
def test_cooldown_on_another_mixture_goes_on_where_the_trunk_has_a_phase_border(train):
    """The end of a phase decides how its last order window is mixed: only a trunk that has it there too is the same."""
    cooldown = ", {name: cooldown, tokens: 8 train steps, weights: {a: 1, b: 0}}"
    _, alone = train("cooled", "alone", 16, cooldown)
    train("trunk", "shared", 24)
    said, cooled = train("cooled", "shared", 16, cooldown)
    assert "continues from step-00000016" not in said
    assert cooled == alone

    _, trunk = train("trunk", "bordered", 16, ", {name: more, tokens: 8 train steps, weights: natural}")
    said, cooled = train("cooled", "bordered", 16, cooldown)
    assert "continues from step-00000016" in said
    assert cooled == alone
    assert cooled[:16] == trunk[:16]
    assert {row["loss/b"] for row in cooled[16:]} == {""}
