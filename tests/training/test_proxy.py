import dataclasses
import pickle
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from training.evaluate import evaluate_checkpoint  # noqa: E402
from training.learning_rate import LearningRate  # noqa: E402
from training.proxy import ProxyResult, ProxyRun, train_proxy  # noqa: E402
from training.spec import Optimizer, Span, from_json, to_json  # noqa: E402
from training.step import StepOptions  # noqa: E402


@pytest.fixture
def run(tiny, stream):
    tokens = 40 * 7 * 16
    return ProxyRun(
        "probe", tiny["llama"], stream, (Span(0, 0, 0, 7, 16),), 40, LearningRate(1e-2, tokens), evaluate_at=(0, 20)
    )


def without_times(result):
    return dataclasses.replace(result, tokens_per_s=0.0, elapsed_s=0.0)


def test_proxy_learns_and_measures_each_domain(run):
    told = []
    result = train_proxy(run, lambda done, steps: told.append((done, steps)))
    assert [point.step for point in result.curve] == [10, 20, 30, 40]
    assert result.curve[-1].loss < result.curve[0].loss - 1
    assert [(found.step, found.tokens) for found in result.held_out] == [(0, 0), (20, 2240), (40, 4480)]
    assert set(result.held_out[0].losses) == {"a", "b", "c"}
    first, last = result.held_out[0], result.held_out[-1]
    assert all(last.losses[name] < first.losses[name] - 1 for name in "abc")
    # 4 bytes a token: bits a byte = nats / ln 2 / 4
    assert last.bits_per_byte["a"] == pytest.approx(last.losses["a"] / 2.772588722239781)
    assert (result.diverged_at, result.num_tokens, told[-1]) == (None, 4480, (40, 40))


def test_proxy_twice_gives_the_same_bits(run):
    assert without_times(train_proxy(run)) == without_times(train_proxy(run))
    other = train_proxy(dataclasses.replace(run, seed=1))
    assert other.curve != train_proxy(run).curve


def test_proxy_travels_by_pickle_and_json(run):
    run = dataclasses.replace(run, num_steps=2)
    assert pickle.loads(pickle.dumps(run)) == from_json(ProxyRun, to_json(run)) == run
    result = train_proxy(run)
    assert from_json(ProxyResult, to_json(result)) == result


def test_proxy_that_diverges_says_where(run):
    wild = dataclasses.replace(run, learning_rate=LearningRate(1e30, 10**6), optimizer=Optimizer(clip=None))
    result = train_proxy(wild)
    assert 1 < result.diverged_at <= 10
    assert result.curve == ()


def test_proxy_saved_weights_have_the_measured_losses(run, tmp_path):
    saving = dataclasses.replace(run, num_steps=5, save_to=str(tmp_path))
    measured = train_proxy(saving).held_out[-1].losses
    (folder,) = tmp_path.iterdir()
    found = evaluate_checkpoint(folder, run.stream.make().held_out)
    assert {domain.domain: domain.loss_nats for domain in found} == pytest.approx(measured, rel=1e-12)
    assert [domain.num_tokens for domain in found] == [80, 80, 80]


def test_checkpoint_of_a_model_with_document_masks_is_measured_with_them(run, tmp_path):
    masked = dataclasses.replace(run, num_steps=20, separator=1, save_to=str(tmp_path))
    measured = train_proxy(masked).held_out[-1].losses
    (folder,) = tmp_path.iterdir()
    held_out = run.stream.make().held_out
    found = evaluate_checkpoint(folder, held_out, options=StepOptions(8, separator=1))
    assert {domain.domain: domain.loss_nats for domain in found} == pytest.approx(measured, rel=1e-6)
    across = evaluate_checkpoint(folder, held_out)
    assert max(abs(domain.loss_nats - measured[domain.domain]) for domain in across) > 1e-3


def test_proxy_imports_no_lightning():
    code = "import sys, training.proxy; assert not {'lightning', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_paused_proxy_goes_on_to_the_same_bits(run, tmp_path):
    state = str(tmp_path / "state.pt")
    begun = train_proxy(dataclasses.replace(run, state=state, stop_after=20))
    assert (begun.held_out[-1].step, begun.num_tokens) == (20, 2240)
    resumed = train_proxy(dataclasses.replace(run, state=state))
    assert without_times(resumed) == without_times(train_proxy(run))


def test_proxy_cut_short_goes_on_from_its_last_measurement(run, tmp_path):
    state = tmp_path / "state.pt"

    def cut(done, steps):
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_proxy(dataclasses.replace(run, state=str(state)), cut)
    assert torch.load(state, weights_only=True)["done"] == 20
    begun = train_proxy(dataclasses.replace(run, state=str(state), stop_after=0))  # lies beyond: begins anew
    assert begun.held_out[-1].step == 0
    with pytest.raises(KeyboardInterrupt):
        train_proxy(dataclasses.replace(run, state=str(state)), cut)
    assert without_times(train_proxy(dataclasses.replace(run, state=str(state)))) == without_times(train_proxy(run))


def test_proxy_whose_pause_was_lost_starts_over(run, tmp_path):
    lost = dataclasses.replace(run, state=str(tmp_path / "none.pt"))
    assert without_times(train_proxy(lost)) == without_times(train_proxy(run))


def test_proxy_pausing_where_nothing_is_measured_is_refused(run):
    with pytest.raises(ValueError, match="pauses where it is measured"):
        dataclasses.replace(run, stop_after=7)
