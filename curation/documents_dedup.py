"""MinHash deduplication for anybody's datatrove pipelines, in three blocks as datatrove's own but of one description.

    description = MinhashDedup("dedup/", threshold=0.8)
    executor(pipeline=[reader, MinhashSignatures(description)], tasks=8).run()
    executor(pipeline=[MinhashMatch(description)], tasks=1).run()
    executor(pipeline=[reader, MinhashFilter(description), writer], tasks=8).run()

The first block writes a file of signatures for each task, the second matches all of them, the third drops what is a
duplicate of a document that stays. What is dropped is what the recipe's `dedup` step drops of the same documents, each
task taken as a shard. The reader of the third pipeline must give the documents of the first, in as many tasks: this is
checked, document by document.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from curation.documents import BATCH_BYTES, BatchedStep, Metadata, Outcome, gathered

SOURCE = "documents"
_TASKS = b"gristmill.tasks"


class DedupFilesError(ValueError):
    """Files of the blocks that do not fit each other or the documents."""


@dataclass(frozen=True)
class MinhashDedup:
    """What the three blocks share.

    Args:
        folder: for their files, local and seen by all tasks; some 150 bytes a document, and with `verify` its text.
        threshold: similarity at which two documents are duplicates; bands and rows follow from it.
        shingle: words of a shingle, or characters with `unit`.
        unit: words | characters.
        cluster: star (every dropped document is similar to the kept one) | components.
        verify: least measured Jaccard similarity of a candidate pair, or None to trust the bands.
        keep: order of preference, as in a recipe: longest, newest, {COLUMN: asc}, {COLUMN: [best, second]}; a column is
            metadata, numbers unless its words are listed. Ties go to the first document.
        memory: bytes that matching may use.
    """

    folder: str
    threshold: float = 0.8
    shingle: int = 5
    unit: str = "words"
    cluster: str = "star"
    verify: float | None = None
    keep: tuple[str | Mapping[str, object], ...] = ()
    memory: int = 2 << 30

    def path(self, task: int, what: str) -> Path:
        """File of one task: signatures, documents or duplicates."""
        return Path(self.folder) / f"{task:05d}.{what}.parquet"

    def match_options(self) -> Any:
        """Options of signatures and matching, as the recipe's step has them."""
        from curation.dedup.match import MatchOptions
        from curation.dedup.minhash import Options, bands_for_threshold
        from curation.stages.dedup import HASHES

        bands, rows = bands_for_threshold(self.threshold, HASHES)
        made = Options(shingle=self.shingle, unit=self.unit, bands=bands, rows=rows)
        return MatchOptions(made, self.cluster, self.verify)


