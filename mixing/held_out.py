"""Held-out text: whole duplicate clusters, chosen by hash, that no domain trains on.

A document's *unit* is its duplicate cluster, or its content id where it has none. Units are ordered by a hash of the
unit that is the same for all domains; a domain holds out the first ones until it has its amount: the number of units
whose tokens come nearest to the amount, at least one, but never the last one left to train on. So the choice does not
depend on the seed, nor on the order of shards, and a larger amount holds all of a smaller one.

What a domain holds out, *no* domain trains on: neither the unit's other documents nor exact copies of held-out text,
nor, followed to the end, what is clustered with such a copy. A document that another domain's choice takes out of
training and that is not in its own domain's choice is *excluded*: used for neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixing.document_hash import Words, id_words, purpose_hash, words_ids
from mixing.selections import Mask, Selection, canonical, selected
from mixing.shards import ShardFiles, read_documents

_METADATA_KEY = b"gristmill.held_out"
_BINS = 1 << 12
_BIN_SHIFT = np.uint64(64 - 12)


@dataclass(frozen=True)
class Target:
    """How much a domain holds out: the smaller of an amount of tokens and a share of the domain's tokens.

    A share of 1 (and no amount) holds out the whole domain: a source that is measured and never trained on.
    """

    tokens: int | None = 1_000_000
    share: float = 0.01

    def amount(self, num_tokens: int) -> int:
        """Tokens to hold out of a domain's `num_tokens`."""
        by_share = int(num_tokens * self.share)
        return by_share if self.tokens is None else min(self.tokens, by_share)

    @property
    def everything(self) -> bool:
        """Whether nothing of the domain may be trained on."""
        return self.tokens is None and self.share >= 1


@dataclass(frozen=True)
class Limit:
    """The last unit a domain holds out: units up to it, by (hash, id), are held out. None of `unit`: no unit is."""

    hash: int
    unit: str


@dataclass(frozen=True)
class HeldOut:
    """What no domain trains on, and what each domain measures.

    Attributes:
        ids: units and content ids that nothing trains on, uint64 (n, 2), sorted.
        limits: for each domain, the last unit of its own choice.
    """

    ids: Words
    limits: Mapping[str, Limit | None]

    def untrained(self, documents: pa.RecordBatch) -> Mask:
        """Documents that no domain may train on: their unit or their text is held out somewhere, bool (n,)."""
        content = id_words(documents["content_id"])
        return _contains(self.ids, units(documents, content)) | _contains(self.ids, content)

    def own(self, documents: pa.RecordBatch, domain: str) -> Mask:
        """Documents (of the domain) that the domain itself holds out, bool (n,)."""
        limit = self.limits[domain]
        if limit is None:
            return np.zeros(documents.num_rows, dtype=bool)
        of_unit = units(documents)
        last = np.frombuffer(bytes.fromhex(limit.unit), ">u8").astype(np.uint64)
        hashes = purpose_hash(of_unit, "held out")
        smaller = (of_unit[:, 0] < last[0]) | ((of_unit[:, 0] == last[0]) & (of_unit[:, 1] <= last[1]))
        mask: Mask = (hashes < np.uint64(limit.hash)) | ((hashes == np.uint64(limit.hash)) & smaller)
        return mask


def units(documents: pa.RecordBatch, content: Words | None = None) -> Words:
    """Unit of each document: its cluster, or its content id where it has none, uint64 (n, 2)."""
    content = id_words(documents["content_id"]) if content is None else content
    return np.where(
        documents["cluster"].is_null().to_numpy(zero_copy_only=False)[:, None], content, id_words(documents["cluster"])
    )


