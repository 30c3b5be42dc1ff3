"""Sources: shards of any format as row batches, cut by bytes, every record a row.

chunks, opened   bytes, decompressed a chunk at a time
spans            chunks to whole records, with a bound on what is held
json_scan, json_records, csv_records, formats, parquet_records   records to columns
parquet_pages, parquet_text, snappy   very large pages of Parquet, without Arrow
kinds, where     types of what a source brings; which rows are read
rows, read       columns to row batches; `read_shard`
shards           which files a source names
"""

from curation.source.chunks import UnreadableShard
from curation.source.kinds import column_names, column_types
from curation.source.read import read_shard
from curation.source.reader import ReadCounts, Reader
from curation.source.records import READ_REASONS
from curation.source.rows import ROWS
from curation.source.shards import Shard, content_checksum, list_shards, one_format
from curation.source.where import SourceError, condition, did_you_mean

__all__ = [
    "READ_REASONS",
    "ROWS",
    "ReadCounts",
    "Reader",
    "Shard",
    "SourceError",
    "UnreadableShard",
    "column_names",
    "column_types",
    "condition",
    "content_checksum",
    "did_you_mean",
    "list_shards",
    "one_format",
    "read_shard",
]
