"""Dates as people and crawlers write them, in seconds since 1970, so that the newest of several can be told.

Read are ISO 8601 (also a year or a month alone, and `20240102` or Common Crawl's `20240102030405`), e-mail's and HTTP's
`Tue, 02 Jan 2024 03:04:05 GMT` (RFC 2822), `02.01.2024` (dots: the day stands first), and seconds or milliseconds since
1970. `01/02/2024` is no date here: half of the world means January, the other half February. Without a zone: UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import mktime_tz, parsedate_tz

import pyarrow as pa
import pyarrow.compute as pc

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = 1 << 16
_DIGITS = re.compile(r"(\d+)(\.\d+)?")
_DIGITS_OF_SECONDS, _DIGITS_OF_MILLISECONDS = (9, 10), (12, 13)  # 1973 to 2286, 2001 to 2286
_FORMS = {4: "%Y", 8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}  # by number of digits
_MONTH = re.compile(r"\d{4}-\d{2}")
_DOTTED = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}")


def read_date(text: str) -> float | None:
    """Seconds since 1970 of a written date, None where it is none of the module's forms."""
    text = text.strip()
    try:
        if digits := _DIGITS.fullmatch(text):
            return _of_digits(text, len(digits[1]))
        if _DOTTED.fullmatch(text):
            return _since_1970(datetime.strptime(text, "%d.%m.%Y").replace(tzinfo=UTC))
        if text[:4].isdigit():
            return _since_1970(datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text))
        parts = parsedate_tz(text)
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _of_digits(text: str, number: int) -> float | None:
    if number in _DIGITS_OF_SECONDS:
        return float(text)
    if number in _DIGITS_OF_MILLISECONDS:
        return float(text) / 1000
    form = _FORMS.get(number)
    return None if form is None else _since_1970(datetime.strptime(text, form).replace(tzinfo=UTC))


def _since_1970(moment: datetime) -> float:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) / timedelta(seconds=1)


def read_dates(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Seconds since 1970 of a column of dates, null where there is none, and how many values are no date.

    Memory: 8 bytes a value, and the texts of 65,536 of them.
    """
    chunks, unread = [], 0
    for chunk in values.cast(pa.large_string()).chunks:
        for first in range(0, len(chunk), _ROWS):
            written = pc.utf8_trim_whitespace(chunk.slice(first, _ROWS))
            encoded = pc.dictionary_encode(written)
            dates = pa.array([read_date(text) for text in encoded.dictionary.to_pylist()], pa.float64())
            found = dates.take(encoded.indices)
            unread += pc.sum(pc.and_(found.is_null(), pc.greater(pc.binary_length(written), 0))).as_py() or 0
            chunks.append(found)
    return pa.chunked_array(chunks, pa.float64()), unread