def choose_held_out(
    shards: Iterable[ShardFiles], domains: Mapping[str, tuple[Selection, Target]], path: str | Path
) -> dict[str, dict[str, int]]:
    """Choose the held-out text of all domains and write it to `path` (Parquet: the ids; in its metadata the limits).

    Reads the documents of every shard three times or more (sizes, units, copies). Memory: 32 KiB a domain and some 60
    bytes a held-out document; it does not grow with the number of documents.

    Args:
        shards: every token shard of the run, also of sources that hold nothing out.
        domains: selection and target of each domain, by name.
        path: written.

    Returns:
        For each domain: num_tokens, target_tokens, held_out_tokens and held_out_units (of its own choice).
    """
    shards = canonical(shards, {selection.source for selection, _ in domains.values()})
    totals = _sizes(shards, domains)
    counts, limits, chosen_units = {}, {}, [np.zeros((0, 2), np.uint64)]
    firsts = _first_units(shards, domains, totals)
    for name, (_, target) in domains.items():
        hashes, of_unit, tokens = firsts[name]
        num_tokens = int(totals[name].sum())
        amount = target.amount(num_tokens)
        number = _nearest(tokens, amount, num_tokens, target.everything)
        limits[name] = (
            Limit(int(hashes[number - 1]), words_ids(of_unit[number - 1 : number])[0].as_py().hex()) if number else None
        )
        chosen_units.append(of_unit[:number])
        counts[name] = {
            "num_tokens": num_tokens,
            "target_tokens": amount,
            "held_out_tokens": int(tokens[:number].sum()),
            "held_out_units": number,
        }
    held_out = HeldOut(_followed(shards, _unique(np.concatenate(chosen_units))), limits)
    _write(held_out, path)
    return counts


def read_held_out(path: str | Path) -> HeldOut:
    """Read what `choose_held_out` wrote."""
    table = pq.read_table(path)
    limits = json.loads(pq.read_metadata(path).metadata[_METADATA_KEY])
    ids = id_words(table["id"].combine_chunks()) if table.num_rows else np.zeros((0, 2), np.uint64)
    return HeldOut(ids, {name: None if limit is None else Limit(**limit) for name, limit in limits.items()})


def _write(held_out: HeldOut, path: str | Path) -> None:
    limits = {name: limit and {"hash": limit.hash, "unit": limit.unit} for name, limit in held_out.limits.items()}
    table = pa.table({"id": words_ids(held_out.ids)})
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(table)
        # metadata of the schema itself is left out together with it
        writer.add_key_value_metadata({_METADATA_KEY: json.dumps(limits, sort_keys=True).encode()})


def _documents(
    shards: Sequence[ShardFiles], domains: Mapping[str, tuple[Selection, Target]]
) -> Iterator[tuple[str, Words, np.ndarray]]:
    """For each row batch and each domain of its source: the units of its documents and their tokens, int64 (n,)."""
    of_source: dict[str, dict[str, Selection]] = {}
    for name, (selection, _) in domains.items():
        of_source.setdefault(selection.source, {})[name] = selection
    for files in shards:
        here = of_source[files.source]
        columns = sorted({"end", "content_id", "cluster"}.union(*(s.columns for s in here.values())))
        before = 0
        for documents in read_documents(files, columns):
            ends = documents["end"].to_numpy()
            tokens = np.diff(ends, prepend=before)
            before = int(ends[-1])
            content = id_words(documents["content_id"])
            of_unit = units(documents, content)
            for name, selection in here.items():
                mask = selected(documents, selection, content)
                yield name, of_unit[mask], tokens[mask]


def _sizes(shards: Sequence[ShardFiles], domains: Mapping[str, tuple[Selection, Target]]) -> dict[str, np.ndarray]:
    """Tokens of each domain by the first bits of its units' hashes, int64 (_BINS,)."""
    totals = {name: np.zeros(_BINS, np.int64) for name in domains}
    for name, of_unit, tokens in _documents(shards, domains):
        bins = (purpose_hash(of_unit, "held out") >> _BIN_SHIFT).astype(np.int64)
        np.add.at(totals[name], bins, tokens)
    return totals


