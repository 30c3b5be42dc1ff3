"""What a training holds in memory, and the micro-batch that fits, from its shape alone. No torch.

The model of memory counts what the models of `training.models` keep for backward and what a train step makes beside it;
docs/training.md compares it with measured peaks. Nothing here depends on how fast anything is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.models.shape import ModelShape, num_parameters

# An interpreter with torch and the kernels, before there is a model; one with Lightning too.
PROCESS_BYTES, TRAINER_BYTES = 400 << 20, 575 << 20
# AdamW: weights, gradients, two moments, in float32.
STATE_BYTES = 16
# Weights and two moments: what a checkpoint holds.
SAVED_BYTES = 12
# Logits at once (`training.loss.CHUNK_ELEMENTS`) on a CPU and on a GPU.
LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
# A CPU is no faster with more tokens at once: they leave its caches. Measured on the 15M proxy (docs/ablation.md).
CPU_TOKENS = 4096
# Below this a model is whole on every device where the recipe leaves it open: gathering its weights costs more than
# the memory it would save (LLäMmlein-120M, fully sharded over 16 nodes, ran at some 13 % of the hardware's speed).
REPLICATE_BELOW = 500_000_000
# Left free for what is not counted: the allocator's gaps, buffers of the processes' collectives.
FILLED = 0.85


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process.

    Attributes:
        state: its share of weights, gradients and moments.
        copy: of weights and moments, where checkpoints are written in the background.
        step: what a train step makes beside activations: whole weights in the type of products, logits, gradients
            of the embedding and the output.
        sequence: what one sequence of a micro-batch keeps for backward.
        process: what it holds before there is a model.
    """

    state: int
    copy: int
    step: int
    sequence: int
    process: int = PROCESS_BYTES

    def total(self, micro_batch: int) -> int:
        """Bytes with so many sequences at once."""
        return self.process + self.state + self.copy + self.step + micro_batch * self.sequence


def mesh_shape(sharding: str, world: int, per_node: int, parameters: int) -> tuple[int, int]:
    """Choose (replicas, shards) for a model.

    Args:
        sharding: replicate, full, no_reshard (as full, for the mesh), hybrid (sharded inside a node, replicated across)
            or auto.
        world: number of processes.
        per_node: processes of one node.
        parameters: size of the model; auto replicates below 500 million and is hybrid above.

    Raises:
        ValueError: for another word.
    """
    if sharding == "auto":
        sharding = "replicate" if parameters < REPLICATE_BELOW else "hybrid"
    if sharding == "replicate":
        return world, 1
    if sharding in ("full", "no_reshard"):
        return 1, world
    if sharding == "hybrid":
        return world // per_node, per_node
    raise ValueError(f"sharding '{sharding}' is unknown; choose replicate, full, no_reshard, hybrid or auto")


def checkpoint_bytes(shape: ModelShape) -> int:
    """Bytes of a checkpoint of all processes together: weights and both moments, once, however many replicas."""
    return SAVED_BYTES * num_parameters(shape)


def footprint(
    shape: ModelShape,
    context: int,
    precision: str,
    *,
    device: str = "cpu",
    shards: int = 1,
    recompute: bool = False,
    background: bool = False,
    process: int = PROCESS_BYTES,
) -> Footprint:
    """What one process of a training holds.

    Args:
        shape: the model.
        context: tokens a sequence.
        precision: bf16 or fp32.
        device: cpu or cuda.
        shards: processes that share weights and moments.
        recompute: whether activations inside blocks are computed again.
        background: whether checkpoints are written in the background.
        process: what a process holds before there is a model.
    """
    size = 2 if precision == "bf16" else 4
    parameters, ends = num_parameters(shape), shape.vocabulary * shape.width
    kept = _kept_values(shape)
    # With `recompute` a block keeps its input, and one block at a time the rest.
    values = shape.layers * shape.width + kept if recompute else shape.layers * kept
    casts = parameters * size if size == 2 or shards > 1 else 0
    copies = (3 if shape.tied else 2) + (device == "cpu" and size == 2)  # the output's is added up transposed there
    gradients = ends * 4 * copies + (parameters * 4 if shards > 1 else 0)
    return Footprint(
        state=STATE_BYTES * -(-parameters // shards),
        copy=SAVED_BYTES * -(-parameters // shards) if background else 0,
        step=casts + gradients + LOGITS.get(device, LOGITS["cuda"]) * size,
        # Going backward, a block's gradients stand beside its activations; the ends keep input, last norm and loss.
        sequence=context * size * (values + kept // 2 + 4 * shape.width),
        process=process,
    )


def _kept_values(shape: ModelShape) -> int:
    """Values a token that one block keeps for backward, as the kernels of `training.fused` leave them.

    The stream before and after attention, both norms' outputs, rotated queries, attention's output; keys and values;
    gate, up and their product.
    """
    keys = shape.num_kv_heads * shape.head_width
    return 6 * shape.width + 2 * keys + (2 if shape.family == "gpt_neo" else 3) * shape.feedforward


def predicted_micro_batch(one: Footprint, free_bytes: int, most: int, *, context: int, device: str = "cpu") -> int:
    """The largest micro-batch that fits into free memory, at least one sequence.

    Args:
        one: the process's bytes.
        free_bytes: memory for this process, what it holds before there is a model included.
        most: sequences of its share of a batch; more would stand empty.
        context: tokens a sequence.
        device: cpu or cuda; on a CPU `CPU_TOKENS` are the most, because more are not faster.
    """
    room = int(free_bytes * FILLED) - one.total(0)
    fits = max(1, room // one.sequence)
    if device == "cpu":
        fits = min(fits, max(1, CPU_TOKENS // context))
    return max(1, min(fits, most))


def tried_micro_batch(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """The largest micro-batch that is found to fit, from a guess: at most 2 * log2(most) trials.

    Args:
        fits: whether a train step with so many sequences at once gets its memory; false for all larger ones too.
        guess: where to begin.
        most: the largest worth trying.

    Returns:
        The size; 1 where nothing fits, whose own failure then tells why.
    """
    low, high = 0, most + 1  # low fits, high does not
    size = max(1, min(guess, most))
    while high - low > 1:
        if fits(size):
            low = size
        else:
            high = size
        size = min(high - 1, 2 * low) if high > most and low else (low + high) // 2
        size = max(low + 1, size)
    return max(1, low)


def free_bytes() -> int:
    """Bytes that new processes may take on this machine: what Linux calls available, within a cgroup's limit."""
    found = []
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(found, default=8 << 30))
