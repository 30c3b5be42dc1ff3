"""Packed conversations train exactly as conversations alone, and only on their answers."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.batches import Batch
from training.models import ModelShape
from training.step import StepOptions, accumulate

SHAPES = {
    "llama": ModelShape("llama", 322, 32, 2, 4, 64, 240, kv_heads=2),
    "gpt_neo": ModelShape("gpt_neo", 322, 32, 2, 4, 64, 240, tied=True, window=5),
    "mindllm": ModelShape("mindllm", 322, 32, 2, 4, 64, 240, kv_heads=2),
}


def alone(model, encoder, rows):
    """The twin: each conversation by itself, mean nats of its answers' tokens by plain log-softmax."""
    total, count = torch.zeros(()), 0
    for row in rows:
        ids, learnt = [], []
        for message in row["messages"]:
            head = f"<|im_start|>{message['role']}\n"
            for text, counts in ((head, False), (f"{message['content']}<|im_end|>", True), ("\n", False)):
                new = encoder.tokenizer.encode(text, add_special_tokens=False).ids
                ids += new
                learnt += [counts and message["role"] == "assistant"] * len(new)
        ids = torch.tensor(ids)
        nats = -functional.log_softmax(model(ids[None, :-1])[0], -1).gather(1, ids[1:, None])[:, 0]
        learnt = torch.tensor(learnt[1:])
        total, count = total + nats[learnt].sum(), count + int(learnt.sum())
    return total / count


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_packed_loss_and_gradients_are_those_of_answers_alone(write_lines, prepared, conversations, make_model, family):
    rows = conversations(12, most_turns=2)
    found, folder, encoder = prepared(write_lines(rows), context=240)
    tokens = np.load(folder / "chat.train.npy").astype(np.int64)
    assert len(tokens) < 12
    model = make_model(dataclasses.replace(SHAPES[family], vocabulary=encoder.vocabulary))
    batch = Batch(0, 0, len(tokens), np.zeros(len(tokens), np.int64), torch.from_numpy(tokens))
    sums = accumulate(model, batch, StepOptions(3, separator=found.separator))
    nats, count = sums.sum(0).tolist()
    assert count == found.sets[0].answer_tokens
    scale = batch.total * found.context / count
    ours = {name: parameter.grad * scale for name, parameter in model.named_parameters()}
    model.zero_grad()
    loss = alone(model, encoder, rows)
    loss.backward()
    assert nats / count == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_what_is_asked_is_read_and_never_learnt(write_lines, prepared, conversations, make_model):
    found, folder, _ = prepared(write_lines(conversations(12, most_turns=2)), context=240)
    tokens = torch.from_numpy(np.load(folder / "chat.train.npy").astype(np.int64))
    model, options = make_model(SHAPES["llama"]), StepOptions(16, separator=found.separator)
    batch = Batch(0, 0, len(tokens), np.zeros(len(tokens), np.int64), tokens)
    outputs = []
    hook = model.norm.register_full_backward_hook(lambda module, _, grads: outputs.append(grads[0]))
    accumulate(model, batch, options)
    hook.remove()
    told = outputs[0].abs().sum(-1) > 0
    assert torch.equal(told, tokens[:, 1:] >= 0)
