"""The text of a training: a plan's order over domain indexes, and the held-out text of every domain.

Made anew in each process from paths, by `training.spec.Factory("training.stream:open_stream", {...})`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xxhash

from mixing.domain_stage import Domain, read_domains
from mixing.order import open_order
from mixing.plan_record import Plan
from mixing.reader import TokenReader
from mixing.sort_values import open_sort_values
from training.batches import HeldOut, TokenStream


class Windows:
    """Sequences of domains at any context: one reader for each context, opened at first use.

    Args:
        folder: of the domains' indexes.
        domains: they are numbered in this order.
        part: training or held_out.
    """

    def __init__(self, folder: Path, domains: Sequence[Domain], part: str) -> None:
        self._folder, self._domains, self._part = folder, list(domains), part
        self._readers: dict[int, TokenReader] = {}

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Token ids (n, context + 1) of sequences of domains."""
        return self._reader(context).read(domains, sequences)

    def checksums(self, context: int) -> dict[str, str]:
        """Of each domain's text: see `TokenReader.sampled_checksums`."""
        return dict(zip([domain.name for domain in self._domains], self._reader(context).sampled_checksums()))

    def _reader(self, context: int) -> TokenReader:
        if context not in self._readers:
            paths = [self._folder / str(domain.index(context, self._part)) for domain in self._domains]
            self._readers[context] = TokenReader(paths, context, padding=-1)
        return self._readers[context]


class _Spread:
    """A fixed choice of a domain's windows, spread evenly over its held-out text."""

    def __init__(self, reader: Windows, places: Sequence[np.ndarray]) -> None:
        self._reader, self._places = reader, list(places)

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Token ids of the chosen windows."""
        chosen = np.fromiter((self._places[d][s] for d, s in zip(domains, sequences)), np.int64, len(sequences))
        return self._reader.read(domains, chosen, context)


def open_stream(
    plan: str,
    domains: str,
    context: int,
    max_held_out: int | None = None,
    measured: str | None = None,
    values: str | None = None,
) -> TokenStream:
    """Open the text of a training.

    Args:
        plan: the plan's JSON file.
        domains: `domains.json` of the domains that the plan draws from.
        context: tokens of a held-out window.
        max_held_out: most held-out windows of a domain; None takes all.
        measured: `domains.json` whose held-out text is measured, where it is not that of `domains` (proxies on thinned
            domains are measured on the same text as their target).
        values: `values.json` that phases ordered by a signal sort by.
    """
    written = Path(plan).read_text(encoding="utf-8")
    made = Plan.from_json(written)
    listed = {domain.name: domain for domain in read_domains(domains)}
    names = [supply.name for supply in made.domains]
    folder = Path(domains).parent
    reader = Windows(folder, [listed[name] for name in names], "training")
    order = open_order(made, None if values is None else open_sort_values(values))

    def checksums(contexts: Sequence[int]) -> dict[str, str]:
        found = {"the plan": xxhash.xxh3_64_hexdigest(written)}
        for length in contexts:
            found |= {f"{name} at {length}": checksum for name, checksum in reader.checksums(length).items()}
        return found

    return TokenStream(names, order, reader, open_held_out(measured or domains, context, max_held_out), checksums)


def open_held_out(domains: str, context: int, most: int | None = None) -> HeldOut:
    """Held-out text of all domains that have a whole window of it."""
    folder = Path(domains).parent
    listed = [domain for domain in read_domains(domains) if domain.num_held_out(context)]
    reader = Windows(folder, listed, "held_out")
    numbers = [domain.num_held_out(context) for domain in listed]
    places = [np.linspace(0, n - 1, min(n, most or n)).astype(np.int64) for n in numbers]
    return HeldOut(
        domains=[domain.name for domain in listed],
        num_sequences=[len(chosen) for chosen in places],
        reader=_Spread(reader, places),
        context=context,
        bytes_per_token=[_bytes_per_token(domain) for domain in listed],
    )


def _bytes_per_token(domain: Domain) -> float | None:
    return domain.held_out_bytes / domain.held_out_tokens if domain.held_out_tokens else None
