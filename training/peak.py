"""How well a GPU is used: model FLOPs utilisation (MFU). No torch.

Operations a token are `flops_per_token`: 6 x parameters, the output layer counted and the input embedding not, and
12 x layers x width x context for attention, unmasked (OLMo-core's and torchtitan's convention; PaLM, arXiv:2204.02311,
appendix B). TinyLlama's 24,000 tokens a second on an A100 are 56 % by it.
"""

from __future__ import annotations

from training.models.shape import ModelShape, flops_per_token

# Dense products in bfloat16, operations a second, from the makers' data sheets; first match wins.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "A40": 150e12,
    "RTX 4090": 165e12,
}


def peak_of(device_name: str, precision: str) -> float | None:
    """Most operations a second of a device in this precision; None where it is not known (a CPU, float32)."""
    if precision != "bf16":
        return None
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


def utilisation(shape: ModelShape, context: int, tokens_per_s: float, devices: int, peak: float | None) -> float | None:
    """Share of the devices' peak that training at this speed amounts to; None without a peak."""
    return None if peak is None else tokens_per_s * flops_per_token(shape, context) / (devices * peak)
