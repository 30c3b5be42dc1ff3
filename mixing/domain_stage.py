"""The domains of a run as a stage: held-out text is chosen, and an index written of every domain's text.

Where sequences are packed, each index is packed beside it for every context that the run reads.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.stage import Counts, Output
from mixing.domain_index import DomainIndexError
from mixing.domains import build_domain_index
from mixing.held_out import Target, choose_held_out, read_held_out
from mixing.packing import pack_domain
from mixing.selections import Selection, count_parts, thin
from mixing.shards import ShardFiles
from mixing.stages import PART


@dataclass(frozen=True)
class TokenInputs:
    """Token shards of all sources, and paths of what earlier stages made."""

    shards: tuple[ShardFiles, ...]
    artifacts: tuple[tuple[str, str], ...] = ()

    def artifact(self, name: str) -> Path:
        """Path of what an earlier stage made."""
        return Path(dict(self.artifacts)[name])


@dataclass(frozen=True)
class DomainOptions:
    """How sources become domains.

    Attributes:
        split: sources that are split, by the column `part` of their documents.
        held_out_tokens: most held-out tokens of a domain.
        held_out_share: most of a domain's tokens that are held out.
        validate_only: sources that are measured whole and never trained on.
        thinned: share of documents for each domain, where a proxy repeats as its target does; others stay whole.
        packed: contexts for which sequences are packed, rising; none: sequences are windows over the text end to end.
    """

    split: tuple[str, ...]
    held_out_tokens: int
    held_out_share: float
    validate_only: tuple[str, ...] = ()
    thinned: tuple[tuple[str, float], ...] = ()
    packed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Packed:
    """A domain packed for one context: its sequences of training text, and what packing them cost.

    Attributes:
        context: tokens a sequence predicts.
        training: path of the packed index, as in `Domain`.
        held_out: path of the packed index of held-out text.
        num_sequences: of training text.
        padding: positions of those that hold no token.
        cut_documents: documents longer than a sequence.
        repeated_tokens: tokens that are read twice, where two pieces of such a document overlap.
        held_out_sequences: of held-out text.
    """

    context: int
    training: str | None
    held_out: str
    num_sequences: int
    padding: int
    cut_documents: int
    repeated_tokens: int
    held_out_sequences: int


@dataclass(frozen=True)
class Domain:
    """A domain as `domains.json` lists it: amounts of its training text, and of its held-out text.

    `training` and `held_out` are paths of indexes, relative to the folder of `domains.json`; `training` is None for
    what is only validated on. `packed` holds an entry for each context that sequences were packed for.
    """

    name: str
    training: str | None
    held_out: str | None
    num_tokens: int
    num_documents: int
    size_bytes: int
    num_characters: int
    held_out_tokens: int
    held_out_bytes: int
    packed: tuple[Packed, ...] = ()

    def index(self, context: int, part: str = "training") -> str | None:
        """Path of the index that sequences of a context are read from: packed for it, or the contiguous one."""
        packed = self._packed(context)
        found: str | None = getattr(packed or self, part)
        return found

    def tokens_of_pass(self, context: int) -> int:
        """Tokens of one pass in sequences of a context; those of packed sequences include padding."""
        packed = self._packed(context)
        return self.num_tokens if packed is None else packed.num_sequences * context

    def num_held_out(self, context: int) -> int:
        """Held-out sequences of a context."""
        packed = self._packed(context)
        return max(0, self.held_out_tokens - 1) // context if packed is None else packed.held_out_sequences

    def _packed(self, context: int) -> Packed | None:
        """The packed sequences of a context; None where sequences are not packed."""
        found = next((packed for packed in self.packed if packed.context == context), None)
        if self.packed and found is None:
            made = ", ".join(str(packed.context) for packed in self.packed)
            raise DomainIndexError(f"domain {self.name!r}: packed for contexts {made}, asked for {context}")
        return found


def make_domains(inputs: TokenInputs, options: DomainOptions, output: Output) -> Counts:
    """Choose held-out text and write an index of each domain's training text and of its held-out text."""
    selections = _selections(inputs.shards, options)
    targets = {
        name: (s, Target(None, 1.0) if s.source in options.validate_only else _target(options))
        for name, s in selections.items()
    }
    held_out_path = output.path(".held_out.parquet")
    choose_held_out(inputs.shards, targets, held_out_path)
    held_out = read_held_out(held_out_path)
    of_source, thinned = _by_source(inputs.shards), dict(options.thinned)
    listed = [
        _index_domain(of_source[selection.source], options, name, selection, thinned.get(name, 1.0), held_out, output)
        for name, selection in selections.items()
    ]
    output.path(".domains.json").write_text(json.dumps([asdict(domain) for domain in listed], indent=1))
    return {
        "domains": len(listed),
        "tokens": sum(domain.num_tokens for domain in listed),
        "held_out_tokens": sum(domain.held_out_tokens for domain in listed),
        **_packing_counts([packed for domain in listed for packed in domain.packed]),
    }