class MinhashSignatures(PipelineStep):  # type: ignore[misc]
    """Writes the signatures of a task's documents, and gives the documents on.

    Args:
        dedup: what the three blocks share.
        batch_bytes: text gathered before it is hashed.
    """

    type = "gristmill"
    name = "minhash signatures"

    def __init__(self, dedup: MinhashDedup, batch_bytes: int = BATCH_BYTES) -> None:
        super().__init__()
        self.dedup, self.batch_bytes = dedup, batch_bytes

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The documents as they came; the files are whole once all were taken."""
        from curation.dedup.minhash import schema, signatures

        options = self.dedup.match_options().signatures
        Path(self.dedup.folder).mkdir(parents=True, exist_ok=True)
        paths = [self.dedup.path(rank, what) for what in ("signatures", "documents")]
        known = _documents_schema(self.dedup)
        metadata = {_TASKS: str(world_size).encode()}
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(
                    pq.ParquetWriter(
                        path.with_suffix(".tmp"),
                        wanted.with_metadata({**(wanted.metadata or {}), **metadata}),
                        compression="zstd",
                    )
                )
                for path, wanted in zip(paths, (schema(options), known), strict=True)
            ]
            for held, text in gathered(data or (), self.batch_bytes):
                with self.track_time("batch"):
                    for writer, batch in zip(
                        writers, (signatures(text, options), _described(held, text, self.dedup)), strict=True
                    ):
                        writer.write_batch(batch.cast(writer.schema) if batch.schema != writer.schema else batch)
                for document in held:
                    self.stat_update("documents")
                    yield document
        for path in paths:
            path.with_suffix(".tmp").replace(path)


def _documents_schema(dedup: MinhashDedup) -> pa.Schema:
    """What is kept of each document: a hash to know it again, what `keep` compares, its text where it is verified."""
    columns: list[tuple[str, pa.DataType]] = [
        ("content_id", pa.binary(16)), ("num_characters", pa.int64()), ("date", pa.string()), ("id", pa.string()),
    ]  # fmt: skip
    columns += list(_compared(dedup).items())
    columns += [("text", pa.large_string())] if dedup.verify is not None else []
    return pa.schema(columns)


def _compared(dedup: MinhashDedup) -> dict[str, pa.DataType]:
    """Metadata that `keep` compares beside length and date: words where it lists them, else numbers."""
    from curation.dedup.keep import read_keep

    criteria = [criterion for criterion in read_keep(dedup.keep) if criterion.column]
    listed = {criterion.column for criterion in criteria if isinstance(criterion.order, tuple)}
    names = sorted({str(criterion.column) for criterion in criteria} - {"num_characters", "date"})
    return {name: pa.string() if name in listed else pa.float64() for name in names}


def _described(held: Sequence[Document], text: pa.Array, dedup: MinhashDedup) -> pa.RecordBatch:
    columns: dict[str, Any] = {
        "content_id": content_ids(text),
        "num_characters": [len(document.text) for document in held],
        "date": [_as_text(document.metadata.get("date")) for document in held],
        "id": [str(document.id) for document in held],
    }
    for name, kind in _compared(dedup).items():
        values = [document.metadata.get(name) for document in held]
        columns[name] = [_as_text(value) for value in values] if kind == pa.string() else _numbers(name, values)
    columns |= {"text": text} if dedup.verify is not None else {}
    schema = _documents_schema(dedup)
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[f.name], f.type) if f.name != "text" else text for f in schema], schema=schema
    )


def _numbers(name: str, values: Sequence[object]) -> list[object]:
    """Values that `keep` orders as numbers.

    Raises:
        KeepError: for one that is none, whose order has to be listed.
    """
    from curation.dedup.keep import KeepError

    for value in values:
        if not isinstance(value, int | float | None):
            raise KeepError(
                f"keep orders {name!r} as numbers, but a document has {value!r}; list its words, best first"
            )
    return list(values)


def content_ids(text: pa.Array) -> list[bytes]:
    """xxh3-128 of each text's UTF-8."""
    return [xxhash.xxh3_128_digest(content) for content in text.cast(pa.large_binary()).to_pylist()]


