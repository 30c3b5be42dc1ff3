"""Which document of a cluster stays: places by a column, ranks, and what decided."""

import numpy as np
import pyarrow as pa
import pytest

from curation.dedup.keep import Criterion, column_places, deciding, ranks
from curation.dedup.layer import Result


@pytest.mark.parametrize(
    ("order", "values", "places"),
    [
        ("ascending", [2.0, None, 1.0, 2.0], [1, 2, 0, 1]),
        ("descending", [2.0, None, 1.0, 2.0], [0, 2, 1, 0]),
        ("descending", [float("nan"), 3.0, float("-inf")], [2, 0, 1]),
        ("ascending", [7, None], [0, 1]),
        ("ascending", ["b", None, "ä", "a"], [1, 3, 2, 0]),
        ("ascending", [None, None], [0, 0]),
        ("ascending", [], []),
        (("new", "old"), ["old", None, "new", "other"], [1, 2, 0, 2]),
    ],
)
def test_column_places_put_what_is_missing_last_in_either_order(order, values, places):
    column = pa.chunked_array([pa.array(values)])
    assert column_places(Criterion("signal", "signal", order=order), column).tolist() == places


def test_deciding_names_the_first_criterion_that_differs_from_the_best_loser():
    places = [np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0])]
    rank = ranks(places, 4)
    assert rank.tolist() == [0, 2, 3, 1]
    assert deciding(places, np.array([0, 0, 0]), np.array([1, 2, 3])).tolist() == [1, 0, 2]
    # 0 stays of 0, 1 and 2: against 1, the better of the two, the second criterion decided
    survivor = np.array([0, 0, 0, 3])
    made = Result.make(np.arange(4), survivor, np.ones(4), rank, places, ["first", "second"], (0, 0, 0))
    assert made.decided.tolist() == [1, 1, 1, 2]
    assert (made.size.tolist(), made.first.tolist()) == ([3, 3, 3, 1], [0, 0, 0, 3])
    assert made.dropped.tolist() == [False, True, True, False]
