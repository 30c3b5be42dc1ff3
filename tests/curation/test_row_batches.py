"""Row batches are cut by rows and by bytes, and lose nothing."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.row_batches import cut_batches


def batches_of(lengths, size):
    rows = pa.record_batch(
        {"row": range(len(lengths)), "text": pa.array(["x" * n for n in lengths], pa.large_string())}
    )
    return rows, [rows.slice(start, size) for start in range(0, len(lengths), size)]


@given(
    st.lists(st.sampled_from([0, 3, 50, 400]), max_size=40),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from([1, 200, 1000]),
)
def test_batches_are_bounded_in_rows_and_bytes_and_hold_every_row(lengths, given_rows, rows, size_bytes):
    whole, batches = batches_of(lengths, given_rows)
    cut = list(cut_batches(batches, rows, size_bytes))
    assert pa.Table.from_batches(cut, whole.schema).equals(pa.Table.from_batches([whole]))
    assert all(0 < batch.num_rows <= rows for batch in cut)
    assert all(batch.nbytes <= size_bytes + 8 or batch.num_rows == 1 for batch in cut)


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 12))
def test_batches_of_small_rows_stand_at_every_so_many_rows(length, given_rows, rows):
    whole, batches = batches_of([3] * length, given_rows)
    expected = [whole.slice(start, rows).num_rows for start in range(0, length, rows)]
    assert [batch.num_rows for batch in cut_batches(batches, rows, 1 << 20)] == expected
