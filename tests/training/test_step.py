import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.batches import HeldOut, read_batch  # noqa: E402
from training.evaluate import by_domain, held_out_losses, mean_bits_per_byte  # noqa: E402
from training.spec import Optimizer, Span  # noqa: E402
from training.step import PADDING, Hooks, StepOptions, accumulate, make_optimizer, sequence_nats, train_step  # noqa: E402

SPANS = (Span(0, 0, 0, 7, 16),)


def gradients_of(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_accumulate_any_micro_batch_gives_the_same_gradient(tiny, make_model, stream):
    batch = read_batch(stream.make(), SPANS, 0, 0, 1)
    found = []
    for micro in (1, 3, 7):
        model = make_model(tiny["llama"])
        sums = accumulate(model, batch, StepOptions(micro))
        found.append((sums, gradients_of(model)))
    for sums, gradients in found[1:]:
        torch.testing.assert_close(sums, found[0][0])
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-4, atol=1e-7)


def test_accumulate_three_uneven_processes_sum_to_one(tiny, make_model, stream):
    # What fully_shard does with gradients: the mean over processes.
    alone = make_model(tiny["llama"])
    accumulate(alone, read_batch(stream.make(), SPANS, 0, 0, 1), StepOptions(2))
    parts = []
    for rank in range(3):
        model = make_model(tiny["llama"])
        accumulate(model, read_batch(stream.make(), SPANS, 0, rank, 3), StepOptions(2, world=3))
        parts.append(gradients_of(model))
    torch.testing.assert_close(torch.stack(parts).mean(0), gradients_of(alone), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("clip", [0.01, 1e6, None])
def test_train_step_clips_the_whole_gradient(tiny, make_model, stream, clip):
    model, seen = make_model(tiny["llama"]), []
    optimizer = make_optimizer(model, Optimizer())
    batch = read_batch(stream.make(), SPANS, 0, 0, 1)

    def keeps(totals):
        seen.append((totals[0].item(), gradients_of(model).norm().item()))
        return False

    train_step(model, optimizer, batch, 1e-3, StepOptions(7, clip=clip), hooks=Hooks(keeps=keeps))
    norm, clipped = seen[0]
    assert clipped == pytest.approx(min(norm, clip or norm), rel=1e-4)
    assert not optimizer.state


def test_train_step_totals_are_norm_mean_loss_and_stop_requests(tiny, make_model, stream):
    model = make_model(tiny["llama"])
    batch = read_batch(stream.make(), SPANS, 0, 0, 1)
    sums = train_step(model, make_optimizer(model, Optimizer()), batch, 0.0, StepOptions(7), stop=True)
    assert sums.totals[1].item() == pytest.approx(sums.sequences[:, 0].sum().item() / 7 / 16)
    assert sums.sequences[:, 1].tolist() == [16.0] * 7
    assert sums.totals[2].item() == 1.0


def test_train_step_on_padded_sequences_equals_the_short_ones_alone(tiny, make_model, stream):
    """Two sequences of 16, the second cut to 5 predicted tokens: the mean is over 21, whatever the padding holds."""
    batch = read_batch(stream.make(), (Span(0, 0, 0, 2, 16),), 0, 0, 1)
    batch.tokens[1, 6:] = PADDING
    model = make_model(tiny["llama"])
    optimizer = make_optimizer(model, Optimizer())
    seen = []

    def keeps(totals):
        seen.append((totals.tolist(), gradients_of(model)))
        return False

    sums = train_step(model, optimizer, batch, 0.0, StepOptions(1, clip=None), hooks=Hooks(keeps=keeps))
    assert sums.sequences[:, 1].tolist() == [16.0, 5.0]
    model.zero_grad()
    whole, short = batch.tokens[:1], batch.tokens[1:, :6]
    loss = sum(model(part[:, :-1], part[:, 1:])[0] for part in (whole, short)) / 21
    loss.backward()
    (norm, mean, _), gradients = seen[0]
    assert mean == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(gradients, gradients_of(model), rtol=1e-4, atol=1e-7)
    assert norm == pytest.approx(gradients.norm().item(), rel=1e-5)


def test_train_step_repeated_on_one_batch_learns_it_by_heart(shape, make_model, stream):
    model = make_model(shape)
    optimizer = make_optimizer(model, Optimizer(weight_decay=0.0))
    batch = read_batch(stream.make(), (Span(0, 0, 0, 2, 16),), 0, 0, 1)
    losses = [train_step(model, optimizer, batch, 1e-2, StepOptions(2)).totals[1].item() for _ in range(80)]
    assert losses[0] > 3
    assert losses[-1] < 0.1


def test_optimizer_decays_matrices_only(tiny, make_model):
    model = make_model(tiny["gpt_neo"])
    decayed, plain = make_optimizer(model, Optimizer(weight_decay=0.5)).param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in plain["params"]} == {1}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)


def test_sequence_nats_token_that_is_only_read_changes_no_other_prediction(tiny, make_model):
    model = make_model(tiny["llama"])
    tokens = torch.tensor([[3, 9, 4, 7, 1, 8, 2, 5]])
    marked = tokens.clone()
    marked[0, 3] = -2 - 7
    with torch.no_grad():
        whole, without = (sequence_nats(model, given, 1.0, StepOptions(1))[1] for given in (tokens, marked))
        logits = model(tokens[:, :-1])
    seventh = torch.nn.functional.cross_entropy(logits[0, 2], torch.tensor(7)).item()
    assert without[0, 1] == whole[0, 1] - 1
    assert without[0, 0].item() == pytest.approx(whole[0, 0].item() - seventh, abs=1e-4)


def test_held_out_losses_without_a_whole_window_of_text_are_none(tiny, make_model):
    nothing = HeldOut([], [], None, 16, [])
    assert held_out_losses(make_model(tiny["llama"]), nothing, StepOptions(2), torch.device("cpu")) == []
    one_short = HeldOut(["a"], [0], None, 16, [4.0])
    (found,) = held_out_losses(make_model(tiny["llama"]), one_short, StepOptions(2), torch.device("cpu"))
    assert (found.loss_nats, found.bits_per_byte, found.num_tokens) == (None, None, 0)


def test_mean_bits_per_byte_is_all_bits_by_all_bytes():
    # a: 10 tokens of 2 bytes with 1 nat each, in two sequences; b: 30 tokens of 5 bytes with 3 nats each
    held_out = HeldOut(["a", "b"], [2, 1], None, 16, [2.0, 5.0])
    losses = by_domain(held_out, np.array([[4.0, 4], [6.0, 6], [90.0, 30]]), np.array([0, 0, 1]))
    assert [(found.loss_nats, found.num_tokens) for found in losses] == [(1.0, 10), (3.0, 30)]
    assert losses[1].bits_per_byte == pytest.approx(3 / math.log(2) / 5)
    assert mean_bits_per_byte(losses) == pytest.approx((10 + 90) / math.log(2) / (20 + 150))
