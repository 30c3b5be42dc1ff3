"""The `dedup` step as stages: signatures shard by shard, then one matching over all sources that writes a layer each.

Signatures are made of every row's text, kept or not, so that a changed threshold of an earlier rule costs a matching
and no signatures; which rows take part is looked up in the layers when they are matched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import config
from curation.compiled import GlobalStage, LocalStage, ProgramError
from curation.dedup import exact
from curation.dedup.index import chain_inputs, check_config, check_files, config_of, open_chain
from curation.dedup.index_entries import standing_in
from curation.dedup.inputs import MatchInput
from curation.dedup.keep import Criterion, read_keep
from curation.dedup.match import MatchOptions, match
from curation.dedup.minhash import Options, SignatureError, bands_for_threshold, schema, signatures
from curation.layers import kept_rows, mask_columns, read_layers, with_reasons, write_layer
from curation.passes import ShardInputs, text_batches
from curation.stage import Counts, Output
from curation.stages.current_text import add_text_facts
from curation.stages.inputs import GlobalInputs

if TYPE_CHECKING:
    from curation.program import Compiler

# Hashes that a threshold is turned into bands and rows with; RedPajama-V2's number (14x9, 9x13, 5x25 come of it).
HASHES = 128


@dataclass(frozen=True)
class SignatureOptions:
    """What a signatures stage makes."""

    signatures: Options


@dataclass(frozen=True)
class DuplicateOptions:
    """How signatures become duplicates. `keep` holds the criteria with the layer columns they read."""

    step: str
    match: MatchOptions
    keep: tuple[Criterion, ...]
    of_rows: bool  # matched by the rows layer's content_id: no signatures of its own, and no step has edited the text
    against: tuple[str, ...] = ()  # index versions whose documents these are duplicates of
    version: int = 1  # of what only some options do


def add_dedup(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> None:
    """Add the stages of a dedup step to a program.

    Raises:
        ProgramError: for values that make no signature or no matching, such as a shingle of 2,000 words.
    """
    if not names:
        return
    try:
        _add_stages(compiler, path, step, names)
    except SignatureError as error:
        raise ProgramError(path, str(error)) from None


def _add_stages(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> None:
    if step.preset in ("exact", "minhash"):
        _add_documents(compiler, path, step, names)
    elif step.preset in ("paragraphs_keep_first", "paragraphs_keep_none"):
        from curation.stages.paragraphs import add_paragraphs

        add_paragraphs(compiler, path, step, names)
    else:
        from curation.stages.substrings import add_substrings

        add_substrings(compiler, path, step, names)


def _add_documents(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> None:
    keep = _criteria(compiler, path, step, names)
    compiler.close(names)
    of_rows = step.preset == "exact" and step.normalize == "raw"
    options = match_options(step)
    against = () if step.index is None else step.index.against
    needs, by_hash, keep = add_text_facts(compiler, step, names, keep)
    if of_rows and by_hash:
        of_rows = False
    elif not of_rows:
        for name in names:
            made = SignatureOptions(options.signatures)
            compiler.stages.append(
                LocalStage(name, "signatures", f"{step.name} signatures", make_signatures, made, joins=False)
            )
            needs.append(f"signatures.{name}.{step.name} signatures")
    compiler.stages.append(
        GlobalStage(
            step.name,
            "duplicates",
            step.name,
            tuple(names),
            make_duplicates,
            DuplicateOptions(step.name, options, keep, of_rows, against, _version(options, keep)),
            None,
            (*needs, *(f"index.{label}" for label in against)),
            ((step.name, step.max_drop),),
        )
    )
    if step.index is not None and step.index.publish is not None:
        from curation.stages.index import add_index

        add_index(compiler, step, names, options, tuple(needs))
    for name in names:
        compiler.open[name].columns |= {
            column: f"{column}@{step.name}" for column in ("similarity", "cluster_size", "duplicate_source")
        }


def _version(options: MatchOptions, keep: Sequence[Criterion]) -> int:
    """2 for options whose result has changed: checked components, and values of the sources' own columns."""
    own = any(str(criterion.column).endswith("@source") for criterion in keep)
    return 2 if own or (options.cluster == "components" and options.verify is not None) else 1


