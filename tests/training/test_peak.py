import pytest

from training.models.shape import ModelShape
from training.peak import peak_of, utilisation


def test_utilisation_of_tinyllama_is_what_its_authors_say():
    """24,000 tokens a second on an A100 of 40 GB are 56 %, by TinyLlama's README."""
    shape = ModelShape("llama", 32_000, 2048, 22, 32, 5632, 2048, kv_heads=4)
    peak = peak_of("NVIDIA A100-SXM4-40GB", "bf16")
    assert utilisation(shape, 2048, 24_000, 1, peak) == pytest.approx(0.563, abs=0.001)
    assert utilisation(shape, 2048, 8 * 24_000, 8, peak) == pytest.approx(0.563, abs=0.001)


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [("NVIDIA H100 80GB HBM3", "bf16", 989e12), ("NVIDIA H100 PCIe", "bf16", 756e12), ("", "bf16", None)],
)
def test_peaks_are_found_by_name(device, precision, peak):
    assert peak_of(device, precision) == peak
    assert peak_of(device, "fp32") is None