def _as_text(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


class MinhashMatch(PipelineStep):  # type: ignore[misc]
    """Matches the signatures of all tasks and writes each task's duplicates. Run it as one task.

    Args:
        dedup: what the three blocks share.
    """

    type = "gristmill"
    name = "minhash match"

    def __init__(self, dedup: MinhashDedup) -> None:
        super().__init__()
        self.dedup = dedup

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Match; documents that come are given on.

        Raises:
            DedupFilesError: when a task's signatures are missing.
        """
        yield from data or ()
        if rank:
            return
        from curation.dedup.inputs import MatchInput
        from curation.dedup.keep import read_keep
        from curation.dedup.match import match

        tasks = self._tasks()
        given = [
            MatchInput(
                SOURCE, f"{task:05d}", str(self.dedup.path(task, "signatures")),
                (str(self.dedup.path(task, "documents")),),
            )
            for task in range(tasks)
        ]  # fmt: skip
        with self.track_time():
            counts = match(
                given, self.dedup.match_options(), read_keep(self.dedup.keep),
                [str(self.dedup.path(task, "duplicates")) for task in range(tasks)], self.dedup.memory,
                fetch_text=self._texts if self.dedup.verify is not None else None, scratch=self.dedup.folder,
            )  # fmt: skip
        for label in ("documents", "duplicates", "clusters"):
            self.stat_update(label, value=counts[label])

    def _tasks(self) -> int:
        """Number of tasks that wrote signatures; all of them must be there."""
        found = sorted(Path(self.dedup.folder).glob("*.signatures.parquet"))
        if not found:
            raise DedupFilesError(f"{self.dedup.folder}: no signatures; run MinhashSignatures first")
        metadata = [pq.read_schema(path).metadata or {} for path in found]
        tasks = {int(each.get(_TASKS, b"0")) for each in metadata}
        if tasks != {len(found)}:
            raise DedupFilesError(
                f"{self.dedup.folder}: signatures of {len(found)} tasks, written by pipelines of "
                f"{', '.join(map(str, sorted(tasks)))}; finish the first pipeline, or empty the folder"
            )
        return len(found)

    def _texts(self, place: int, rows: np.ndarray) -> Iterator[pa.Array]:
        first = 0
        with pq.ParquetFile(self.dedup.path(place, "documents")) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["text"], use_threads=False):
                low, high = np.searchsorted(rows, [first, first + batch.num_rows])
                if high > low:
                    yield batch.column(0).take(pa.array(rows[low:high] - first))
                first += batch.num_rows


class MinhashFilter(BatchedStep):
    """Drops documents that are duplicates of one that stays, with `similarity` and `duplicate_of` in their metadata.

    Args:
        dedup: what the three blocks share.
        options: of every BatchedStep, such as `exclusion_writer`.
    """

    name = "minhash filter"

    def __init__(self, dedup: MinhashDedup, **options: Any) -> None:
        super().__init__(**options)
        self.dedup = dedup
        self.task, self.tasks = 0, 1

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents that stay; metadata `cluster_size` says of how many they stand for."""
        self.task, self.tasks = rank, world_size
        number = 0

        def counted() -> Iterator[Document]:
            nonlocal number
            for document in data:
                number += 1
                yield document

        yield from super().run(counted(), rank, world_size)
        known = self.dedup.path(rank, "documents")
        if number < (hashed := pq.read_metadata(known).num_rows):
            raise DedupFilesError(
                f"{known}: {hashed} documents were hashed, {number} came; use the same reader and tasks"
            )

    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Open the task's duplicates."""
        path, known = (self.dedup.path(self.task, what) for what in ("duplicates", "documents"))
        if not path.exists():
            raise DedupFilesError(f"{path}: not there; run MinhashMatch first, with the tasks of this pipeline")
        tasks = int((pq.read_schema(known).metadata or {}).get(_TASKS, b"0"))
        if tasks != self.tasks:
            raise DedupFilesError(
                f"{self.dedup.folder}: signatures of {tasks} tasks, but this pipeline has {self.tasks}"
            )
        found, seen = _Rows(path), _Rows(known, ["content_id"])

        def judge(text: pa.Array, metadata: Metadata) -> Outcome:
            rows, same = found.take(len(text)), seen.take(len(text))
            if same.column("content_id").to_pylist() != content_ids(text):
                raise DedupFilesError(f"{known}: other documents than those that come; use the same reader and tasks")
            columns = {
                "cluster_size": rows.column("cluster_size"),
                "similarity": rows.column("similarity"),
                "duplicate_of": pa.array([_where(row) for row in rows.to_pylist()], pa.string()),
            }
            return Outcome(columns, ["duplicate" if drop else None for drop in rows.column("drop").to_pylist()])

        return judge


def _where(row: Mapping[str, Any]) -> str | None:
    """`TASK/ROW` of the document that a duplicate duplicates."""
    return None if row["duplicate_shard"] is None else f"{row['duplicate_shard']}/{row['duplicate_row']}"


class _Rows:
    """Reads a row-aligned file a few rows at a time, whatever its row groups."""

    def __init__(self, path: Path, columns: list[str] | None = None) -> None:
        self._path = path
        self._batches = pq.ParquetFile(path).iter_batches(batch_size=16_384, columns=columns, use_threads=False)
        self._held: list[pa.RecordBatch] = []

    def take(self, number: int) -> pa.Table:
        """The next rows.

        Raises:
            DedupFilesError: if there are fewer.
        """
        taken: list[pa.RecordBatch] = []
        while number:
            if not self._held:
                try:
                    self._held = [next(self._batches)]
                except StopIteration:
                    raise DedupFilesError(f"{self._path}: fewer documents than those that come") from None
            batch = self._held.pop()
            taken.append(batch.slice(0, number))
            if batch.num_rows > number:
                self._held.append(batch.slice(number))
            number -= taken[-1].num_rows
        return pa.Table.from_batches(taken)
