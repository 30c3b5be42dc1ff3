"""How a model lies over processes: the mesh, what a rank holds of a parameter, and the sharding itself.

There is one way, `fully_shard` over a mesh (replicas, shards) that `training.footprint.mesh_shape` chooses: replicate
is (world, 1), full and no_reshard are (1, world), hybrid is (nodes, devices of a node). One process shards nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rows:
    """What this process holds of a parameter: rows `first` to `first + count` of dimension 0.

    Attributes:
        tensor: the local values, sharing memory with the parameter.
        first: its first row in the whole parameter.
        count: its rows; 0 where there are more processes than rows.
        replica: which of `replicas` processes with the same rows this one is.
        replicas: number of processes that hold the same rows.
    """

    tensor: Tensor
    first: int
    count: int
    replica: int
    replicas: int


def local_rows(parameter: Tensor) -> Rows:
    """Find which rows of a parameter lie on this process; a plain tensor lies here whole."""
    if not hasattr(parameter, "placements"):  # not a DTensor, whose import takes .3 s
        return Rows(parameter.detach(), 0, parameter.shape[0], 0, 1)
    mesh = parameter.device_mesh
    shard_axis = next(axis for axis, placement in enumerate(parameter.placements) if placement.is_shard())
    # fully_shard cuts dimension 0 as torch.chunk does: equal pieces rounded up, the last ones short or empty.
    total, piece = parameter.shape[0], -(-parameter.shape[0] // mesh.size(shard_axis))
    first = min(total, mesh.get_local_rank(shard_axis) * piece)
    count = min(total, first + piece) - first
    with torch.no_grad():
        tensor = parameter.to_local()
    assert tensor.shape[0] == count, (tensor.shape, first, count)
    replicas = mesh.size() // mesh.size(shard_axis)
    replica = mesh.get_local_rank(1 - shard_axis) if mesh.ndim == 2 else 0
    return Rows(tensor.detach(), first, count, replica, replicas)


def reshard(model: nn.Module) -> None:
    """Let go of gathered parameters after a forward that no backward follows.

    Else they stay gathered, and a checkpoint would save them as every process's own and without their moments.
    """
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def shard(
    model: nn.Module, replicas: int, shards: int, device_type: str, precision: str, *, reshard_after_forward: bool
) -> None:
    """Shard a model's blocks, and the rest of it, over the processes in place.

    Args:
        model: a model of `training.models`, also on the meta device.
        replicas: processes that hold the same rows.
        shards: processes that share the rows of a parameter.
        device_type: cpu or cuda.
        precision: bf16 gathers weights in bfloat16 and adds gradients in float32; fp32 leaves all in float32.
        reshard_after_forward: let go of a block's gathered weights after forward and gather them again for backward:
            less memory for more traffic. Moments and gradients are shared out either way.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device_type, (replicas, shards), mesh_dim_names=("replicas", "shards"))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if precision == "bf16":
        # Inputs are not cast: the rotary tables stay in float32.
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward and shards > 1)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
