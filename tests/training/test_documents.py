import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from training.documents import documents_of  # noqa: E402

# A row of tokens with 0 as the separator: runs of it, none, first, last.
ROWS = st.integers(1, 12).flatmap(lambda T: st.lists(st.lists(st.integers(0, 3), min_size=T, max_size=T), max_size=3))


def split(row):
    """Documents as lists of places, by reading on until a separator."""
    found = [[]]
    for place, token in enumerate(row):
        found[-1].append(place)
        if token == 0:
            found.append([])
    return [one for one in found if one]


@settings(max_examples=60, deadline=None)
@given(ROWS.filter(bool))
def test_documents_end_with_their_separators(rows):
    found = documents_of(torch.tensor(rows), 0)
    mask, positions = found.mask(), found.positions()
    for sequence, row in enumerate(rows):
        seen = torch.zeros(len(row), len(row), dtype=torch.bool)
        for number, places in enumerate(split(row)):
            assert found.numbers[sequence, places].tolist() == [number] * len(places)
            assert positions[sequence, places].tolist() == list(range(len(places)))
            for query in places:
                seen[query, [key for key in places if key <= query]] = True
        assert torch.equal(mask[sequence, 0], seen)
