import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.learning_rate import SHAPES, LearningRate, learning_rate_at


@pytest.mark.parametrize(
    ("shape", "tokens", "rate"),
    [
        ("cosine", 50, 0.5),
        ("cosine", 100, 1.0),
        ("cosine", 600, 0.55),
        ("cosine", 350, 0.1 + 0.9 * (1 + 2**-0.5) / 2),
        ("cosine", 1100, 0.1),
        ("cosine", 5000, 0.1),
        ("linear", 600, 0.55),
        ("linear", 850, 0.325),
        ("wsd", 100, 1.0),
        ("wsd", 900, 1.0),
        ("wsd", 1000, 0.55),
        ("wsd", 1100, 0.1),
    ],
)
def test_learning_rate_at_borders_and_midpoints(shape, tokens, rate):
    course = LearningRate(1.0, 1100, 100, 0.1, shape, decay_tokens=200)
    assert learning_rate_at(course, tokens) == pytest.approx(rate, rel=1e-12)


def test_learning_rate_wsd_is_the_same_before_the_decay_for_any_budget():
    short, long = (LearningRate(1.0, total, 100, 0.0, "wsd", 50) for total in (500, 5000))
    assert [learning_rate_at(short, t) for t in range(451)] == [learning_rate_at(long, t) for t in range(451)]


@given(st.sampled_from(SHAPES), st.integers(0, 50), st.integers(0, 50), st.integers(1, 100))
def test_learning_rate_rises_then_falls_between_final_and_peak(shape, warmup, decay, rest):
    course = LearningRate(1.0, warmup + decay + rest, warmup, 0.1, shape, decay)
    rates = [learning_rate_at(course, tokens) for tokens in range(1, course.total_tokens + 1)]
    assert rates[:warmup] == sorted(rates[:warmup])
    falling = rates[max(0, warmup - 1) :]
    assert falling == sorted(falling, reverse=True)
    assert max(rates) <= 1.0


@pytest.mark.parametrize("change", [{"shape": "step"}, {"warmup_tokens": 90, "shape": "wsd", "decay_tokens": 20}])
def test_learning_rate_impossible_raises(change):
    with pytest.raises(ValueError, match=r"choose one of|longer than the run"):
        LearningRate(1.0, 100, **change)