def match_options(step: config.Dedup) -> MatchOptions:
    """What an exact or MinHash step compares, and when two documents are the same."""
    suffix = f"@{step.name}"
    if step.preset == "exact":
        normalize = None if step.normalize == "raw" else step.normalize
        return exact.match_options(normalize, suffix=suffix)
    bands, rows = step.bands, step.rows
    if bands is None or rows is None:
        bands, rows = bands_for_threshold(0.8 if step.threshold is None else step.threshold, HASHES)
    unit, size = "words", 5
    if step.shingle is not None:
        unit = "words" if step.shingle.words is not None else "characters"
        size = step.shingle.words or step.shingle.characters or 5
    made = Options(shingle=size, unit=unit, bands=bands, rows=rows, normalize=step.normalize)
    return MatchOptions(made, step.cluster, step.verify, max_cluster=step.max_cluster, suffix=suffix)


def _criteria(compiler: Compiler, path: str, step: config.Dedup, names: list[str]) -> tuple[Criterion, ...]:
    """The keep policy, with signals measured on the way and named by their layer column."""
    entries: list[str | Mapping[str, object]] = []
    for rule in step.keep:
        entry = rule.entry()
        if rule.by == "signal" and isinstance(entry, Mapping):
            columns = {compiler.columns_for(path, name, [str(rule.name)])[str(rule.name)] for name in names}
            if len(columns) > 1:
                raise ProgramError(
                    f"{path}.keep",
                    f"{rule.name} is measured on texts that different steps edited ({', '.join(sorted(columns))}); "
                    "edit all its sources by the same steps, or use a dedup step for each",
                )
            entry = {column: entry[str(rule.name)] for column in columns}
        entries.append(entry)
    return read_keep(entries)


def make_signatures(inputs: ShardInputs, options: SignatureOptions, output: Output) -> Counts:
    """Write a shard's signatures, row-aligned, null where there is no text."""
    made = schema(options.signatures)
    rows = 0
    with pq.ParquetWriter(
        output.path(".parquet"), made, compression="none", write_statistics=False, write_page_checksum=True
    ) as writer:
        for batch in text_batches(inputs):
            writer.write_batch(signatures(batch.column("text"), options.signatures))
            rows += batch.num_rows
    return {"rows": rows}


def make_duplicates(inputs: GlobalInputs, options: DuplicateOptions, output: Output) -> Counts:
    """Match the signatures of all shards and write each shard's layer of duplicates."""
    given = [
        match_input(inputs, shard, task, options.of_rows, kept_mask(shard))
        for shard, task in zip(inputs.shards, inputs.tasks)
    ]
    known = index_inputs(
        inputs, options.against, given, config_of(options.match.signatures, options.match.exact_column)
    )
    paths = [output.path(f".{shard.source}.{task}.parquet") for shard, task in zip(inputs.shards, inputs.tasks)]
    # The scratch folder lies beside the artifacts, on the disk that has the room.
    scratch = str(paths[0].parent) if paths else None
    result = match(
        [*given, *known], options.match, options.keep, [*map(str, paths), *[None] * len(known)], inputs.memory,
        fetch_text=lambda place, rows: texts_at(inputs.shards[place], rows), scratch=scratch,
    )  # fmt: skip
    for path in paths:
        _name_reasons(path, options.step, ["duplicate", *(["in_index"] if known else [])])
    counts: dict[str, Any] = {
        "rows": sum(0 if one.alive is None else len(one.alive) for one in given),
        f"reached.{options.step}": result["documents"],
        f"drop.{options.step}.duplicate": result["duplicates"] - result["in_index"],
        "clusters": result["clusters"],
        "pairs_checked": result["pairs_checked"],
        "pairs_rejected": result["pairs_rejected"],
        "alarms": "\n".join(result["alarms"]),  # type: ignore[arg-type]
    }
    for name, numbers in result["sources"].items():  # type: ignore[attr-defined]
        counts |= {f"of.{name}.documents": numbers["documents"], f"of.{name}.duplicates": numbers["duplicates"]}
        if known:
            counts[f"of.{name}.in_index"] = numbers["in_index"]
    counts |= {name: result[name] for name in ("documents_unlisted", "dates_unread") if result[name]}
    if known:
        counts[f"drop.{options.step}.in_index"] = result["in_index"]
        counts |= {f"index.{label}.documents": number for label, number in result["indexes"].items()}  # type: ignore[attr-defined]
    for name, others in result["overlap"].items():  # type: ignore[attr-defined]
        counts |= {f"overlap.{name}.{other}": number for other, number in others.items()}
    return counts


