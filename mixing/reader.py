"""Read sequences of many domains at random, from memory-mapped token shards, in one kernel call a batch.

The kernel finds the runs of a sequence by bisection and copies their tokens, widened to the batch's type: no Python per
sequence, no state. What reads elsewhere (an object store) needs the same two methods, `read` and `document_numbers`.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from curation.kernels import kernel
from mixing.domain_index import PADDING, WITHIN, DomainIndexError
from mixing.domains import DomainTokens, Slice
from mixing.shards import map_tokens, read_record

Tokens = np.ndarray[Any, np.dtype[np.int32]]
_PAGE_BYTES = 4096
MAPS_AN_INDEX = 2  # `DomainTokens.open`: runs and documents


class TokenReader:
    """Sequences of some domains.

    Open files: one a token shard and two a domain (the limit of the process is raised if that is allowed). Memory: the
    page cache, and 32 bytes a shard. A reader can be pickled: it opens its files again.

    Args:
        paths: domain indexes; a domain's number is its place here.
        context: tokens a sequence predicts.
        padding: token written where a packed sequence has none. With a negative one, a token that is only read (the
            first of a piece from within a document) is written as -2 - token: negative ids are never predicted.
    """

    def __init__(self, paths: Sequence[str | Path], context: int, *, padding: int = 0) -> None:
        self._arguments = ([Path(path) for path in paths], context, padding)
        self.context = context
        _allow_open_files(MAPS_AN_INDEX * len(paths), "tables of domain indexes")
        self.domains = [DomainTokens.open(path) for path in paths]
        self.num_sequences = np.array([domain.num_sequences(context) for domain in self.domains], np.int64)
        self._padding = padding
        shards = [
            (number, place) for number, domain in enumerate(self.domains) for place in range(len(domain.footer.shards))
        ]
        keys = [self.domains[number].files(place).tokens_path.resolve() for number, place in shards]
        _allow_open_files(len(set(keys)), "token shards")
        opened: dict[Path, np.ndarray] = {}
        addresses = np.zeros((len(shards), 2), np.int64)
        for row, ((number, place), key) in enumerate(zip(shards, keys)):
            files = self.domains[number].files(place)
            known = self.domains[number].footer.shards[place]
            if key not in opened:
                opened[key] = map_tokens(files, read_record(files))
            if len(opened[key]) != known.num_tokens:
                raise DomainIndexError(
                    f"{self.domains[number].path}: made when {key} had {known.num_tokens} tokens, "
                    f"now {len(opened[key])}; remove the index and run again"
                )
            addresses[row] = opened[key].ctypes.data, opened[key].dtype.itemsize
        self._opened = opened  # keeps the maps alive while the kernel uses their addresses
        self._shards = addresses
        firsts = np.cumsum([0, *(len(domain.footer.shards) for domain in self.domains)])[:-1]
        self._tables = np.array(
            [
                (
                    domain.runs.ctypes.data,
                    len(domain.runs),
                    domain.documents.ctypes.data,
                    len(domain.documents),
                    first,
                    domain.stride(context),
                    domain.length,
                )
                for domain, first in zip(self.domains, firsts)
            ],
            np.int64,
        ).reshape(-1, 7)

    def __reduce__(self) -> tuple[Any, ...]:
        paths, context, padding = self._arguments
        return _reopen, (paths, context, padding)

    def read(self, domain_ids: np.ndarray, sequences: np.ndarray, *, out: np.ndarray | None = None) -> Tokens:
        """Tokens of sequences.

        Args:
            domain_ids: domain of each, int (n,).
            sequences: its number in the domain, int (n,).
            out: written if given, any integer type that holds the vocabulary (n, context + 1).

        Returns:
            int32 (n, context + 1), or `out`.

        Raises:
            IndexError: if a domain or sequence does not exist.
            ValueError: if `out` has another shape.
        """
        domain_ids, sequences = self._checked(domain_ids, sequences)
        shape = (len(sequences), self.context + 1)
        tokens = np.empty(shape, np.int32) if out is None else out
        if tokens.shape != shape:  # the kernel writes where it is told, also beyond an array
            raise ValueError(f"out has shape {tokens.shape}: these sequences need {shape}")
        _gather(self._tables, self._shards, domain_ids, sequences, self._padding, tokens)
        return tokens

    def document_numbers(self, domain_ids: np.ndarray, sequences: np.ndarray) -> Tokens:
        """Which document of its sequence each token belongs to, from 0; -1 is padding. int32 (n, context + 1)."""
        domain_ids, sequences = self._checked(domain_ids, sequences)
        numbers = np.empty((len(sequences), self.context + 1), np.int32)
        _number_documents(self._tables, domain_ids, sequences, numbers)
        return numbers

    def sampled_checksums(self) -> list[str]:
        """A checksum of each domain: of its index's tables and of pages spread over them and over its token shards.

        Two machines whose copies of the text differ in a file, its length or a stretch of pages get other checksums; a
        single changed byte between the pages is not seen. At most 256 KiB of a file are read.
        """
        found = []
        for domain in self.domains:
            digest = xxhash.xxh3_64(repr(domain.footer).encode())
            shards = [
                self._opened[domain.files(place).tokens_path.resolve()] for place in range(len(domain.footer.shards))
            ]
            for array in (domain.runs, domain.documents, *shards):
                _digest_pages(digest, array)
            found.append(digest.hexdigest())
        return found

    def documents_in(self, domain_id: int, sequence: int) -> list[Slice]:
        """Documents of a sequence: source, shard, row and where."""
        return self.domains[domain_id].documents_in(sequence, self.context)

    def _checked(self, domain_ids: np.ndarray, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        domain_ids = np.ascontiguousarray(domain_ids, np.int64)
        sequences = np.ascontiguousarray(sequences, np.int64)
        if domain_ids.shape != sequences.shape or domain_ids.ndim != 1:
            raise ValueError(
                f"domain_ids {domain_ids.shape} and sequences {sequences.shape}: give two arrays of one length"
            )
        if len(domain_ids) and not (domain_ids.min() >= 0 and domain_ids.max() < len(self.domains)):
            raise IndexError(f"domain {domain_ids.min()} to {domain_ids.max()}, but there are {len(self.domains)}")
        wrong = np.flatnonzero((sequences < 0) | (sequences >= self.num_sequences[domain_ids]))
        if len(wrong):
            domain = int(domain_ids[wrong[0]])
            raise IndexError(
                f"{self.domains[domain].path}: sequence {sequences[wrong[0]]}, but it has {self.num_sequences[domain]} "
                f"of context {self.context}"
            )
        return domain_ids, sequences


def _digest_pages(digest: Any, array: np.ndarray[Any, Any], pages: int = 64) -> None:
    """Add an array's length, and as many of its pages of 4 KiB as said, spread from its first to its last."""
    content = array.reshape(-1).view(np.uint8)
    digest.update(len(content).to_bytes(8, "little"))
    for start in np.unique(np.linspace(0, max(0, len(content) - _PAGE_BYTES), pages).astype(np.int64)).tolist():
        digest.update(content[start : start + _PAGE_BYTES].tobytes())