def _packing_counts(packed: Sequence[Packed]) -> Counts:
    """What packing cost, over all domains and contexts; nothing where sequences are not packed."""
    if not packed:
        return {}
    names = ("padding", "cut_documents", "repeated_tokens")
    positions = sum(one.num_sequences * (one.context + 1) for one in packed)
    counts = {name: sum(getattr(one, name) for one in packed) for name in names}
    return {
        **counts,
        "sequences": sum(one.num_sequences for one in packed),
        "padding_share": round(counts["padding"] / positions, 6) if positions else 0.0,
    }


def _target(options: DomainOptions) -> Target:
    return Target(options.held_out_tokens, options.held_out_share)


def _selections(shards: Sequence[ShardFiles], options: DomainOptions) -> dict[str, Selection]:
    """The domains: each source, or each part of a source that is split, by name."""
    found: dict[str, Selection] = {}
    split = frozenset(options.split)
    for source, files in sorted(_by_source(shards).items()):
        counts = count_parts(files, PART) if source in split else {}
        parts = {f"{source}/{part}": Selection(source, PART, part) for part, tokens in counts.items() if tokens}
        # of a source of which nothing is left: a domain of nothing, so that tables name it
        found |= parts or {source: Selection(source)}
    return found


def _by_source(shards: Sequence[ShardFiles]) -> dict[str, list[ShardFiles]]:
    """Token shards of each source: with 10,000 sources no domain looks through those of the others."""
    found: dict[str, list[ShardFiles]] = {}
    for files in shards:
        found.setdefault(files.source, []).append(files)
    return found


def _index_domain(
    shards: Sequence[ShardFiles],
    options: DomainOptions,
    name: str,
    selection: Selection,
    share: float,
    held_out: Any,
    output: Output,
) -> Domain:
    """Write the indexes of a domain, its training text thinned to a share, of token shards of its source."""
    word = file_word(name)
    held_suffix = f".{word}.held_out"
    held_path = output.path(held_suffix)
    held = build_domain_index(shards, selection, held_path, held_out=held_out, domain=name, part="held_out")
    training: Mapping[str, int] = {}
    suffix = training_path = None
    if selection.source not in options.validate_only:
        suffix = f".{word}.training"
        selection = thin(selection, share) if share < 1 else selection
        training_path = output.path(suffix)
        training = build_domain_index(shards, selection, training_path, held_out=held_out, part="training")
    return Domain(
        name=name,
        training=f"all{suffix}" if suffix else None,
        held_out=f"all{held_suffix}",
        num_tokens=training.get("num_tokens", 0),
        num_documents=training.get("num_documents", 0),
        size_bytes=training.get("size_bytes", 0),
        num_characters=training.get("num_characters", 0),
        held_out_tokens=held["num_tokens"],
        held_out_bytes=held["size_bytes"],
        packed=tuple(_pack(context, word, training_path, held_path, output) for context in options.packed),
    )


def _pack(context: int, word: str, training: Path | None, held_out: Path, output: Output) -> Packed:
    """Pack a domain's training text and its held-out text for one context."""
    suffixes = [f".{word}.{context}.{part}" for part in ("training", "held_out")]
    held = pack_domain(held_out, context, output.path(suffixes[1]))
    counts = {"num_sequences": 0, "padding": 0, "num_cut_documents": 0, "repeated_tokens": 0}
    if training is not None:
        counts = pack_domain(training, context, output.path(suffixes[0]))
    return Packed(
        context=context,
        training=None if training is None else f"all{suffixes[0]}",
        held_out=f"all{suffixes[1]}",
        num_sequences=counts["num_sequences"],
        padding=counts["padding"],
        cut_documents=counts["num_cut_documents"],
        repeated_tokens=counts["repeated_tokens"],
        held_out_sequences=held["num_sequences"],
    )


def file_word(domain: str) -> str:
    """A domain's name as part of a file's name, different for different domains.

    >>> file_word("web_de/head"), file_word("code/C++")
    ('web_de.head', 'code.C-6b246ac1')
    """
    word = re.sub(r"[^A-Za-z0-9_-]+", ".", domain)
    if re.fullmatch(r"[A-Za-z0-9_-]{1,60}(/[A-Za-z0-9_-]{1,60})?", domain):
        return word
    # Parts are named by what the text brings: C++ and C# must not share a file, nor a URL be longer than a name may.
    return f"{word[:60].rstrip('.')}-{hashlib.blake2b(domain.encode(), digest_size=4).hexdigest()}"


def read_domains(path: str | Path) -> list[Domain]:
    """The domains that `make_domains` listed."""
    return [
        Domain(**{**stored, "packed": tuple(Packed(**one) for one in stored.get("packed", ()))})
        for stored in json.loads(Path(path).read_text(encoding="utf-8"))
    ]
