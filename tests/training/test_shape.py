import pytest

from training.models import ModelShape, build, flops_per_token, num_parameters
from training.models.shape import ShapeError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        (ModelShape("llama", 32000, 288, 6, 6, 768, 1024, tied=True), 15_191_712),  # llama2.c's stories15M
        (ModelShape("llama", 32000, 768, 12, 12, 2048, 2048, kv_heads=4), 124_668_672),  # LLäMmlein, table 6
        (ModelShape("llama", 32000, 2048, 22, 32, 5632, 2048, kv_heads=4), 1_100_048_384),  # TinyLlama
        (ModelShape("gpt_neo", 50257, 2048, 24, 16, 8192, 2048, tied=True), 1_315_575_808),  # GPT-Neo-1.3B
    ],
)
def test_shape_published_models_have_published_counts(shape, count):
    assert num_parameters(shape) == count
    with torch.device("meta"):
        model = build(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "mindllm"])
def test_shape_count_equals_built_model(family, tied):
    shape = ModelShape(family, 50, 24, 3, 6, 40, 8, kv_heads=2, tied=tied)
    with torch.device("meta"):
        model = build(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters(shape)
    body = sum(p.numel() for name, p in model.named_parameters() if name not in ("embedding.weight", "output.weight"))
    assert num_parameters(shape, embedding=False) == body


def test_flops_tinyllama_matches_its_published_utilisation():
    # 24,000 tokens/s on an A100 (312 TF/s) are the 56 % of TinyLlama's README.
    shape = ModelShape("llama", 32000, 2048, 22, 32, 5632, 2048, kv_heads=4)
    assert 24_000 * flops_per_token(shape) / 312e12 == pytest.approx(0.563, abs=0.001)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"family": "lama"}, "gpt_neo"),
        ({"heads": 5}, "multiple"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"width": 12, "heads": 4}, "even"),
        ({"family": "gpt_neo", "tied": False}, "tied"),
    ],
)
def test_shape_impossible_raises_with_the_remedy(change, word):
    plain = {"family": "llama", "vocabulary": 9, "width": 16, "layers": 1, "heads": 4, "feedforward": 8, "context": 4}
    with pytest.raises(ShapeError, match=word):
        ModelShape(**{**plain, **change})
