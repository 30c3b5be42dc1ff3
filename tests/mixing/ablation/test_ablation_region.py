"""Allowed mixtures: repair by scaling, caps by water filling, the nearest allowed mixture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.ablation.region import BoundsError, allowed_region, is_inside, make_region, nearest, repair

NAMES = ("code", "en_web", "zh_web", "zh_wiki")


def test_repair_scales_a_group_to_its_bound_and_keeps_ratios():
    region = make_region(NAMES, (("zh_*", 0.6, 0.8),))
    moved = repair(region, np.array([[0.2, 0.4, 0.3, 0.1]]))[0]
    np.testing.assert_allclose(moved, [0.4 / 3, 0.8 / 3, 0.45, 0.15], rtol=1e-3)


def test_repair_leaves_an_allowed_mixture_as_it_is():
    region = make_region(NAMES, (("zh_*", 0.3, 0.8),))
    weights = np.array([[0.25, 0.25, 0.5, 0.0]])
    np.testing.assert_array_equal(repair(region, weights), weights)


def test_repair_gives_what_caps_cut_off_to_the_others_in_proportion():
    region = make_region(("a", "b", "c"), (), {"a": 0.25})
    np.testing.assert_allclose(repair(region, np.array([[0.5, 0.3, 0.2]]))[0], [0.25, 0.45, 0.3], rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.4))
def test_nearest_is_allowed_under_overlapping_bounds_and_caps(seed, least_chinese, least_web):
    region = make_region(
        NAMES, (("zh_*", least_chinese, 0.9), ("*_web", least_web, 0.95), ("code", 0.0, 0.3)), {"zh_web": 0.5}
    )
    weights = np.random.default_rng(seed).dirichlet(np.full(4, 0.2))
    moved = nearest(region, weights)
    assert moved.sum() == pytest.approx(1)
    assert is_inside(region, moved[None])[0]


def test_make_region_with_caps_and_bounds_that_contradict_names_both():
    with pytest.raises(BoundsError, match=r"code: \[0.5, 0.6\].*code <= 0.1.*raise domains.max_epochs"):
        make_region(NAMES, (("code", 0.5, 0.6),), {"code": 0.1})


def test_allowed_region_with_too_little_supply_raises_caps_in_proportion_and_says_so():
    notes = []
    region = allowed_region(("a", "b"), (), {"a": 0.2, "b": 0.3}, {}, notes)
    np.testing.assert_allclose(region.caps, [0.4, 0.6])
    assert "50.0% of the target's tokens" in notes[0]
