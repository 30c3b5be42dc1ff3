"""From instruction files to packed sequences and a ledger of every row. No torch.

    tokens.bin        all conversations after each other (removed at the end)
    NAME.train.npy    packed sequences of a set, int32 (n, context + 1); NAME.held_out.npy likewise
    ledger.parquet    a row for each row of the files: why it was dropped, or where it stands
    prepared.json     `Prepared`

Conversations are packed whole (best fit), each followed by a separator that no conversation has: attention masks tell
them apart by it (`training.documents`). What is not full is padding. Memory: some 300 bytes a row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mixing.packing import best_fit_bins
from training.tuning.examples import MALFORMED, OPTIONAL, Example, ExamplesError, find_files, read_examples
from training.tuning.templates import MARKS, Rendered, Template
from training.tuning.tokens import Encoder, encode, stop_id

VERSION = 3
# As `training.step` has it, which needs torch: behind all that is predicted.
PADDING = -1
_BATCH = 256
_SHOWN = 5


@dataclass(frozen=True)
class Preparation:
    """What is prepared, and how; see `training.tuning.config.Finetuning` for the words.

    Attributes:
        sets: name -> (paths, fields).
        context: tokens that a sequence predicts.
    """

    sets: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]]
    context: int
    system: str | None = None
    loss: str = "answers"
    too_long: str = "cut"
    broken: float = 0.0
    held_out: float = 0.0
    packing: bool = True


@dataclass(frozen=True)
class PreparedSet:
    """Counts of a set: examples read, dropped by reason, kept, and what they became."""

    name: str
    rows: int
    dropped: dict[str, int]
    kept: int
    held_out: int
    cut: int
    tokens: int
    answer_tokens: int
    sequences: int
    held_out_sequences: int


@dataclass(frozen=True)
class Prepared:
    """Prepared examples in a folder.

    Attributes:
        sets: in the order of their names.
        context: tokens that a sequence predicts.
        separator: id behind each packed conversation; None where a sequence holds one.
        stop: id that ends an answer; None where the template writes none.
        joined: answers that begin inside a token.
    """

    sets: list[PreparedSet]
    context: int
    separator: int | None
    stop: int | None
    joined: int

    @classmethod
    def read(cls, folder: Path) -> Prepared:
        """Read `prepared.json` of a folder."""
        found = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        return cls(**{**found, "sets": [PreparedSet(**one) for one in found["sets"]]})


@dataclass
class Rows:
    """The ledger while it grows: a list for each column, and where each conversation lies in tokens.bin."""

    set: list[str] = field(default_factory=list)
    file: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    reason: list[str | None] = field(default_factory=list)
    detail: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)
    cut: list[bool] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    question: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Conversations:
    """All conversations that were not dropped.

    Attributes:
        tokens: their coded ids after each other, int32, memory-mapped.
        rows: ledger row of each, int64 (n,).
        starts: where each begins in `tokens`, int64 (n,).
        lengths: ids of each, int64 (n,).
    """

    tokens: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def ids(self, number: int) -> np.ndarray:
        """Coded ids of one."""
        return self.tokens[self.starts[number] : self.starts[number] + self.lengths[number]]


@dataclass(frozen=True)
class Choice:
    """What a selection says of each conversation: whether it is kept, its entropy (nats a token) and cluster."""

    kept: np.ndarray
    entropy: np.ndarray
    cluster: np.ndarray | None = None


def prepare(
    options: Preparation,
    template: Template,
    encoder: Encoder,
    folder: Path,
    choose: Callable[[Conversations], Choice] | None = None,
) -> Prepared:
    """Read, write out, encode, choose and pack all examples into a folder.

    Raises:
        ExamplesError: for missing files, more malformed rows than `broken`, or if nothing is left.
        TemplateError: for a template that leaves turns out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, joined, stop = _encode_all(options, template, encoder, folder / "tokens.bin")
    _check_broken(rows, options.broken)
    found = _conversations(rows, folder / "tokens.bin")
    choice = choose(found) if choose and len(found.rows) else None
    if choice is not None:
        for row in found.rows[~choice.kept]:
            rows.reason[row] = "not_selected"
    separator = _separator(found, encoder) if options.packing and len(found.rows) else None
    counts, where = _pack_all(options, rows, found, separator, folder)
    _write_ledger(rows, found, choice, where, folder / "ledger.parquet")
    del found
    (folder / "tokens.bin").unlink()
    prepared = Prepared(counts, options.context, separator, stop, joined)
    (folder / "prepared.json").write_text(json.dumps(asdict(prepared), indent=1, sort_keys=True) + "\n")
    if not any(one.sequences for one in counts):
        raise ExamplesError(f"finetuning.examples: nothing is left to train on: {reasons_of(rows.reason)}")
    return prepared


