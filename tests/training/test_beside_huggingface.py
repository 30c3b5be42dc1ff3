"""Our Llama and train step beside Hugging Face's Llama and torch's own AdamW and clipping in a plain loop."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training.batches import Batch  # noqa: E402
from training.export import exported_name, huggingface_config  # noqa: E402
from training.spec import Optimizer  # noqa: E402
from training.step import StepOptions, make_optimizer, train_step  # noqa: E402

STEPS = 50


def batch_of(step, shape):
    drawn = np.random.default_rng(step).random((7, shape.context + 1))
    return torch.from_numpy((shape.vocabulary * drawn**3).astype(np.int64))


def their_losses(weights, shape, rates):
    config = transformers.LlamaConfig(**huggingface_config(shape, {}, "fp32"), attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config).float()
    model.load_state_dict({exported_name("llama", name): value for name, value in weights.items()})
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step, rate in enumerate(rates):
        tokens = batch_of(step, shape)
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_loss_curve_of_fifty_steps_equals_huggingfaces(tiny, make_model):
    """Micro-batches of three, two and two sequences on our side, seven at once on theirs."""
    shape = tiny["llama"]
    model = make_model(shape)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    rates = [3e-3 * min(1.0, (step + 1) / 10) for step in range(STEPS)]
    optimizer = make_optimizer(model, Optimizer())
    losses = []
    for step, rate in enumerate(rates):
        batch = Batch(step, 0, 7, np.zeros(7, np.int64), batch_of(step, shape))
        losses.append(train_step(model, optimizer, batch, rate, StepOptions(micro_batch=3)).totals[1].item())
    assert losses == pytest.approx(their_losses(weights, shape, rates), rel=1e-5)
    assert losses[-1] < losses[0] - 0.3
