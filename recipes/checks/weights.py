"""What is wrong with weights: shares that do not sum to 1, patterns that name nothing or leave a domain out, files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from curation.fields import Problem
from mixing.config import Weights
from mixing.patterns import PatternError, covers, is_pattern, winners
from recipes.schema.located import Segments
from recipes.schema.names import Names, domain_problems

Shares = Mapping[str, float]

SUM_TOLERANCE = 1e-9
_GRAIN = 10_000  # weights to paste are whole ten-thousandths


def in_line(shares: Shares) -> str:
    """Shares as a recipe's line has them behind a colon."""
    quoted = ((f'"{name}"' if name[:1] in "*?[&!" else name, share) for name, share in shares.items())
    return " {" + ", ".join(f"{name}: {share:.12g}" for name, share in quoted) + "}"


_IN_FILE: dict[str, Callable[[Shares], str]] = {
    ".csv": lambda shares: "".join(f"\n{name},{share:.12g}" for name, share in shares.items()),
    ".json": lambda shares: "\n" + json.dumps(shares, ensure_ascii=False),
}


def shares_problem(
    shares: Shares, path: Segments, what: str = "weights", written: Callable[[Shares], str] = in_line
) -> Iterator[Problem]:
    """Shares that do not sum to 1, with what to paste instead.

    Args:
        shares: of domains or patterns.
        path: where they stand in the recipe.
        what: they are, for the sentence.
        written: how normalised ones are written where these stand, from the space before them on.
    """
    total = math.fsum(shares.values())
    if abs(total - 1) <= SUM_TOLERANCE:
        return
    if total <= 0:
        yield path, shares, f"{what} sum to 0, not 1"
        return
    yield path, shares, f"{what} sum to {total:.6g}, not 1; normalised:{written(normalised(shares))}"


def file_problem(path: Path, shares: Shares) -> str:
    """Why a file's shares do not do, with what to paste into it instead; nothing where they sum to 1."""
    return "".join(reason for _, _, reason in shares_problem(shares, (), written=_IN_FILE.get(path.suffix, in_line)))


def normalised(shares: Shares) -> dict[str, float]:
    """Shares scaled to whole ten-thousandths that sum to exactly 1 (largest remainder; ties by name).

    Finer where a share is so small that it would be rounded away.
    """
    from mixing.weights import whole_units

    total = math.fsum(shares.values())
    least = min(share for share in shares.values() if share > 0) / total
    grain = max(_GRAIN, 10 ** min(12, 2 - math.floor(math.log10(least))))
    grains = whole_units({name: share / total * grain for name, share in shares.items()}, grain)
    return {name: count / grain for name, count in grains.items()}


def weights_problems(weights: Weights, names: Names, path: Segments) -> Iterator[Problem]:
    """Explicit shares name domains, leave none out and sum to 1, also those of a file."""
    if weights.kind == "file":
        yield from _weights_file(weights, names, path)
    if weights.kind != "shares":
        return
    yield from domain_problems(weights.shares, names, path)
    yield from shares_problem(weights.shares, path)
    yield from nothing_left(weights.shares, names, path)
    if missing := unnamed(names.trained(), weights.shares):
        reason = f'no weight names {", ".join(missing)}; add them (0 leaves a source out), or "*": SHARE for the rest'
        yield path, weights.shares, reason


def _weights_file(weights: Weights, names: Names, path: Segments) -> Iterator[Problem]:
    """What is wrong with a file of weights, told where it is named; `validate` tells of a missing one."""
    try:
        read = weights.model_copy(update={"kind": "shares", "shares": shares_in(weights)})
    except ValueError as error:
        yield path, str(weights.path), str(error).removeprefix(f"{weights.path}: ")
        return
    if not read.shares:  # no file
        return
    if told := file_problem(Path(str(weights.path)), read.shares):
        yield path, str(weights.path), told
        return
    for where, _, reason in weights_problems(read, names, path):
        named = f"{where[-1]!r}: " if where != path else ""
        yield path, str(weights.path), named + reason


def shares_in(weights: Weights) -> dict[str, float]:
    """Shares that a file of weights holds; none where there is no file."""
    from mixing.weights import read_weights

    file = Path(str(weights.path))
    return {name: float(share) for name, share in read_weights(file).items()} if file.is_file() else {}


def nothing_left(shares: Shares, names: Names, path: Segments) -> Iterator[Problem]:
    """Two patterns of one precedence, and patterns whose domains are all named more specifically."""
    try:
        chosen = winners(shares, names.domains)
    except PatternError as error:
        yield path, shares, str(error)
        return
    winning = frozenset(chosen.values())
    for pattern in shares:
        if pattern in winning:
            continue
        won_by = {chosen[domain] for domain in names.domains if covers(pattern, domain)}
        if won_by and not names.open:
            others = ", ".join(sorted(str(other) for other in won_by))
            yield (
                (*path, pattern),
                shares[pattern],
                f"nothing is left for {pattern!r}: all it covers is named by {others}",
            )


def unnamed(sources: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Sources of which no weight names at least a part; parts are known when data has been read."""
    wanted = {pattern.partition("/")[0] for pattern in patterns}
    with_signs = [pattern for pattern in wanted if is_pattern(pattern)]
    return [
        source
        for source in sources
        if source not in wanted and not any(covers(pattern, source) for pattern in with_signs)
    ]
