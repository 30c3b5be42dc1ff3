import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.footprint import Footprint, checkpoint_bytes, footprint, predicted_micro_batch, tried_micro_batch
from training.models.shape import ModelShape

PROXY = ModelShape("llama", 32_000, 288, 6, 6, 768, 1024, tied=True)


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 200))
def test_tried_micro_batch_is_the_largest_that_fits_in_few_trials(limit, guess, most):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= limit

    found = tried_micro_batch(fits, guess, most)
    assert found == max(1, min(limit, most))
    assert len(tried) <= 2 * most.bit_length() + 1
    assert all(1 <= size <= most for size in tried)
    assert len(set(tried)) == len(tried)


@given(st.integers(0, 1 << 36), st.integers(1, 500))
def test_predicted_micro_batch_fits_and_one_more_would_not(free, most):
    one = Footprint(10 << 20, 0, 5 << 20, 1 << 20, process=0)
    found = predicted_micro_batch(one, free, most, context=64, device="cuda")
    assert 1 <= found <= most
    assert found == 1 or one.total(found) <= 0.85 * free
    assert found == most or one.total(found + 1) > 0.85 * free


def test_predicted_micro_batch_on_a_cpu_is_no_more_than_its_caches_serve():
    one = footprint(PROXY, 1024, "bf16")
    assert predicted_micro_batch(one, 1 << 40, 64, context=1024) == 4
    assert predicted_micro_batch(one, 1 << 40, 3, context=1024) == 3
    assert predicted_micro_batch(one, 0, 64, context=1024) == 1


def test_footprint_grows_by_what_is_kept_and_shrinks_by_what_is_shared():
    plain = footprint(PROXY, 1024, "bf16")
    assert checkpoint_bytes(PROXY) == 12 * 15_191_712
    assert plain.state == 16 * 15_191_712
    # By hand: six blocks keep 6 x 288 + 2 x 288 + 3 x 768 = 4,608 values a token, half a block's gradients beside them.
    assert plain.sequence == 1024 * 2 * (6 * 4608 + 2304 + 4 * 288)
    assert footprint(PROXY, 1024, "fp32").sequence == 2 * plain.sequence
    assert footprint(PROXY, 1024, "bf16", recompute=True).sequence < plain.sequence / 2
    assert footprint(PROXY, 1024, "bf16", background=True).copy == checkpoint_bytes(PROXY)
    assert footprint(PROXY, 1024, "bf16", shards=4).state == plain.state // 4
    wider = dataclasses.replace(PROXY, kv_heads=2)
    assert footprint(wider, 1024, "bf16").sequence < plain.sequence


@pytest.mark.parametrize(
    ("context", "precision", "sequences", "measured_mib"),
    # Peaks of train steps of the 15M proxy without Lightning (docs/training.md).
    [(1024, "bf16", 4, 1092), (256, "bf16", 8, 942), (256, "fp32", 8, 1095)],
)
def test_footprint_is_within_a_tenth_of_measured_peaks(context, precision, sequences, measured_mib):
    predicted = footprint(PROXY, context, precision).total(sequences) / 2**20
    assert measured_mib / 1.1 < predicted < measured_mib * 1.1