def match_input(
    inputs: GlobalInputs, shard: ShardInputs, task: str, of_rows: bool, alive: np.ndarray | None
) -> MatchInput:
    """A shard's signatures as matching reads them; `of_rows`: the rows layer, for its `content_id`.

    What is measured of edited texts stands for signatures where there are none, and is looked up behind the layers.
    """
    signed = _of_source(inputs, "signatures", shard.source, task)
    texts = _of_source(inputs, "texts", shard.source, task)
    made = shard.layers[0] if of_rows else (*signed, *texts)[0]
    return MatchInput(shard.source, shard.shard, made, (*shard.layers, *texts), alive)


def _of_source(inputs: GlobalInputs, layer: str, source: str, task: str) -> list[str]:
    """A shard's file of a layer beside the ledger, if the stage needs one."""
    return [
        str(Path(path) / f"{task}.parquet") for name, path in inputs.artifacts if name.startswith(f"{layer}.{source}.")
    ]


def index_inputs(
    inputs: GlobalInputs, labels: Sequence[str], given: Sequence[MatchInput], wanted: Mapping[str, Any]
) -> list[MatchInput]:
    """Inputs of index versions, checked; what stands in this run itself (same source, shard and text) is left out."""
    found = []
    for label in labels:
        chain = open_chain([inputs.artifact(f"index.{label}").parent.parent], label)
        check_config(chain[-1], wanted)
        check_files(chain)
        left_out = {version.number: standing_in(version.entries, given) for version in chain}
        found += chain_inputs(chain, left_out)
    return found


def kept_mask(shard: ShardInputs) -> np.ndarray:
    """Which rows of a shard are kept so far. bool (rows,)."""
    parts = [kept_rows(batch) for batch in read_layers(shard.layers, mask_columns(shard.layers))]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def texts_at(shard: ShardInputs, rows: np.ndarray) -> Iterator[pa.Array]:
    """Texts of some rows of a shard, by place in its layers, ascending; the shard is read once."""
    place = 0
    for batch in text_batches(shard):
        low, high = np.searchsorted(rows, [place, place + batch.num_rows])
        if high > low:
            yield batch.column("text").take(pa.array(rows[low:high] - place))
        place += batch.num_rows
        if high == len(rows):
            return


def _name_reasons(path: Path, step: str, reasons: list[str]) -> None:
    """Name the layer's drop bits in its metadata, as every decisions layer does. Memory: a row group."""
    named = path.with_name(f"{path.name}.named.tmp")  # what a killed run leaves of it is cleared away
    with pq.ParquetFile(path) as layer:
        groups = (layer.read_row_group(number, use_threads=False) for number in range(layer.num_row_groups))
        schema = with_reasons(layer.schema_arrow.remove_metadata(), {step: reasons})
        write_layer(named, (batch for group in groups for batch in group.to_batches()), schema)
    named.replace(path)
