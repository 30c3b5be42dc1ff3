import dataclasses
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the `training` extra")

from training.learning_rate import LearningRate  # noqa: E402
from training.models import ModelShape, build  # noqa: E402
from training.models.initial import initialise  # noqa: E402
from training.spec import Checkpoints, Evaluation, Execution, Factory, Optimizer, Span, TrainSpec  # noqa: E402

torch.set_num_threads(1)
# No test asks for a second thread; children inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

TINY = {
    "llama": ModelShape("llama", 64, 32, 2, 4, 64, 16, kv_heads=2),
    "gpt_neo": ModelShape("gpt_neo", 64, 32, 2, 4, 64, 16, tied=True, window=5),
    "mindllm": ModelShape("mindllm", 64, 32, 2, 4, 64, 16, kv_heads=2),
}


@pytest.fixture(params=sorted(TINY))
def shape(request):
    """A tiny shape of each family in turn."""
    return TINY[request.param]


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def make_model():
    """Build and initialise a model on the CPU."""

    def make(shape, seed=0, **options):
        with torch.device("meta"):
            model = build(shape, **options)
        model.to_empty(device="cpu")
        initialise(model, shape, seed)
        return model

    return make


@pytest.fixture
def stream():
    """The factory of a synthetic stream of three domains."""
    arguments = {"vocabulary": 64, "domains": ["a", "b", "c"], "context": 16, "held_out_sequences": 5}
    return Factory("training.batches:synthetic_stream", arguments)


@pytest.fixture
def make_spec(tmp_path, stream):
    """A training of ten steps of seven sequences (no process count divides them), logged step by step."""

    def make(folder="run", **changes):
        tokens = 7 * 16
        spec = TrainSpec(
            folder=str(tmp_path / folder),
            shape=TINY["llama"],
            stream=stream,
            spans=(Span(0, 0, 0, 7, 16),),
            num_steps=10,
            learning_rate=LearningRate(3e-3, 10 * tokens, 2 * tokens),
            optimizer=Optimizer(z_loss=1e-4),
            checkpoints=Checkpoints(3),
            evaluation=Evaluation(5),
            execution=Execution(device="cpu", micro_batch=2, log_every=1, sharding="full", min_free_bytes=0),
            prefix={"seed": 0},
        )
        execution = {key: changes.pop(key) for key in list(changes) if hasattr(spec.execution, key)}
        spec = dataclasses.replace(spec, **changes)
        return dataclasses.replace(spec, execution=dataclasses.replace(spec.execution, **execution))

    return make


@pytest.fixture
def write_spec():
    """Write a specification below its folder; returns the path."""
    from training.spec import to_json

    def write(spec, name="spec.json"):
        path = Path(spec.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(spec))
        return path

    return write
