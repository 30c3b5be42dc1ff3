"""Model presets against published parameter counts."""

import pytest

from training.config import Model
from training.presets import MODEL_PRESETS


@pytest.mark.parametrize(
    ("preset", "vocabulary", "total"),
    [
        ("llama_15m", 32_000, 15_191_712),  # llama2.c prints it for stories15M
        ("llammlein_120m", 32_000, 124_668_672),  # Table 6 of the LLäMmlein paper
        ("llammlein_1b", 32_000, 1_100_048_384),
        ("mindllm_1b3", 50_257, 1_315_575_808),  # GPT-Neo-1.3B
    ],
)
def test_preset_has_the_published_number_of_parameters(preset, vocabulary, total):
    assert Model.model_validate(preset).parameters(vocabulary)[0] == total


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("llama_11m", 11.4), ("llama_15m", 15.2), ("llama_20m", 20.2), ("llama_48m", 48.5), ("llama_60m", 59.4),
        ("llama_95m", 95.0), ("llama_120m", 119.6), ("llama_200m", 196.7), ("llama_500m", 504.1), ("llama_1b", 1009.5),
    ],
)  # fmt: skip
def test_ladder_is_named_by_its_size(preset, millions):
    total, body = Model.model_validate(preset).parameters(32_064)
    assert total / 1e6 == pytest.approx(millions, abs=0.05)
    assert 0 < body < total


def test_ladder_grows_in_every_count():
    ladder = [name for name in MODEL_PRESETS if name.startswith("llama_")]
    counts = [Model.model_validate(name).parameters(32_000) for name in ladder]
    assert counts == sorted(counts)


def test_non_embedding_parameters_do_not_depend_on_the_vocabulary():
    for preset in MODEL_PRESETS:
        model = Model.model_validate(preset)
        small, large = model.parameters(1_000), model.parameters(2_000)
        assert small[1] == large[1]
        assert large[0] - small[0] == 1_000 * model.width * (1 if model.tied else 2)


def test_preset_values_lie_under_the_given_ones():
    model = Model.model_validate({"preset": "llama_15m", "layers": 2, "training": {"learning_rate": {"peak": 1e-3}}})
    assert (model.layers, model.width) == (2, 288)
    assert model.training.learning_rate.peak == 1e-3
    assert str(model.training.learning_rate.warmup) == "6M"


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("llama_15", "did you mean llama_15m?"),
        ({"layers": 2}, "begin from a preset"),
        ({"preset": "llama_15m", "vocab_size": 9}, "the vocabulary follows from the tokenizer"),
        ({"preset": "llama_15m", "heads": 7}, "multiple of heads"),
        ({"preset": "llama_15m", "kv_heads": 4}, "multiple of kv_heads"),
        ({"preset": "llama_15m", "width": "wide"}, "valid integer"),
    ],
)
def test_model_that_cannot_be_is_refused_with_the_fix(given, fix):
    with pytest.raises(ValueError, match=r".") as error:
        Model.model_validate(given)
    assert fix in str(error.value)
