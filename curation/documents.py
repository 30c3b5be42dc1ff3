"""The way to and from datatrove: rows as `Document`s, and our steps as blocks of anybody's datatrove pipeline.

    reader -> ShardReader | any datatrove reader
    step   -> LanguageStep, RulesStep, PerplexityStep, SignatureStep, or a BatchedStep of your own;
              `curation.documents_dedup` has MinHash deduplication in three blocks
    edges  -> documents_of(row batch), row_batches(documents)

A block gathers documents to row batches by bytes, measures the whole batch at once, and gives the documents on with
their signals in `metadata`, equal to what a gristmill run writes. A block holds plain values only: models are opened
inside `run`.
datatrove's own traps stay outside: labels of statistics are plain words, unreadable records are counted and not lost
silently, and two blocks share no configuration that could differ.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pyarrow as pa
import xxhash
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from curation.language_codes import language_code
from curation.source import ROWS, ReadCounts, Reader, column_types, read_shard

BATCH_BYTES = 16 << 20
_FIELDS = ("url", "date", "licence")

Metadata = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What a block found out about a row batch; all row-aligned.

    columns: values for `metadata`. reasons: why a document is dropped, None keeps it. text: edited texts.
    """

    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    reasons: Sequence[str | None] | None = None
    text: pa.Array | None = None


def documents_of(batch: pa.RecordBatch) -> Iterator[Document]:
    """The readable rows of a batch of the schema ROWS as documents.

    The id is `origin_id`, else the content id in hexadecimal digits; all other columns but the text are in `metadata`,
    null ones left out.
    """
    for row in batch.to_pylist():
        text, origin, content_id = row.pop("text"), row.pop("origin_id"), row.pop("content_id").hex()
        if text is not None:
            metadata = {name: value for name, value in row.items() if value is not None}
            yield Document(text, origin or content_id, metadata={**metadata, "content_id": content_id})


