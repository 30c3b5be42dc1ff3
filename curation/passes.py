"""What a stage does to one shard: the functions that write the rows, text, signals and decisions layers.

Each takes (inputs, options, output), reads its shard in row batches and writes one layer; memory grows with a row
batch. Inputs and options are plain frozen values, so that a stage pickles; models open inside the functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.layers import (
    WORDS_KEY,
    kept_rows,
    mask_columns,
    only_where,
    read_layer,
    read_layers,
    side_by_side,
    write_layer,
    zip_batches,
)
from curation.source import ROWS, ReadCounts, Reader, read_shard
from curation.stage import Counts, Output

RAW_TEXT = ""  # the name of the text as the source brings it; later texts are named by the step that edited them


@dataclass(frozen=True)
class ShardInputs:
    """One shard and the layers made of it so far.

    Attributes:
        source: name of the source.
        shard: path below `execution.raw`, as it stands in the ledger.
        path: where to read it.
        language: declared language of the source.
        reader: how to read it.
        task: name of the shard's files in every stage.
        text: text layer that replaces the shard's own text, if a step has edited it.
        layers: row-aligned layers so far, in order of work, the rows layer first.
        artifacts: paths of what earlier global stages made, by name.
        as_read: size, modification time (ns) and checksum of the file as it is curated; None in ledgers of before.
    """

    source: str
    shard: str
    path: str
    language: str
    reader: Reader
    task: str = ""
    text: str | None = None
    layers: tuple[str, ...] = ()
    artifacts: tuple[tuple[str, str], ...] = ()
    as_read: tuple[int, int, str] | None = None

    def artifact(self, name: str) -> Path:
        """Path of what an earlier global stage made."""
        return Path(dict(self.artifacts)[name])


def text_batches(inputs: ShardInputs) -> Iterator[pa.RecordBatch]:
    """Row batches `row, text` of a shard: its own text, or the text layer that replaces it."""
    if inputs.text is not None:
        for batch in read_layer(inputs.text, ["row", "text"]):
            # a layer may have been written with 32-bit offsets; kernels read 64-bit ones
            columns = [batch.column("row"), batch.column("text").cast(pa.large_string())]
            yield pa.RecordBatch.from_arrays(columns, names=["row", "text"])
        return
    for batch in read_shard(inputs.path, inputs.reader):
        yield batch.select(["row", "text"])


def kept_text(inputs: ShardInputs, columns: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Row batches `row, text, <columns>, kept` of a shard; text is null where the row is not kept."""
    wanted = {*columns, *mask_columns(inputs.layers)}
    layers = read_layers(inputs.layers, sorted(wanted))
    for texts, rows in zip_batches([text_batches(inputs), layers]):
        kept = kept_rows(rows)
        names = [name for name in rows.schema.names if name in columns]
        arrays = [texts.column("row"), only_where(texts.column("text"), kept), *(rows.column(n) for n in names)]
        yield pa.RecordBatch.from_arrays([*arrays, pa.array(kept)], names=["row", "text", *names, "kept"])


# ---------------------------------------------------------------- rows


def make_rows(inputs: ShardInputs, options: None, output: Output) -> Counts:
    """Write the rows layer: who each record is, and why it cannot be read if it cannot."""
    read = ReadCounts()
    counts: Counter[str] = Counter()

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in read_shard(inputs.path, inputs.reader, counts=read):
            reasons = batch.column("read_reason")
            counts["rows"] += batch.num_rows
            counts["bytes"] += pc.sum(batch.column("size_bytes")).as_py() or 0
            counts["characters"] += pc.sum(batch.column("num_characters")).as_py() or 0
            counts["repaired"] += int(pc.sum(pc.greater(batch.column("repaired"), 0)).as_py() or 0)
            for reason in pc.drop_null(reasons).to_pylist():
                counts[f"drop.read.{reason}"] += 1
            yield batch.drop_columns(["text"])

    stream = rows()
    first = next(stream, None)
    schema = first.schema if first is not None else ROWS.remove(ROWS.get_field_index("text"))
    write_layer(output.path(".parquet"), with_first(first, stream), schema)
    unread = {"unread.where": read.unread_where, "unread.sample": read.unread_sample, "blank": read.blank}
    if read.whole_pages:
        counts["read.whole_pages"] = read.whole_pages
    return {"rows": 0, "bytes": 0, "characters": 0, **counts, **unread}


