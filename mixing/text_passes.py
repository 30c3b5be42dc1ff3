"""Text for a tokenizer that reads it more than once, whatever it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class TextPasses:
    """Text that can be walked more than once: a one-shot iterator is spooled on its first walk.

    Attributes:
        num_documents: documents of the first walk, nulls left out.
        size_bytes: their bytes.
    """

    def __init__(self, text: Iterable[pa.Array], folder: Path) -> None:
        self.num_documents = self.size_bytes = 0
        self._text = text
        self._once = iter(text) is text
        self._spool = folder / "text.arrow"
        self._walked = False

    def documents(self) -> Iterator[str]:
        """Documents as Python strings, one array in memory at a time."""
        for array in self._spooled() if self._walked and self._once else self._first():
            yield from array.to_pylist()

    def _first(self) -> Iterator[pa.Array]:
        schema = pa.schema([("text", pa.large_string())])
        writer = pa.ipc.new_file(str(self._spool), schema) if self._once else None
        for array in self._text:
            kept = array.drop_null().cast(pa.large_string())
            if not self._walked:
                self.num_documents += len(kept)
                self.size_bytes += pc.sum(pc.binary_length(kept)).as_py() or 0
            if writer is not None:
                writer.write_batch(pa.record_batch([kept], schema=schema))
            yield kept
        if writer is not None:
            writer.close()
        self._walked = True

    def _spooled(self) -> Iterator[pa.Array]:
        with pa.memory_map(str(self._spool)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number).column(0)


def count_characters(documents: Iterable[str]) -> dict[str, int]:
    """Characters of documents and how often each occurs, the most frequent first, ties by code point."""
    counts: Counter[int] = Counter()
    for document in documents:
        points, each = np.unique(np.frombuffer(document.encode("utf-32-le"), np.uint32), return_counts=True)
        counts.update(dict(zip(points.tolist(), each.tolist())))
    return {chr(point): counts[point] for point in sorted(counts, key=lambda point: (-counts[point], point))}
