"""The model zoo: one readable file a family, and the shape that all of them are built from.

Importing this package loads no torch, so that shapes can be counted and checked before anything heavy is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from training.models.shape import FAMILIES, ModelShape, flops_per_token, num_parameters

__all__ = ["FAMILIES", "ModelShape", "build", "flops_per_token", "num_parameters"]


def build(shape: ModelShape, **options: Any) -> Any:
    """Build an uninitialised model of the shape's family on torch's current default device.

    Args:
        shape: what to build.
        options: `recompute` (keep no activations inside a block, compute them again going backward), `attention`
            (auto, sdpa, flex or varlen: see `training.attention`).

    Returns:
        A torch module: `model(tokens_BT)` gives logits, `model(tokens_BT, targets_BT, weights_BT)` the weighted loss
        and the nats of every token. Its values are set by `training.models.initial.initialise`.
    """
    return import_module(f"training.models.{shape.family}").Model(shape, **options)
