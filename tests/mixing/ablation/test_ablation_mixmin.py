import numpy as np
import pytest
from scipy.optimize import minimize

from mixing.ablation.mixmin import mixmin, mixmin_weights


def objective(weights, nats, counts):
    return float(-(counts / counts.sum()) @ np.log(weights @ np.exp(-nats)))


def test_mixmin_weights_are_the_least_of_a_general_minimiser():
    chance = np.random.default_rng(0)
    nats, counts = chance.normal(20, 1.0, (4, 60)), chance.random(60) + 0.1
    found = mixmin_weights(nats, counts)
    assert found.sum() == pytest.approx(1)
    other = minimize(
        lambda logits: objective(np.exp(logits) / np.exp(logits).sum(), nats, counts), np.zeros(4), tol=1e-12
    )
    assert objective(found, nats, counts) <= other.fun + 1e-7


def test_mixmin_of_a_useless_proxy_gives_it_nothing():
    nats = np.array([[10.0, 10.0, 50.0], [50.0, 50.0, 10.0], [60.0, 60.0, 60.0]])
    np.testing.assert_allclose(mixmin_weights(nats, np.ones(3)), [2 / 3, 1 / 3, 0], atol=1e-6)


def test_mixmin_counts_domains_by_their_share_and_sequences_by_length():
    proxies = {
        "a": {"a": [[10.0, 10], [10.0, 10]], "b": [[90.0, 20]]},
        "b": {"a": [[90.0, 10], [90.0, 10]], "b": [[10.0, 20]]},
    }
    # a's two sequences together count .5 / 10, b's one .5 / 20.
    assert mixmin(proxies, {"a": 0.5, "b": 0.5}) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert mixmin(proxies, {"a": 1.0, "b": 0.0}) == pytest.approx({"a": 1.0, "b": 0.0})


def test_mixmin_of_different_sequences_is_unknown():
    proxies = {"a": {"a": [[10.0, 10]]}, "b": {"a": [[10.0, 11]]}}
    assert mixmin(proxies, {"a": 1.0}) is None
    assert mixmin({"a": {"a": [[1.0, 2]]}}, {"a": 1.0}) is None