def reasons_of(reasons: Sequence[str | None]) -> str:
    """Drop reasons and their counts in words, most frequent first."""
    counted = Counter(reason for reason in reasons if reason)
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counted.items(), key=lambda e: (-e[1], e[0])))


def _encode_all(options: Preparation, template: Template, encoder: Encoder, path: Path) -> tuple[Rows, int, int | None]:
    rows, joined, stop, place = Rows(), 0, None, 0
    with path.open("wb") as file:
        for name, batch in _batches(options):
            written = [_rendered(example, template, encoder) for example in batch]
            encoded = iter(encode(encoder, [text for _, text in written if text is not None], options.loss == "all"))
            for example, text in written:
                reason, ids, cut = example.reason, np.empty(0, np.int32), False
                if text is not None:
                    one = next(encoded)
                    ids, joined = one.ids, joined + one.joined
                    stop = stop_id(encoder, text, example.turns[-1].content) if stop is None else stop
                    cut = len(ids) > options.context + 1
                    ids = ids[: options.context + 1]
                    if (cut and options.too_long == "drop") or not (ids >= 0).any():
                        reason = "too_long"
                _append(rows, name, example, reason, ids, cut, place)
                if reason is None:
                    file.write(ids.astype("<i4").tobytes())
                    place += len(ids)
    return rows, joined, stop


def _batches(options: Preparation) -> Iterator[tuple[str, list[Example]]]:
    for name, (paths, fields) in sorted(options.sets.items()):
        unseen = set(fields.values())
        for file in find_files(paths, name):
            examples = read_examples(file, file.name, fields, options.system, unseen)
            while batch := list(islice(examples, _BATCH)):
                yield name, batch
        for part in sorted(OPTIONAL & fields.keys()):
            if fields[part] in unseen:  # rows may lack it, but not all of them
                raise ExamplesError(
                    f"finetuning.examples.{name}.fields.{part}: no row has a column {fields[part]!r}; name a column of "
                    f"the rows, or leave {part} out"
                )


def _rendered(example: Example, template: Template, encoder: Encoder) -> tuple[Example, Rendered | None]:
    """The text of an example, or the example with the reason why there is none."""
    if example.reason is not None:
        return example, None
    if any(token in turn.content for turn in example.turns for token in (*encoder.special, *MARKS)):
        return replace(example, reason="special_token_in_text"), None
    try:
        return example, template.render(example.turns)
    except jinja2.TemplateError as error:
        return replace(example, reason="template_refuses", detail=str(error)[:80]), None


def _append(
    rows: Rows, name: str, example: Example, reason: str | None, ids: np.ndarray, cut: bool, place: int
) -> None:
    question = next((turn.content for turn in example.turns if turn.role == "user"), "")
    rows.set.append(name)
    rows.file.append(example.file)
    rows.row.append(example.row)
    rows.reason.append(reason)
    rows.detail.append(example.detail)
    rows.answers.append(sum(turn.role == "assistant" for turn in example.turns))
    rows.tokens.append(len(ids))
    rows.answer_tokens.append(int((ids >= 0).sum()))
    rows.cut.append(cut and reason is None)
    rows.place.append(place)
    rows.question.append(xxhash.xxh3_64_intdigest(question.encode("utf-8", "surrogatepass")))


def _check_broken(rows: Rows, share: float) -> None:
    wrong = [number for number, reason in enumerate(rows.reason) if reason in MALFORMED]
    if len(wrong) <= share * len(rows.reason):
        return
    shown = [
        f"  {rows.set[n]}: {rows.file[n]}, row {rows.row[n]}: {rows.reason[n]}"
        + (f" ({rows.detail[n]})" if rows.detail[n] else "")
        for n in wrong[:_SHOWN]
    ]
    more = f"\n  and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
    raise ExamplesError(
        f"finetuning.examples: {len(wrong):,} of {len(rows.reason):,} rows are no conversation:\n"
        + "\n".join(shown)
        + more
        + "\nroles are system, user and assistant, an answer follows each question; other columns are named by "
        f"`fields`. Mend the files, or leave such rows out: finetuning.broken: {_share_above(len(wrong), rows)}"
    )


def _share_above(wrong: int, rows: Rows) -> float:
    return min(1.0, np.ceil(wrong / len(rows.reason) * 1000) / 1000)


def _conversations(rows: Rows, path: Path) -> Conversations:
    kept = np.array([number for number, reason in enumerate(rows.reason) if reason is None], np.int64)
    empty = path.stat().st_size == 0
    tokens = np.empty(0, np.int32) if empty else np.memmap(path, dtype="<i4", mode="r")
    places, lengths = np.array(rows.place, np.int64), np.array(rows.tokens, np.int64)
    return Conversations(tokens, kept, places[kept], lengths[kept])


