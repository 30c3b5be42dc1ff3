"""Chunks cut into records: what a record is must not depend on where chunks end."""

import numpy as np
import pytest
import xxhash

from curation.source.spans import Lines, Unheld, cut

LIMIT = 10
SIZES = (3, LIMIT - 1, LIMIT, LIMIT + 1, 0, 3 * LIMIT, LIMIT)


def records_of(content, chunk_size):
    """(size, whether it is held or may be, bytes or hash) of each record, in order."""
    chunks = (content[start : start + chunk_size] for start in range(0, len(content), chunk_size))
    found = []
    for piece in cut(chunks, Lines(), LIMIT):
        if isinstance(piece, Unheld):
            found.append((piece.size_bytes, piece.reason, piece.content_id))
            continue
        for begin, end in zip(piece.begins.tolist(), piece.ends.tolist(), strict=True):
            record = np.asarray(piece.buffer)[begin:end].tobytes()
            reason = "" if len(record) <= LIMIT else "too_large"  # such a one is refused when its fields are read
            found.append((len(record), reason, xxhash.xxh3_128_digest(record) if reason else record))
    return found


@pytest.mark.parametrize("last", [b"", b"\n"])
def test_cut_gives_the_same_records_wherever_chunks_end(last):
    lines = [bytes([65 + number]) * size for number, size in enumerate(SIZES)]
    content = b"\n".join(lines) + last
    expected = [
        (len(line), "too_large", xxhash.xxh3_128_digest(line)) if len(line) > LIMIT else (len(line), "", line)
        for line in lines
    ]
    for chunk_size in range(1, len(content) + 1):
        assert records_of(content, chunk_size) == expected, chunk_size
