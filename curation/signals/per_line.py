"""The values of RedPajama-V2's line signals of every line, as lists beside the document's mean or sum.

A line is measured as a document of one line, so each value is what enters the document's; lines keep their line feed,
and RedPajama-V2's spans follow from the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.signals.redpajama import SIGNALS, measure_redpajama
from curation.signals.signal import Texts
from curation.text.dictionary import Dictionary, joined_letters
from curation.text.segment import frozen, utf8_buffers

# document signal -> the column of its lines
LINE_COLUMNS = {s.name: s.name.rpartition("_")[0] for s in SIGNALS if s.name.startswith("rps_lines_")}


def line_values(
    text: pa.Array, names: Sequence[str], language: str, dictionary: Dictionary | None = None
) -> dict[str, pa.Array]:
    """Lists of line values of each text.

    Args:
        text: large_string, nulls allowed.
        names: keys of LINE_COLUMNS.
        language: as for `measure`.
        dictionary: as for `measure`.

    Returns:
        list<float64> by column of LINE_COLUMNS; null where the text is. Memory: some 250 bytes a line of the batch.
    """
    content, offsets = utf8_buffers(text)
    present = ~np.asarray(text.is_null().to_numpy(zero_copy_only=False), bool)
    inside = np.flatnonzero(content[offsets[0] : offsets[-1]] == 10) + offsets[0] + 1 if len(content) else offsets[:0]
    starts = np.unique(np.concatenate([offsets, inside])).astype(np.int64)
    first_line = np.searchsorted(starts, offsets)
    joined = joined_letters(content, offsets, frozen(present), dictionary)
    lines = Texts(content, frozen(starts), frozen(np.ones(len(starts) - 1, bool)), joined)
    measured = measure_redpajama(lines, language, frozenset(names), {})
    bounds = pa.array(first_line, pa.int32(), mask=~np.append(present, True))
    return {
        LINE_COLUMNS[name]: pa.ListArray.from_arrays(bounds, pa.array(np.nan_to_num(measured[name])))
        for name in sorted(names)
    }
