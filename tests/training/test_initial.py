import math

import pytest

torch = pytest.importorskip("torch")

from training.models import ModelShape  # noqa: E402
from training.models.initial import initial_values  # noqa: E402


def test_initial_values_depend_on_seed_and_name_alone(tiny):
    shape, size = tiny["llama"], (32, 32)
    name = "blocks.0.attention.query.weight"
    first = initial_values(shape, name, size, 7)
    torch.randn(5)  # the default generator plays no part
    assert torch.equal(first, initial_values(shape, name, size, 7))
    assert not torch.equal(first, initial_values(shape, name, size, 8))
    assert not torch.equal(first, initial_values(shape, name.replace("0", "1"), size, 7))


@pytest.mark.parametrize(
    ("family", "name", "deviation"),
    [
        ("llama", "embedding.weight", math.sqrt(2 / 5 / 256)),
        ("llama", "blocks.0.attention.output.weight", 1 / 16 / 4),
        ("llama", "blocks.3.feed_forward.down.weight", 1 / 16 / 4),
        ("gpt_neo", "positions.weight", 0.02),
        ("mindllm", "blocks.0.attention.key.weight", math.sqrt(2 / 512)),
        ("mindllm", "blocks.0.attention.value.weight", 32**-0.25 * math.sqrt(2 / 512)),
        ("mindllm", "embedding.weight", 1 / 16),
    ],
)
def test_initial_values_have_the_published_deviation(family, name, deviation):
    shape = ModelShape(family, 256, 256, 4, 4, 256, 256, tied=True)
    values = initial_values(shape, name, (256, 256), 0)
    assert values.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(values.mean().item()) < deviation / 50


def test_initialised_model_starts_near_the_uniform_loss(make_model, shape):
    tokens = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, nats = make_model(shape)(tokens, tokens.roll(1, 1))
    assert nats.mean().item() == pytest.approx(math.log(64), abs=0.8)
