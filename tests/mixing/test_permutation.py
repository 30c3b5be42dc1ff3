"""Keyed permutations: bijections with an inverse, and shuffles that a chi-square test cannot tell from chance."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from mixing.permutation import BUFFER, derive_key, name_key, permute, permute_local, unpermute, unpermute_local

keys = st.integers(0, 2**64 - 1).map(np.uint64)


def child_key(key, number):
    return np.uint64(derive_key(np.uint64(key), number))


def chi_square_p(counts: np.ndarray) -> float:
    """Return the probability of counts at least as uneven as these, if all were equally likely."""
    expected = counts.sum() / counts.size
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1))


@given(size=st.integers(1, 300), key=keys)
@settings(max_examples=60, deadline=None)
def test_permutation_of_any_size_is_a_bijection(size, key):
    images = [permute(index, size, key) for index in range(size)]

    assert sorted(images) == list(range(size))
    assert [unpermute(image, size, key) for image in images] == list(range(size))


@given(size=st.integers(1, 2**61), key=keys, data=st.data())
@settings(max_examples=200, deadline=None)
def test_permutation_of_large_sizes_is_undone_by_its_inverse(size, key, data):
    index = data.draw(st.integers(0, size - 1))

    image = permute(index, size, key)

    assert 0 <= image < size
    assert unpermute(image, size, key) == index


@given(root=st.integers(2, 2**30), offset=st.integers(-1, 1), key=keys)
@settings(deadline=None)
def test_permutation_next_to_perfect_squares_stays_in_range(root, offset, key):
    # the side of the square is a rounded float root, corrected in integers
    size = root * root + offset

    assert unpermute(permute(size - 1, size, key), size, key) == size - 1


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_permutation_of_few_things_reaches_every_arrangement_alike(size):
    arrangements = {arrangement: place for place, arrangement in enumerate(permutations(range(size)))}
    counts = np.zeros(len(arrangements))
    for number in range(200 * len(arrangements)):
        key = child_key(7, number)
        counts[arrangements[tuple(permute(index, size, key) for index in range(size))]] += 1

    assert chi_square_p(counts) > 1e-3


@pytest.mark.parametrize("size", [6, 20, 97, 256, 1000])
def test_permutation_first_position_over_many_keys_is_uniform(size):
    counts = np.zeros(size)
    for number in range(20 * size):
        counts[permute(0, size, child_key(11, number))] += 1

    assert chi_square_p(counts) > 1e-3


@pytest.mark.parametrize("size", [30, 300])
def test_permutation_neighbours_over_many_keys_are_apart_by_any_distance(size):
    counts = np.zeros(size)
    for number in range(100 * size):
        key = child_key(5, number)
        counts[(permute(1, size, key) - permute(0, size, key)) % size] += 1

    assert counts[0] == 0
    assert chi_square_p(counts[1:]) > 1e-3


def test_permutation_fixed_points_are_as_rare_as_chance_has_them():
    # the number of fixed points of a random permutation is Poisson with mean 1
    size, trials = 100, 2000
    numbers = Counter(
        sum(permute(index, size, key) == index for index in range(size))
        for key in (child_key(3, trial) for trial in range(trials))
    )

    mean = sum(number * count for number, count in numbers.items()) / trials
    assert mean == pytest.approx(1, abs=0.1)
    assert numbers[0] / trials == pytest.approx(0.368, abs=0.04)


def test_name_key_of_other_words_seed_or_cut_is_another():
    assert name_key(0, "epoch", "web") != name_key(1, "epoch", "web")
    assert name_key(0, "epoch", "web") != name_key(0, "epochw", "eb")
    assert name_key(0, "epoch", "web") == name_key(0, "epoch", "web")


def test_permutation_with_a_fixed_key_stays_what_it_was():
    # orders of finished runs must never change: these numbers were written down once
    key = np.uint64(name_key(0, "epoch", "web"))

    assert int(key) == 10172732628565716470
    assert [permute(index, 10, key) for index in range(10)] == [4, 0, 2, 8, 1, 6, 3, 9, 5, 7]
    assert [permute(index, 10**12, key) for index in range(3)] == [949139869658, 363719443279, 661750678863]


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 700), stretch=st.integers(0, 40), key=st.integers(0, 2**64 - 1))
def test_permute_local_is_a_permutation_with_its_inverse_and_neighbours_stay_near(size, stretch, key):
    key = np.uint64(key)
    sent = [permute_local(index, size, key, stretch) for index in range(size)]
    assert sorted(sent) == list(range(size))
    assert [unpermute_local(value, size, key, stretch) for value in sent] == list(range(size))
    if stretch:
        for start in range(0, size, BUFFER * stretch):
            together = {value // stretch for value in sent[start : start + BUFFER * stretch]}
            assert len(together) <= BUFFER


def test_permute_local_spreads_like_chance_over_keys():
    # where the first of 640 goes, over 20,000 keys: 20 bins, chi-square with 19 degrees of freedom, 0.1% at 43.8
    seen = np.array([permute_local(0, 640, np.uint64(key), 8) for key in range(20_000)]) // 32
    counts = np.bincount(seen, minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8
