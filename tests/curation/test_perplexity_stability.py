import numpy as np
import pytest

from curation.perplexity.stability import by_length, by_order, by_sample_size, levels, same_ranks

HUNDRED = np.arange(1.0, 101.0)


def test_levels_put_a_cutoff_into_the_level_above():
    assert levels(np.array([1.0, 30.0, 31.0, 60.0]), (30.0, 60.0)).tolist() == [0, 1, 1, 2]


def test_sample_size_like_samples_move_little_and_another_half_moves_what_lies_between():
    like = np.tile(HUNDRED, 16)  # every part holds the same values
    assert [moved.share for moved in by_sample_size(like, (30.5, 60.5), parts=(2, 16))] == [0.0, 0.0]
    low_first = np.concatenate([HUNDRED, 100 + HUNDRED])
    (moved,) = by_sample_size(low_first, (100.5,), parts=(2,))
    assert moved.documents == 100
    assert moved.limits[0] == pytest.approx(50, rel=0.02)  # the median of the first half
    assert moved.share == pytest.approx(0.25, abs=0.01)  # 51 to 100 were below the cutoff
    assert by_sample_size(HUNDRED, (500.0,)) == []  # an empty tail has no share to cut at
    assert by_sample_size(HUNDRED[:20], (10.5,)) == []  # samples of five documents tell nothing


def test_length_shares_are_those_of_each_quarter():
    characters = np.array([10, 40, 20, 30, 50, 60, 70, 80])
    perplexity = np.array([9.0, 1.0, 9.0, 1.0, 1.0, 5.0, 1.0, 5.0])
    assert by_length(perplexity, characters, (3.0, 7.0)) == [
        (10, 20, 2, (0.0, 0.0, 1.0)),
        (30, 40, 2, (1.0, 0.0, 0.0)),
        (50, 60, 2, (0.5, 0.5, 0.0)),
        (70, 80, 2, (0.5, 0.5, 0.0)),
    ]
    assert by_length(np.array([]), np.array([]), (3.0,)) == []


def test_order_moves_documents_that_change_their_rank():
    assert by_order(HUNDRED, HUNDRED * 7, (30.5, 60.5)) == (0.0, pytest.approx(1.0))
    moved, ranks = by_order(HUNDRED, HUNDRED[::-1], (50.5,))
    assert (moved, ranks) == (1.0, pytest.approx(-1.0))
    assert same_ranks(HUNDRED, np.ones(100)) == 1.0