def with_first(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    """A batch that was read ahead, where there is one, and those behind it."""
    if first is not None:
        yield first
    yield from rest


# ---------------------------------------------------------------- signals


@dataclass(frozen=True)
class PerplexityMeasure:
    """A perplexity to measure: the column it fills, the model and how a document is scored.

    `artifact` names a model that this run trains; `model` is the path of somebody's, with `pieces` beside it, or of
    whole `words`. `of_lines` is the column of each line's perplexity; `share_above` the column of the share of lines
    above `line_cutoff`. `pieces_version`: of pieces that a given tokenizer.json makes.
    """

    column: str
    scoring: str
    artifact: str | None = None
    model: str | None = field(default=None, metadata={"content": True})
    pieces: str | None = field(default=None, metadata={"content": True})
    words: bool = False
    of_lines: str | None = None
    share_above: str | None = None
    line_cutoff: float | None = None
    pieces_version: int = 0


@dataclass(frozen=True)
class GivenSignal:
    """A signal that needs a file of the user: its name, the file or folder, and the version of its definition."""

    name: str
    path: str = field(metadata={"content": True})
    version: int = 1


@dataclass(frozen=True)
class SignalOptions:
    """What one signals stage measures.

    Attributes:
        names: signals of the registry, sorted.
        suffix: "" on the source's own text, `@step` on a text that a step edited.
        versions: version of each signal's implementation, so that a changed one is measured again.
        language_model: fastText model for `language` and `language_score`.
        excerpt: (pieces, characters) of long documents for language ID, or None for the whole text.
        perplexities: perplexities to measure.
        survivors: measure kept rows only; null elsewhere.
        given: signals that need a file of the user.
        per_line: signals of which the value of each line is kept too, as a list.
        dictionary: file of the words of Han text for signals of words, or None: each letter is a word.
        words: how Han text is cut by it, written into the layer.
    """

    names: tuple[str, ...] = ()
    suffix: str = RAW_TEXT
    versions: tuple[int, ...] = ()
    language_model: str | None = field(default=None, metadata={"content": True})
    language_version: int = 0
    excerpt: tuple[int, int] | None = None
    perplexities: tuple[PerplexityMeasure, ...] = ()
    survivors: bool = False
    given: tuple[GivenSignal, ...] = ()
    per_line: tuple[str, ...] = ()
    dictionary: str | None = field(default=None, metadata={"content": True})
    words: str = ""


def make_signals(inputs: ShardInputs, options: SignalOptions, output: Output) -> Counts:
    """Write a signals layer: one column a signal, null where there is no text."""
    measures = _open_measures(inputs, options)
    opened = _open_given(options)
    num_rows = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal num_rows
        for batch in _measured_text(inputs, options):
            columns: dict[str, pa.Array] = {}
            for measure in measures:
                columns.update(measure(batch.column("text")))
            for given, measure_given in opened.items():
                columns[given] = measure_given(batch.column("text"), batch.column("url"))
            num_rows += batch.num_rows
            arrays = [batch.column("row"), *columns.values()]
            yield pa.RecordBatch.from_arrays(arrays, names=["row", *(f"{n}{options.suffix}" for n in columns)])

    stream = rows()
    first = next(stream, None)
    if first is None:
        empty = pa.array([], pa.large_string())
        columns = {name: array for measure in measures for name, array in measure(empty).items()}
        columns |= {name: measure(empty, empty) for name, measure in opened.items()}
        first = pa.RecordBatch.from_arrays(
            [pa.array([], pa.int64()), *columns.values()], names=["row", *(f"{n}{options.suffix}" for n in columns)]
        )
    write_layer(output.path(".parquet"), with_first(first, stream), _with_words(first.schema, options))
    return {"rows": num_rows}


def _with_words(schema: pa.Schema, options: SignalOptions) -> pa.Schema:
    """The schema, with what a word of Han text is in its metadata where a dictionary says it."""
    return schema.with_metadata({WORDS_KEY: options.words.encode()}) if options.dictionary else schema


def _measured_text(inputs: ShardInputs, options: SignalOptions) -> Iterator[pa.RecordBatch]:
    """Row batches `row, text`, with `url` where a signal asks for it."""
    texts = kept_text(inputs) if options.survivors else text_batches(inputs)
    if not options.given:
        yield from texts
        return
    for batch, rows in zip_batches([texts, read_layer(inputs.layers[0], ["url"])]):
        yield side_by_side([batch, rows])


def _open_given(options: SignalOptions) -> dict[str, Any]:
    """The functions (text, urls) -> array of signals that need a file of the user, by name."""
    from curation.signals.given import open_given

    return {given.name: open_given(given.name, given.path) for given in options.given}


def _open_dictionary(options: SignalOptions) -> Any:
    if options.dictionary is None:
        return None
    from curation.text.dictionary import load_dictionary

    return load_dictionary(options.dictionary)


def _open_measures(inputs: ShardInputs, options: SignalOptions) -> list[Any]:
    """The functions text -> {column: array} that this stage calls, with their models opened."""
    measures: list[Any] = []
    dictionary = _open_dictionary(options)
    if options.names:
        from curation.signals import measure

        measures.append(lambda text: measure(text, options.names, inputs.language, dictionary))
    if options.per_line:
        from curation.signals.per_line import line_values

        measures.append(lambda text: line_values(text, options.per_line, inputs.language, dictionary))
    if options.language_model is not None:
        from curation.language import Excerpt, LanguageModel

        model = LanguageModel(options.language_model)
        excerpt = None if options.excerpt is None else Excerpt(*options.excerpt)

        def identify(text: pa.Array) -> dict[str, pa.Array]:
            codes, scores = model.identify(text, excerpt)
            return {"language": codes, "language_score": scores}

        measures.append(identify)
    for perplexity in options.perplexities:
        measures.append(_perplexity_measure(inputs, perplexity))
    return measures


def _perplexity_measure(inputs: ShardInputs, perplexity: PerplexityMeasure) -> Any:
    from curation.perplexity.score import document_perplexity, line_lists, load_scorer, share_above

    model = str(inputs.artifact(perplexity.artifact)) if perplexity.artifact else perplexity.model
    assert model is not None
    scorer = load_scorer(model, "words" if perplexity.words else perplexity.pieces, perplexity.scoring)

    def measured(text: pa.Array) -> dict[str, pa.Array]:
        lines = scorer.score_lines(text)
        columns = {perplexity.column: document_perplexity(lines, rounded=perplexity.scoring == "ccnet")}
        if perplexity.of_lines is not None:
            columns[perplexity.of_lines] = line_lists(lines)
        if perplexity.share_above is not None and perplexity.line_cutoff is not None:
            columns[perplexity.share_above] = share_above(lines, perplexity.line_cutoff)
        return columns

    return measured
