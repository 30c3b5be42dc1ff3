# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Models as ARPA text: write our own for exchange (KenLM loads it), or have an installed `lmplz` write one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from curation.kernels import kernel
from curation.perplexity.model import Model, ModelError, open_model, read_vocabulary

_BLOCK = 1 << 16  # n-grams formatted at a time
_SPACES = frozenset("\0\t\n\v\f\r ")  # what KenLM splits at; other spaces, such as U+00A0, are part of a word


@kernel
def _put_number(value, out, at):
    """Write a number above -1000 with seven decimals, as ARPA files carry them; returns the new end."""
    scaled = np.int64(np.round(abs(value) * 1e7))
    if value < 0 and scaled > 0:
        out[at] = 45
        at += 1
    whole, fraction = scaled // 10_000_000, scaled % 10_000_000
    digits = 1
    while whole >= 10**digits:
        digits += 1
    for i in range(digits - 1, -1, -1):
        out[at] = 48 + (whole // 10**i) % 10
        at += 1
    out[at] = 46
    at += 1
    for i in range(6, -1, -1):
        out[at] = 48 + (fraction // 10**i) % 10
        at += 1
    return at


@kernel
def _format(  # noqa: PLR0913
    first, last, n, order, path, nodes, top, pool, places, out
):
    """Write the lines of the n-grams first…last-1 of one order; `path` holds the n-gram at each level of the walk.

    Returns bytes written; the walk goes on in the next call.
    """
    at = 0
    num_nodes = len(nodes) - 1
    for gram in range(first, last):
        path[n - 1] = gram
        for level in range(n - 2, -1, -1):
            while nodes[path[level] + 1].start <= path[level + 1]:
                path[level] += 1
        at = _put_number(nodes[gram].probability if gram < num_nodes else top[gram - num_nodes].probability, out, at)
        for level in range(n):
            out[at] = 9 if level == 0 else 32
            at += 1
            word = nodes[path[level]].word if path[level] < num_nodes else top[path[level] - num_nodes].word
            for i in range(places[word], places[word + 1]):
                out[at] = pool[i]
                at += 1
        if n < order:
            out[at] = 9
            at = _put_number(nodes[gram].backoff, out, at + 1)
        out[at] = 10
        at += 1
    return at


def write_arpa(model: Model, path: Path) -> None:
    """Write a model of ours as ARPA text; a token that ARPA cannot carry (empty, or with whitespace) is refused."""
    names = read_vocabulary(model.folder)
    for name in names:
        if not name or not _SPACES.isdisjoint(name):
            raise ModelError(f"{model.folder}: token {name!r} holds whitespace or nothing, which ARPA cannot carry")
    encoded = [name.encode() for name in names]
    pool = np.frombuffer(b"".join(encoded), np.uint8)
    places = np.concatenate(([0], np.cumsum([len(name) for name in encoded])))
    nodes, top = np.asarray(model.nodes), np.asarray(model.top)
    sizes = [int(size) for size in model.card["ngrams"]]
    out = np.empty(_BLOCK * (model.order * (max(map(len, encoded)) + 1) + 40), np.uint8)
    with path.open("wb") as stream:
        stream.write(b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % (n, size) for n, size in enumerate(sizes, 1)))
        first = 0
        for n, size in enumerate(sizes, 1):
            stream.write(b"\n\\%d-grams:\n" % n)
            walk = np.concatenate(([0], np.cumsum(sizes)))[: model.order].astype(np.int64)
            for begin in range(first, first + size, _BLOCK):
                end = min(begin + _BLOCK, first + size)
                written = _format(begin, end, n, model.order, walk, nodes, top, pool, places, out)
                stream.write(out[:written].data)
            first += size
        stream.write(b"\n\\end\\\n")


def export_arpa(folder: Path, path: Path) -> None:
    """Write the model of a folder as ARPA text."""
    write_arpa(open_model(folder), path)


def lmplz_path() -> str | None:
    """Where `lmplz` is installed, or None."""
    return shutil.which("lmplz")


def run_lmplz(
    lines: Iterable[bytes], path: Path, *, order: int, prune: tuple[int, ...], fallback: bool, memory: int
) -> None:
    """Have KenLM's own `lmplz` estimate an ARPA file from lines of tokens split by spaces.

    Raises:
        ModelError: lmplz is not installed, or fails; its last words are quoted.
    """
    program = lmplz_path()
    if program is None:
        raise ModelError("with: lmplz, but lmplz is not on the PATH; install KenLM's programs or choose `with: own`")
    command = [program, "-o", str(order), "-S", f"{max(memory >> 20, 1)}M", "-T", str(path.parent), "--skip_symbols"]
    command += ["--arpa", str(path)]
    command += ["--discount_fallback"] if fallback else []
    command += ["--prune", *map(str, prune)] if any(prune) else []
    # A file, not a pipe that nobody reads while the text is written: both would wait for each other once it is full.
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as running:
            assert running.stdin is not None
            try:
                for line in lines:
                    running.stdin.write(line + b"\n")
            except BrokenPipeError:
                pass  # it stopped early; its own words below say why
            running.communicate()
        if running.returncode != 0:
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()[-500:]
            raise ModelError(f"lmplz failed ({running.returncode}): {words}")