def row_batches(documents: Iterable[Document], batch_bytes: int = BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Documents as row batches of the schema ROWS, numbered from 0; of `metadata` url, date and licence come along.

    Memory: one batch, cut when its texts reach `batch_bytes`.
    """
    first_row = 0
    for held, text in gathered(documents, batch_bytes):
        yield _rows(held, text, first_row)
        first_row += len(held)


def _rows(held: list[Document], text: pa.Array, first_row: int) -> pa.RecordBatch:
    contents = text.cast(pa.large_binary()).to_pylist()
    columns = {
        "row": range(first_row, first_row + len(held)),
        "content_id": [xxhash.xxh3_128_digest(content) for content in contents],
        "origin_id": [str(document.id) for document in held],
        **{name: [_as_text(document.metadata.get(name)) for document in held] for name in _FIELDS},
        "size_bytes": [len(content) for content in contents],
        "num_characters": [len(document.text) for document in held],
        "read_reason": [None] * len(held),
        "repaired": [0] * len(held),
    }
    arrays = [pa.array(columns[name], ROWS.field(name).type) if name != "text" else text for name in ROWS.names]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS)


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)


def gathered(documents: Iterable[Document], batch_bytes: int) -> Iterator[tuple[list[Document], pa.Array]]:
    """Documents with their texts as large_string, at least one and about `batch_bytes` at a time."""
    held: list[Document] = []
    contents: list[bytes] = []
    size = 0
    for document in documents:
        held.append(document)
        contents.append(_utf8(document))
        size += len(contents[-1])
        if size >= batch_bytes:
            yield held, pa.array(contents, pa.large_binary()).cast(pa.large_string())
            held, contents, size = [], [], 0
    if held:
        yield held, pa.array(contents, pa.large_binary()).cast(pa.large_string())


def _utf8(document: Document) -> bytes:
    """A document's text as UTF-8; lone surrogates, which no file can hold, become U+FFFD in the document too."""
    text: str = document.text
    try:
        return text.encode()
    except UnicodeEncodeError:
        document.text = text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text.encode()


class ShardReader(PipelineStep):
    """Reads shards as documents; every record that is none is counted as `dropped_<read reason>`.

    Args:
        paths: shards; task `rank` of `world_size` reads every `world_size`-th from `rank` on.
        reader: how they are read.
    """

    type = "reader"
    name = "gristmill shards"

    def __init__(self, paths: Sequence[str], reader: Reader) -> None:
        super().__init__()
        self.paths = list(paths)
        self.reader = reader

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents that came before, then those of this task's shards."""
        yield from data or ()
        if not self.paths:
            return
        # the first shards say for all of them which kinds the brought columns have, whatever task reads what
        reader = replace(self.reader, types=column_types(self.paths, self.reader))
        for path in self.paths[rank::world_size]:
            counts = ReadCounts()
            for batch in read_shard(path, reader, counts=counts):
                for document in documents_of(batch):
                    self.stat_update("documents")
                    self.update_doc_stats(document)
                    yield document
            for reason, number in sorted(counts.reasons.items()):
                self.stat_update(f"dropped_{reason}", value=number)
            for label in ("unread_where", "unread_sample", "blank"):
                if getattr(counts, label):
                    self.stat_update(label, value=getattr(counts, label))


class BatchedStep(PipelineStep):
    """A block that looks at row batches: subclasses say in `opened` what is done with a batch.

    Args:
        exclusion_writer: a datatrove writer for what is dropped; it gets the reason as `metadata["filter_reason"]`.
        batch_bytes: text gathered before the batch is measured; the outcome must not depend on it.
    """

    type = "gristmill"
    name = "step"

    def __init__(self, exclusion_writer: Any = None, batch_bytes: int = BATCH_BYTES) -> None:
        super().__init__()
        self.exclusion_writer = exclusion_writer
        self.batch_bytes = batch_bytes

    @abstractmethod
    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Open models and compile conditions; what is returned is called on (texts, the documents' metadata)."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents that are kept, in their order, with the signals in their metadata."""
        judge = self.opened()
        with self.exclusion_writer or contextlib.nullcontext() as writer:
            for held, text in gathered(data, self.batch_bytes):
                with self.track_time("batch"):
                    outcome = judge(text, [document.metadata for document in held])
                for document, reason in zip(held, self._told(held, outcome), strict=True):
                    self.stat_update("total")
                    if reason is None:
                        self.stat_update("forwarded")
                        self.update_doc_stats(document)
                        yield document
                        continue
                    self.stat_update("dropped", f"dropped_{reason}")
                    if writer is not None:
                        document.metadata["filter_reason"] = reason
                        writer.write(document, rank)

    @staticmethod
    def _told(held: list[Document], outcome: Outcome) -> Sequence[str | None]:
        """Write the outcome into the documents; the reasons to drop them."""
        for name, column in outcome.columns.items():
            for document, value in zip(held, column.to_pylist(), strict=True):
                document.metadata[name] = value
        if outcome.text is not None:
            for document, text in zip(held, outcome.text.to_pylist(), strict=True):
                document.text = "" if text is None else text
        return outcome.reasons if outcome.reasons is not None else [None] * len(held)


class LanguageStep(BatchedStep):
    """Adds `language` and `language_score`; drops what is not declared, or declared with too low a score.

    Args:
        languages: declared codes, labels or names (`de`, `deu_Latn`, `German`); empty drops nothing.
        min_score: least score, of all languages or by code, `*` for the others.
        model: `lid176` or a fastText model's path.
        excerpt: (pieces, characters) of long documents to look at; None looks at all.

    Raises:
        ValueError: for a language that is not known.
    """

    name = "language"

    def __init__(
        self, languages: Sequence[str] = (), min_score: float | Mapping[str, float] = 0.0, model: str = "lid176",
        excerpt: tuple[int, int] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.languages = tuple(map(language_code, languages))
        self.min_score: float | dict[str, float] = (
            min_score
            if isinstance(min_score, int | float)
            else {code if code == "*" else language_code(code): least for code, least in min_score.items()}
        )
        self.model = model
        self.excerpt = excerpt

    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Load the model."""
        from curation.language import Excerpt, LanguageModel, resolve_model

        model = LanguageModel(resolve_model(self.model))
        excerpt = Excerpt(*self.excerpt) if self.excerpt else None

        def judge(text: pa.Array, metadata: Metadata) -> Outcome:
            codes, scores = model.identify(text, excerpt)
            reasons = [
                self._reason(code, score) for code, score in zip(codes.to_pylist(), scores.to_pylist(), strict=True)
            ]
            return Outcome({"language": codes, "language_score": scores}, reasons)

        return judge

    def _reason(self, code: str | None, score: float | None) -> str | None:
        if not self.languages or code is None or score is None:
            return None
        if code not in self.languages:
            return "other_language"
        least = (
            self.min_score.get(code, self.min_score.get("*", 0.0))
            if isinstance(self.min_score, dict)
            else self.min_score
        )
        return "low_score" if score < least else None


class RulesStep(BatchedStep):
    """Measures what the rules ask for and drops a document for the first reason, by name, that is true.

    Args:
        rules: reason -> SQL condition; a column is a signal, else a value in the documents' metadata, null where a
            document has none (a name that no document has had yet is refused as unknown).
        language: of the documents; chooses how signals are measured.
        preset: the name of a preset, whose rules come first.
        thresholds: the preset's options.
        han: words of Han text, as `words: {han}` of a recipe: `characters`, `jieba` or a dictionary's path.
    """

    name = "rules"

    def __init__(
        self, rules: Mapping[str, str] | None = None, language: str = "en", preset: str | None = None,
        thresholds: Mapping[str, object] | None = None, han: str = "characters", **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.rules = dict(rules or {})
        self.language = language
        self.preset = preset
        self.thresholds = dict(thresholds or {})
        self.han = han

    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Parse the conditions, and map the dictionary."""
        from curation.rules import Rule, decide, preset_rules, reasons, signal_names
        from curation.signals import SIGNALS, measure
        from curation.text.dictionary import load_dictionary, named_dictionary

        path = named_dictionary(self.han)
        dictionary = None if path is None else load_dictionary(path)
        cut = dictionary is not None  # a preset may have values of its own for a dictionary's words
        found = preset_rules(self.preset, self.language, self.thresholds, cut)[0] if self.preset else []
        rules = [*found, *(Rule(reason, sql) for reason, sql in self.rules.items())]
        names, columns = reasons(rules), signal_names(rules)
        measured = [name for name in columns if name in SIGNALS]
        carried = [name for name in columns if name not in SIGNALS]
        seen: set[str] = set()  # metadata that a document had: where no document of a batch has it, it is null

        def judge(text: pa.Array, metadata: Metadata) -> Outcome:
            signals = measure(text, measured, self.language, dictionary)
            known = {name: values.to_pylist() for name, values in signals.items()}
            seen.update(name for name in carried for held in metadata if name in held)
            known |= {name: [held.get(name) for held in metadata] for name in carried if name in seen}
            drop = decide(pl.DataFrame(known, strict=False), rules)[0].tolist()
            return Outcome(signals, [names[(bits & -bits).bit_length() - 1] if bits else None for bits in drop])

        return judge


class PerplexityStep(BatchedStep):
    """Adds `perplexity`, and `bucket` where cutoffs are given. Drops nothing: a rule on `bucket` does.

    Args:
        model, pieces, scoring: as `curation.perplexity.score.Scorer` takes them.
        cutoffs: rising perplexities between head, middle and tail.
    """

    name = "perplexity"

    def __init__(
        self, model: str, pieces: str | None = None, scoring: str = "ccnet", cutoffs: Sequence[float] | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**options)
        self.model, self.pieces, self.scoring = model, pieces, scoring
        self.cutoffs = None if cutoffs is None else tuple(cutoffs)

    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Load the language model."""
        from curation.perplexity.buckets import assign
        from curation.perplexity.score import load_scorer

        scorer = load_scorer(self.model, self.pieces, self.scoring)

        def judge(text: pa.Array, metadata: Metadata) -> Outcome:
            perplexity = scorer.score(text)
            buckets = {} if self.cutoffs is None else {"bucket": assign(perplexity, self.cutoffs)}
            return Outcome({"perplexity": perplexity, **buckets})

        return judge


class SignatureStep(BatchedStep):
    """Adds a MinHash signature: `exact` (bytes), `num_shingles`, `band_00` …; an equal band makes a candidate pair.

    Args:
        signature: `curation.dedup.minhash.Options`.
    """

    name = "minhash signature"

    def __init__(self, signature: Any, **options: Any) -> None:
        super().__init__(**options)
        self.signature = signature

    def opened(self) -> Callable[[pa.Array, Metadata], Outcome]:
        """Nothing is loaded."""
        from curation.dedup.minhash import signatures

        def judge(text: pa.Array, metadata: Metadata) -> Outcome:
            made = signatures(text, self.signature)
            return Outcome(dict(zip(made.schema.names, made.columns, strict=True)))

        return judge
