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
from mixing.domains import build_domain_index
from mixing.held_out import Target, choose_held_out, read_held_out
from mixing.selections import UNKNOWN, Selection, count_parts, thin
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
    """

    split: tuple[str, ...]
    held_out_tokens: int
    held_out_share: float
    validate_only: tuple[str, ...] = ()
    thinned: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Domain:
    """A domain as `domains.json` lists it: amounts of its training text, and of its held-out text.

    `training` and `held_out` are paths of indexes, relative to the folder of `domains.json`; `training` is None for
    what is only validated on.
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
    listed = [
        _index_domain(inputs, options, name, selection, held_out, output) for name, selection in selections.items()
    ]
    output.path(".domains.json").write_text(json.dumps([asdict(domain) for domain in listed], indent=1))
    return {
        "domains": len(listed),
        "tokens": sum(domain.num_tokens for domain in listed),
        "held_out_tokens": sum(domain.held_out_tokens for domain in listed),
    }


def _target(options: DomainOptions) -> Target:
    return Target(options.held_out_tokens, options.held_out_share)


def _selections(shards: Sequence[ShardFiles], options: DomainOptions) -> dict[str, Selection]:
    """The domains: each source, or each part of a source that is split, by name."""
    found: dict[str, Selection] = {}
    for source in sorted({files.source for files in shards}):
        if source not in options.split:
            found[source] = Selection(source)
            continue
        for part, tokens in count_parts([files for files in shards if files.source == source], PART).items():
            if tokens and part != UNKNOWN:
                found[f"{source}/{part}"] = Selection(source, PART, part)
            elif tokens:
                found[f"{source}/{UNKNOWN}"] = Selection(source, PART, UNKNOWN)
    return found


def _index_domain(
    inputs: TokenInputs, options: DomainOptions, name: str, selection: Selection, held_out: Any, output: Output
) -> Domain:
    word = file_word(name)
    held_suffix = f".{word}.held_out"
    held = build_domain_index(
        inputs.shards, selection, output.path(held_suffix), held_out=held_out, domain=name, part="held_out"
    )
    share = dict(options.thinned).get(name, 1.0)
    training: Mapping[str, int] = {}
    suffix = None
    if selection.source not in options.validate_only:
        suffix = f".{word}.training"
        selection = thin(selection, share) if share < 1 else selection
        training = build_domain_index(inputs.shards, selection, output.path(suffix), held_out=held_out, part="training")
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
    return [Domain(**stored) for stored in json.loads(Path(path).read_text(encoding="utf-8"))]
