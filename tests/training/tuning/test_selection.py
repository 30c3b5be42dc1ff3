import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training.importing import write_weights
from training.models import ModelShape
from training.tuning.examples import ExamplesError
from training.tuning.selection import choose, entropies, k_means


@pytest.mark.parametrize("of", ["answers", "all"])
def test_entropies_are_the_mean_nats_of_each_conversation_alone(
    write_lines, prepared, conversations, make_model, tmp_path, of
):
    shape = ModelShape("llama", 330, 32, 2, 4, 64, 240, kv_heads=2)
    model = make_model(shape)
    start = write_weights(dict(model.named_parameters()), shape, tmp_path / "start", {})
    seen = {}

    def chosen(found):
        scores = entropies(start, found, of, 240, micro_batch=3)
        for number in range(len(found.rows)):
            ids = torch.tensor(found.ids(number).astype(np.int64))
            learnt = ids[1:] >= 0 if of == "answers" else torch.ones(len(ids) - 1, dtype=torch.bool)
            plain = torch.where(ids < 0, -2 - ids, ids)
            with torch.no_grad():
                nats = -torch.log_softmax(model(plain[None, :-1])[0], -1)[torch.arange(len(ids) - 1), plain[1:]]
            seen[number] = (scores[number], nats[learnt].mean().item())
        return choose(scores, float(np.median(scores)), (0.0, 9.0))

    found, _, _ = prepared(write_lines(conversations(15)), choose=chosen)
    ours, twin = zip(*seen.values())
    assert ours == pytest.approx(twin, rel=1e-5)
    assert len(seen) == 15
    assert found.sets[0].dropped == {"not_selected": 7}


def test_band_keeps_what_lies_in_it_and_names_the_quantiles_where_nothing_does():
    scores = np.array([3.0, 4.0, 4.2, 4.5, 4.6, 9.0])
    assert choose(scores, 3.0, (1.0, 1.5)).kept.tolist() == [False, True, True, True, False, False]
    with pytest.raises(ExamplesError, match=r"no example lies 7 to 8 nats .* of 3\.000; quantiles .*\+6\.00|\(95%\)"):
        choose(scores, 3.0, (7.0, 8.0))


def test_clusters_are_kept_whole_by_their_mean():
    scores = np.array([3.0, 3.2, 4.1, 4.6, 4.3, 8.0, 8.4])
    found = choose(scores, 3.0, (1.0, 1.5), clusters=3)
    assert found.cluster.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found.kept.tolist() == [False, False, True, True, True, False, False]  # 4.6 comes with its cluster


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40), st.integers(1, 6))
@example([0.0, 0.0, 1.0, 1.0, 0.0625, 1.6e-134], 4)  # 0.0625 is as far from 0 as from 1.6e-134, in floats
@settings(max_examples=40, deadline=None)
def test_k_means_ends_where_each_value_is_nearest_to_its_own_mean(values, clusters):
    values = np.array(values)
    found = k_means(values, clusters)
    means = np.array([values[found == group].mean() for group in range(found.max() + 1)])
    assert len(means) <= clusters
    assert (np.diff(means) > 0).all()
    gaps = np.abs(values[:, None] - means)
    assert (gaps[np.arange(len(values)), found] <= gaps.min(1) + 1e-9).all()
