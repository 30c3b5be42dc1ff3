import dataclasses
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from training import fitting  # noqa: E402
from training.fitting import find_by_trial, micro_batch_of, step_fits  # noqa: E402
from training.spec import Span  # noqa: E402
from training.step import StepOptions  # noqa: E402


@pytest.fixture
def auto(make_spec):
    return make_spec(micro_batch=None, sharding="replicate")


def test_micro_batch_is_the_smallest_of_all_processes(auto, monkeypatch):
    asked = []

    def gather(own):
        asked.append(own)
        return [own, 2, 3]

    monkeypatch.setattr(fitting, "free_bytes", lambda: 64 << 30)
    assert micro_batch_of(auto, None, 3, 3, gather) == 2
    assert asked == [3]  # seven sequences over three processes
    monkeypatch.setattr(fitting, "free_bytes", lambda: 1 << 20)
    assert micro_batch_of(auto, None, 1, 1, lambda own: [own]) == 1


def test_micro_batch_of_a_checkpoint_stays_while_as_many_processes_train(auto, monkeypatch):
    monkeypatch.setattr(fitting, "free_bytes", lambda: 64 << 30)
    saved = SimpleNamespace(state={"micro_batch": [2, 1]})
    assert micro_batch_of(auto, saved, 2, 2, lambda own: [own, own]) == 1
    assert micro_batch_of(auto, saved, 1, 1, lambda own: [own]) == 7
    older = SimpleNamespace(state={})
    assert micro_batch_of(auto, older, 2, 2, lambda own: [own, own]) == 4


class Small(torch.nn.Module):
    """A device whose memory holds five sequences."""

    def __init__(self, model):
        super().__init__()
        self.model, self.most = model, 0

    def forward(self, tokens_BT, *rest, **named):
        self.most = max(self.most, len(tokens_BT))
        if len(tokens_BT) > 5:
            raise torch.OutOfMemoryError("no room")
        return self.model(tokens_BT, *rest, **named)


def test_trial_finds_what_fits_and_leaves_no_gradient(auto, tiny, make_model):
    spec = dataclasses.replace(auto, spans=(Span(0, 0, 0, 7, 8), Span(7, 1, 56, 12, 16)))
    network = Small(make_model(tiny["llama"]))
    assert find_by_trial(network, spec, StepOptions(8), torch.device("cpu")) == 5
    assert network.most == 8
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not step_fits(network, torch.zeros(6, 9, dtype=torch.int64), StepOptions(8), 0)