def _reopen(paths: Sequence[Path], context: int, padding: int) -> TokenReader:
    return TokenReader(paths, context, padding=padding)


def _allow_open_files(number: int, what: str) -> None:
    """Raise the soft limit of open files where so many more are mapped than it allows, and some others are opened.

    Raises:
        DomainIndexError: if the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + number + 256
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise DomainIndexError(
                f"{number} {what} to map and {needed - number - 256} files open already, but only {hard} open files "
                "are allowed; raise `ulimit -Hn`"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _open_files() -> int:
    """Files that this process has open, other readers' maps among them; 0 where the system does not tell."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir())
    except OSError:
        return 0


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer that `carray` takes."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@kernel
def _last_at_most(address: int, length: int, columns: int, position: int) -> int:
    """Last row of a table (its first column ascends) that starts at or before `position`."""
    table = carray(_pointer(address), (length, columns), np.int64)
    low, high = 0, length - 1
    while low < high:
        middle = (low + high + 1) >> 1
        if table[middle, 0] <= position:
            low = middle
        else:
            high = middle - 1
    return low


@kernel
def _gather_range(
    tables: np.ndarray, shards: np.ndarray, domain: int, begin: int, padding: int, out: np.ndarray
) -> None:
    """Write tokens [begin, begin + len(out)) of a domain's stream."""
    num_runs, first_shard, length = tables[domain, 1], tables[domain, 4], tables[domain, 6]
    runs = carray(_pointer(tables[domain, 0]), (num_runs, 3), np.int64)
    run = _last_at_most(tables[domain, 0], num_runs, 3, begin)
    written = 0
    while written < len(out):
        position = begin + written
        stop = runs[run + 1, 0] if run + 1 < num_runs else length
        number = min(stop - position, len(out) - written)
        # a view of its own: indices that start at 0 let the compiler drop wrap-around tests and use vectors
        window = out[written : written + number]
        number_of_shard = runs[run, 1]
        if number_of_shard == PADDING:
            window[:] = padding
        else:
            within = number_of_shard < PADDING
            shard = first_shard + (WITHIN - number_of_shard if within else number_of_shard)
            offset = runs[run, 2] + position - runs[run, 0]
            if shards[shard, 1] == 2:
                narrow = carray(_pointer(shards[shard, 0] + 2 * offset), (number,), np.uint16)
                for i in range(number):
                    window[i] = narrow[i]
            else:
                wide = carray(_pointer(shards[shard, 0] + 4 * offset), (number,), np.uint32)
                for i in range(number):
                    window[i] = wide[i]
            if within and padding < 0 and position == runs[run, 0]:
                window[0] = WITHIN - window[0]
        written += number
        run += 1


@kernel
def _gather(
    tables: np.ndarray, shards: np.ndarray, domain_ids: np.ndarray, sequences: np.ndarray, padding: int, out: np.ndarray
) -> None:
    """Write the tokens of sequences, (n, context + 1)."""
    for row in range(len(sequences)):
        domain = domain_ids[row]
        _gather_range(tables, shards, domain, sequences[row] * tables[domain, 5], padding, out[row])


@kernel
def _number_documents(tables: np.ndarray, domain_ids: np.ndarray, sequences: np.ndarray, out: np.ndarray) -> None:
    """Number the documents of sequences from 0, -1 for padding, (n, context + 1)."""
    for row in range(len(sequences)):
        domain = domain_ids[row]
        num_documents = tables[domain, 3]
        documents = carray(_pointer(tables[domain, 2]), (num_documents, 2), np.int64)
        begin = sequences[row] * tables[domain, 5]
        document = _last_at_most(tables[domain, 2], num_documents, 2, begin)
        number, written = -1, 0
        while written < out.shape[1]:
            stop = documents[document + 1, 0] if document + 1 < num_documents else tables[domain, 6]
            length = min(stop - begin - written, out.shape[1] - written)
            if length > 0:
                padded = documents[document, 1] == PADDING
                number += 0 if padded else 1
                for i in range(written, written + length):
                    out[row, i] = -1 if padded else number
                written += length
            document += 1
