"""What training will cost, against what a plan of the same recipe and the shapes themselves say."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from mixing.domain_stage import Domain
from mixing.plan_stage import plan_of
from recipes.pretraining import train, training_cost
from recipes.pretraining.shapes import shape_of
from recipes.pretraining.training_cost import training_forecast
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.tokenizing.tokens import plan_options
from training.models.shape import flops_per_token

pytest.importorskip("torch")


def test_training_forecast_of_the_quickstart(tmp_path, monkeypatch):
    monkeypatch.setattr(training_cost, "free_bytes", lambda: 8 << 30)
    monkeypatch.setattr(training_cost, "_seconds", lambda *_: (12.0, "by heart"))
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    options = (f"execution.workdir={tmp_path}", "execution.training.devices=2", "checkpoints.async=true")
    with Run.open(load_recipe(recipe, options), silent=True) as run:
        found = training_forecast(run)
        assert found is not None
        # 16 sequences of 256 tokens a train step, 97.7 rounded down as the plan does; two processes share them.
        assert (found.tokens, found.steps, found.share, found.processes) == (400_000, 97, 8, 2)
        assert found.checkpoint_bytes == 12 * found.parameters
        assert found.micro_batch == 8
        assert found.fits
        assert 0.5e9 < found.process_bytes < 1.5e9


TWO_CONTEXTS = """
sources: {a: {path: a.jsonl, language: de}}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
schedule:
  - {name: short, tokens: 64K}
  - {name: long, tokens: 16K, context: 256}
model: {preset: llama_tiny, context: 64}
training: {batch: 16 sequences, precision: bf16}
"""


class Pool:
    """A pool whose process trains at 1,000 tokens a second, and that remembers what it was asked to time."""

    def __init__(self):
        self.asked = []

    def submit(self, _, options):
        from training.speed import ProxySpeed

        self.asked.append(options)
        answer = Future()
        answer.set_result(ProxySpeed(1000.0, 3000.0, 7, exact=True))
        return answer

    def close(self, **_):
        """Nothing was started."""


def foretold(tmp_path, monkeypatch, gpus, *options):
    """The forecast of a recipe with two contexts on a machine with these GPUs, the shape's operations, and the pool."""
    path = tmp_path / "r.yaml"
    path.write_text(TWO_CONTEXTS)
    for module in (training_cost, train):
        monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    with Run.open(
        load_recipe(path, (f"execution.workdir={tmp_path}", "execution.workers=6", *options)), silent=True
    ) as run:
        run.__dict__["pool"] = pool = Pool()
        found = training_forecast(run)
        shape = shape_of(run.recipe.model, 600)
    return found, [flops_per_token(shape, context) for context in (64, 256)], pool


def test_flops_of_phases_are_each_of_its_own_context(tmp_path, monkeypatch):
    found, (short, long), _ = foretold(tmp_path, monkeypatch, ())
    assert found.steps == 62 + 15  # of 1,024 tokens; each phase is rounded down
    assert found.flops == 64_000 * short + 16_000 * long
    assert long > short


@pytest.mark.parametrize("start", ["32K", "500 sequences"])
def test_batch_grows_where_it_says_in_plan_and_forecast(tmp_path, start):
    (tmp_path / "r.yaml").write_text(
        TWO_CONTEXTS.replace("16 sequences", f"[[0, 16 sequences], [{start}, 32 sequences]]")
    )
    with Run.open(load_recipe(tmp_path / "r.yaml", (f"execution.workdir={tmp_path}",)), silent=True) as run:
        options = plan_options(run)
        steps = training_cost.num_steps(run.recipe)
    assert options.batch == ((0, 1024), (32_000, 2048))
    # 31 small train steps up to 31,744 tokens, then 15 and 7 large ones.
    plan = plan_of([Domain("a", "a", None, 1_000_000, 1, 1, 1, 0, 0)], options)
    assert steps == plan.num_steps == 31 + 15 + 7


def test_seconds_on_a_cpu_are_those_of_what_was_timed_by_all_processes(tmp_path, monkeypatch):
    found, (short, long), pool = foretold(tmp_path, monkeypatch, (), "execution.training.devices=3")
    assert found.seconds == pytest.approx((64_000 + 16_000 * long / short) / 3000)
    assert "1,000 tokens/s" in found.basis
    assert [options.threads for options in pool.asked] == [2]  # six cores, three processes


def test_seconds_on_gpus_are_of_the_slowest_that_trains(tmp_path, monkeypatch):
    gpus = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA A40")
    found, (short, long), pool = foretold(tmp_path, monkeypatch, gpus, "execution.training.devices=2")
    assert found.seconds == pytest.approx((64_000 * short + 16_000 * long) / (2 * 312e12 * 0.4))
    assert "H100 80GB HBM3 and NVIDIA A100" in found.basis
    assert not pool.asked


@pytest.mark.parametrize(("sharding", "shards"), [("replicate", 1), ("hybrid", 2), ("full", 6), ("no_reshard", 6)])
def test_memory_of_several_machines_is_that_of_a_replica_group(tmp_path, monkeypatch, sharding, shards):
    """Three machines of two processes: hybrid shares weights inside a machine, and each machine has all of them."""
    monkeypatch.setattr(training_cost, "free_bytes", lambda: 8 << 30)
    options = (f"execution.training.sharding={sharding}", "execution.training.micro_batch=1")
    places = ("execution.training.devices=2", "execution.training.nodes=3")
    found, (short, long), _ = foretold(tmp_path, monkeypatch, (), *options, *places)
    # 16 sequences of 64 tokens are 4 of 256 on six processes.
    assert (found.processes, found.nodes, found.share) == (2, 3, 1)
    assert found.seconds == pytest.approx((64_000 + 16_000 * long / short) / (3 * 2 * 1000))
    # 2 layers of width 64 and 160, 4 heads of which 2 have keys, 600 ids, tied. By hand, in bytes.
    ends = 600 * 64
    parameters = ends + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160 + 2 * 64) + 64
    assert found.parameters == parameters
    state = 16 * -(-parameters // shards)
    gathered = 2 * parameters + (4 * parameters if shards > 1 else 0)  # bf16 weights; whole float32 gradients
    logits = 2 * (1 << 24)
    kept = 6 * 64 + 2 * 32 + 3 * 160
    sequence = 256 * 2 * (2 * kept + kept // 2 + 4 * 64)
    # Of the tied ends in float32: the embedding's gradient, the output's, its transposed sums, and what adds them up.
    assert found.process_bytes == (575 << 20) + state + gathered + 4 * 4 * ends + logits + sequence
    assert found.checkpoint_bytes == 12 * parameters  # every number once, whoever writes it


def test_seconds_on_an_unknown_gpu_are_not_made_up(tmp_path, monkeypatch):
    found, _, pool = foretold(tmp_path, monkeypatch, ("Mill 3000",))
    assert (found.seconds, found.processes) == (None, 1)
    assert found.basis == "no peak of Mill 3000 in bf16 is known"
    assert not pool.asked


def test_training_forecast_of_a_recipe_without_training_is_none(tmp_path):
    (tmp_path / "r.yaml").write_text("sources:\n  a: {path: a.jsonl, language: de}\nexecution: {workdir: work}\n")
    with Run.open(load_recipe(tmp_path / "r.yaml"), silent=True) as run:
        assert training_forecast(run) is None
