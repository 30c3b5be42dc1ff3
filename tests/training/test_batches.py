import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from training.batches import (  # noqa: E402
    TrainBatches,
    num_micro_batches,
    position_after,
    positions_of,
    read_batch,
    share,
    skip_after,
    span_of,
    synthetic_stream,
    tokens_after,
)
from training.spec import Span  # noqa: E402

# Two steps of 8, then 100 sequences are skipped, then steps of 16 twice as long.
SPANS = (Span(0, 0, 0, 8, 32), Span(2, 116, 512, 16, 64))


def test_positions_follow_spans_and_skips():
    assert [positions_of(SPANS, step) for step in range(4)] == [(0, 8), (8, 16), (116, 132), (132, 148)]
    assert [position_after(SPANS, steps) for steps in range(4)] == [0, 8, 16, 132]
    assert [tokens_after(SPANS, steps) for steps in range(4)] == [0, 256, 512, 1536]
    assert span_of(SPANS, 1).context == 32


def test_skip_after_leaves_out_planned_steps_and_keeps_the_rest():
    # Planned: 2 steps of 8 x 32, then 16 x 64 from position 116. Leaving out the steps 1 and 2:
    left = skip_after(SPANS, 1, 2)
    assert left == (Span(0, 0, 0, 8, 32), Span(1, 132, 1536, 16, 64))
    assert [positions_of(left, step) for step in range(3)] == [(0, 8), (132, 148), (148, 164)]
    # Within one span, before a later one:
    left = skip_after((Span(0, 0, 0, 8, 32), Span(9, 72, 2304, 16, 64)), 2, 3)
    assert left == (Span(0, 0, 0, 8, 32), Span(2, 40, 1280, 8, 32), Span(6, 72, 2304, 16, 64))
    # From where one span begins to where another does: nothing of the former is left, and the latter is there once.
    whole = (Span(0, 0, 0, 8, 32), Span(2, 16, 512, 4, 32), Span(5, 28, 896, 16, 64))
    assert skip_after(whole, 2, 3) == (Span(0, 0, 0, 8, 32), Span(2, 28, 896, 16, 64))


@given(st.integers(0, 200), st.integers(1, 9))
def test_shares_cover_a_batch_once_and_evenly(sequences, world):
    shares = [share(sequences, rank, world) for rank in range(world)]
    assert [place for part in shares for place in part] == list(range(sequences))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 9))
def test_micro_batches_hold_the_largest_share(sequences, world, micro):
    count = num_micro_batches(sequences, world, micro)
    largest = max(len(share(sequences, rank, world)) for rank in range(world))
    assert (count - 1) * micro < largest <= count * micro


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_batches_any_number_of_processes_reads_the_same(world):
    stream = synthetic_stream(64, ["a", "b", "c"], 32)
    whole = read_batch(stream, SPANS, 2, 0, 1)
    parts = [read_batch(stream, SPANS, 2, rank, world) for rank in range(world)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
    assert whole.tokens.shape == (16, 65)
    assert all(np.array_equal(part.domains, whole.domains) for part in parts)
    assert [part.first for part in parts] == [share(16, rank, world).start for rank in range(world)]


def test_train_batches_resume_exactly_from_any_step():
    stream = synthetic_stream(64, ["a", "b"], 32)
    all_steps = list(TrainBatches(stream, SPANS, 0, 5, 0, 1))
    for start in range(6):
        batches = TrainBatches(stream, SPANS, start, 5, 0, 1)
        assert len(batches) == 5 - start
        for found, expected in zip(batches, all_steps[start:], strict=True):
            assert found.step == expected.step
            assert torch.equal(found.tokens, expected.tokens)