def _separator(found: Conversations, encoder: Encoder) -> int:
    """An id that no conversation has: the end of document, padding, else the largest one."""
    used = np.zeros(encoder.vocabulary, bool)
    for number in range(len(found.rows)):
        ids = found.ids(number)
        used[np.where(ids < 0, -2 - ids, ids)] = True
    wanted = [encoder.ids[kind] for kind in ("pad", "eos", "bos") if encoder.ids[kind] is not None]
    free = [*(one for one in wanted if not used[one]), *np.flatnonzero(~used)[::-1].tolist()]
    if not free:
        raise ExamplesError(
            "finetuning.packing: the examples use every id of the vocabulary, and none is left to stand between "
            "conversations; give the tokenizer a padding token, or say packing: false"
        )
    return int(free[0])


def _pack_all(
    options: Preparation, rows: Rows, found: Conversations, separator: int | None, folder: Path
) -> tuple[list[PreparedSet], dict[int, tuple[str, int]]]:
    """Pack each set's two parts; the counts, and (part, sequence) of each ledger row."""
    names = np.array(rows.set, object)
    where: dict[int, tuple[str, int]] = {}
    counts = []
    asked = np.array([rows.question[row] for row in found.rows], np.float64) / 2**64
    for name in sorted(options.sets):
        numbers = [n for n, row in enumerate(found.rows) if rows.set[row] == name and rows.reason[row] is None]
        parts = {
            "train": [n for n in numbers if asked[n] >= options.held_out],
            "held_out": [n for n in numbers if asked[n] < options.held_out],
        }
        sequences = {}
        for part, chosen in parts.items():
            bins = _write_packed(found, chosen, options.context, separator, folder / f"{name}.{part}.npy")
            sequences[part] = int(bins.max()) + 1 if len(bins) else 0
            where |= {int(found.rows[n]): (part, int(at)) for n, at in zip(chosen, bins)}
        kept = [int(found.rows[n]) for n in numbers]
        reasons = Counter(rows.reason[n] for n in np.flatnonzero(names == name) if rows.reason[n])
        counts.append(
            PreparedSet(
                name=name,
                rows=int((names == name).sum()),
                dropped=dict(sorted(reasons.items())),
                kept=len(kept),
                held_out=len(parts["held_out"]),
                cut=sum(rows.cut[row] for row in kept),
                tokens=sum(rows.tokens[row] for row in kept),
                answer_tokens=sum(rows.answer_tokens[row] for row in kept),
                sequences=sequences["train"],
                held_out_sequences=sequences["held_out"],
            )
        )
    return counts, where


def _write_packed(
    found: Conversations, chosen: list[int], context: int, separator: int | None, path: Path
) -> np.ndarray:
    """Write some conversations as packed sequences; the sequence of each, int64."""
    lengths = found.lengths[chosen] if chosen else np.empty(0, np.int64)
    bins = np.arange(len(chosen), dtype=np.int64)
    if separator is not None and len(chosen):
        # Each with its separator; the last one of a full sequence falls off.
        order, packed, _ = best_fit_bins(lengths + 1, context + 2)
        bins[order] = packed
    count = int(bins.max()) + 1 if len(bins) else 0
    array = np.lib.format.open_memmap(path, mode="w+", dtype="<i4", shape=(count, context + 1)) if count else None
    if array is None:
        np.save(path, np.empty((0, context + 1), "<i4"))
        return bins
    array[:] = PADDING
    filled = np.zeros(count, np.int64)
    for number, sequence in zip(chosen, bins):
        ids, start = found.ids(number), filled[sequence]
        stop = start + len(ids)
        array[sequence, start:stop] = ids
        if separator is not None and stop <= context:
            array[sequence, stop] = -2 - separator
        filled[sequence] = stop + 1
    array.flush()
    return bins


def _write_ledger(
    rows: Rows, found: Conversations, choice: Choice | None, where: Mapping[int, tuple[str, int]], path: Path
) -> None:
    count = len(rows.row)
    columns: dict[str, Any] = {
        name: getattr(rows, name)
        for name in ("set", "file", "row", "reason", "detail", "answers", "tokens", "answer_tokens", "cut")
    }
    columns["part"] = [where[n][0] if n in where else None for n in range(count)]
    columns["sequence"] = [where[n][1] if n in where else None for n in range(count)]
    if choice is not None:
        scores: list[float | None] = [None] * count
        clusters: list[int | None] = [None] * count
        for number, row in enumerate(found.rows):
            scores[row] = float(choice.entropy[number])
            clusters[row] = None if choice.cluster is None else int(choice.cluster[number])
        columns |= {"entropy": pa.array(scores, pa.float64()), "cluster": pa.array(clusters, pa.int32())}
    pq.write_table(pa.table(columns), path, compression="zstd")
