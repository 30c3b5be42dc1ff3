import pytest

torch = pytest.importorskip("torch", reason="training needs the `training` extra")

import numpy as np  # noqa: E402

from training.batches import Batch  # noqa: E402
from training.spec import Optimizer  # noqa: E402
from training.stacked import make_optimizer, make_stack, stacked_nats, stacked_step  # noqa: E402
from training.step import StepOptions, sequence_nats, train_step  # noqa: E402
from training.step import make_optimizer as single_optimizer  # noqa: E402

SEEDS = (3, 5, 8)


def batches(steps, context=16, number=4):
    """Token ids of a few train steps of each proxy, (steps, K, B, T + 1)."""
    return torch.randint(0, 64, (steps, len(SEEDS), number, context + 1), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("separator", [None, 7])
def test_stacked_proxies_have_the_losses_of_single_ones(make_model, shape, separator):
    options, numbers = StepOptions(2, separator=separator), Optimizer(z_loss=1e-4)
    stack = make_stack(shape, SEEDS)
    optimizer = make_optimizer(stack, numbers)
    tokens = batches(4)
    stacked = torch.stack([stacked_step(stack, optimizer, one, 1e-2, options) for one in tokens])
    held_out = batches(1)[0, 0]
    for place, seed in enumerate(SEEDS):
        model = make_model(shape, seed)
        alone = single_optimizer(model, numbers)
        for step, one in enumerate(tokens):
            batch = Batch(step, 0, 4, np.zeros(4, int), one[place])
            norm, loss, _ = train_step(model, alone, batch, 1e-2, options).totals.tolist()
            assert stacked[step, place].tolist() == pytest.approx([norm, loss], rel=2e-4)
        with torch.no_grad():
            _, sums = sequence_nats(model, held_out, 0.0, options)
        mean = float(sums[:, 0].sum() / sums[:, 1].sum())
        assert float(stacked_nats(stack, held_out, options)[place]) == pytest.approx(mean, rel=2e-4)


def test_stacked_proxy_that_diverges_leaves_the_others_alone(tiny):
    options, numbers = StepOptions(4), Optimizer()
    first, second = (make_stack(tiny["llama"], SEEDS) for _ in range(2))
    with torch.no_grad():
        first.parameters["model.norm.weight"][1] = float("nan")
    tokens = batches(2)
    found = []
    for stack in (first, second):
        optimizer = make_optimizer(stack, numbers)
        found.append(torch.stack([stacked_step(stack, optimizer, one, 1e-2, options) for one in tokens]))
    assert found[0][:, 1].isnan().any()
    assert torch.equal(found[0][:, [0, 2]], found[1][:, [0, 2]])