def _first_units(
    shards: Sequence[ShardFiles], domains: Mapping[str, tuple[Selection, Target]], totals: Mapping[str, np.ndarray]
) -> dict[str, tuple[Words, Words, np.ndarray]]:
    """Hash, id and tokens of the units that may be held out, in order: all in the bins up to the one that passes the
    amount, and in the next bin that is not empty (the unit that passes it may be nearer than the one before).
    """
    last = {}
    for name, (_, target) in domains.items():
        reached = np.cumsum(totals[name])
        amount = target.amount(int(reached[-1]))
        last[name] = int(np.searchsorted(reached, amount, side="right")) if amount < reached[-1] else _BINS
    found: dict[str, list[tuple[Words, np.ndarray]]] = {name: [] for name in domains}
    for name, of_unit, tokens in _documents(shards, domains):
        near = (purpose_hash(of_unit, "held out") >> _BIN_SHIFT).astype(np.int64) <= last[name]
        if near.any():
            found[name].append((of_unit[near], tokens[near]))
    return {name: _ordered(pieces) for name, pieces in found.items()}


def _ordered(pieces: Sequence[tuple[Words, np.ndarray]]) -> tuple[Words, Words, np.ndarray]:
    """Units with the tokens of all their documents, by (hash, id)."""
    if not pieces:
        return np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
    each, inverse = np.unique(np.concatenate([unit for unit, _ in pieces]), axis=0, return_inverse=True)
    tokens = np.zeros(len(each), np.int64)
    np.add.at(tokens, inverse.ravel(), np.concatenate([tokens for _, tokens in pieces]))
    hashes = purpose_hash(each, "held out")
    order = np.argsort(hashes, kind="stable")  # np.unique has sorted by id already
    return hashes[order], each[order], tokens[order]


def _nearest(tokens: np.ndarray, amount: int, num_tokens: int, everything: bool) -> int:
    """How many of the first units come nearest to the amount: at least one, and one stays, unless all are wanted.

    Args:
        tokens: of the units in order, those of the domain up to one past the amount, int64 (n,).
        amount: tokens to hold out; 0 holds out nothing.
        num_tokens: of the whole domain.
        everything: hold out all units.
    """
    if everything:
        return len(tokens)
    if amount <= 0:
        return 0
    reached = np.cumsum(tokens)
    after = int(np.searchsorted(reached, amount))
    number = max(
        1,
        after
        if after == len(reached) or reached[after] - amount > amount - (reached[after - 1] if after else 0)
        else after + 1,
    )
    while number and reached[number - 1] >= num_tokens:
        number -= 1
    return number


def _followed(shards: Sequence[ShardFiles], ids: Words) -> Words:
    """Add the text of held-out units, the units of that text, and so on until nothing is added."""
    while True:
        found = [ids]
        for files in shards:
            for documents in read_documents(files, ["content_id", "cluster"]):
                content = id_words(documents["content_id"])
                of_unit = units(documents, content)
                held = _contains(ids, of_unit) | _contains(ids, content)
                if held.any():
                    found.append(_unique(np.concatenate((of_unit[held], content[held]))))
        more = _unique(np.concatenate(found))
        if len(more) == len(ids):
            return ids
        ids = more


def _unique(ids: Words) -> Words:
    """Sorted by both words, each id once."""
    return np.unique(ids, axis=0) if len(ids) else ids


def _contains(ids: Words, asked: Words) -> Mask:
    """Which of the asked ids are among sorted `ids`, bool (n,)."""
    found = np.zeros(len(asked), dtype=bool)
    at = np.searchsorted(ids[:, 0], asked[:, 0])
    pending = np.arange(len(asked))
    while len(pending):  # more than one round only where two ids share their first word
        pending = pending[at[pending] < len(ids)]
        pending = pending[ids[at[pending], 0] == asked[pending, 0]]
        equal = ids[at[pending], 1] == asked[pending, 1]
        found[pending[equal]] = True
        pending = pending[~equal]
        at[pending] += 1
    return found
