"""Weights: shares of tokens per domain, as integers of 1e-12.

A weight means the decimal digits it is written with: 0.1 is one tenth, not the nearest binary fraction. Weights are
scaled to sum to 10**12 (`targets.DENOMINATOR`), rounded by largest remainder, and stay integers from there on.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from mixing.targets import DENOMINATOR

Number = int | float | Fraction | Decimal


class WeightError(ValueError):
    """Weights that cannot be shares of tokens."""


def natural(tokens: Mapping[str, int], temperature: float = 1.0) -> dict[str, int]:
    """Return the weights tokens**T: 1 is the supply's own shares, 0 is equal weights, between is flatter.

    Args:
        tokens: supply per domain after held-out text; a domain without tokens gets weight 0, also at T = 0.
        temperature: the exponent T of `natural^T`, finite.

    Returns:
        Integers of 1/D per domain, summing to D.
    """
    if not math.isfinite(temperature):
        raise WeightError(f"natural^{temperature}: the exponent must be a finite number, such as 0.5")
    if temperature == 1:
        return to_integers(tokens)
    largest = max(tokens.values(), default=0)
    return to_integers({name: (count / largest) ** temperature if count else 0 for name, count in tokens.items()})


def unimax(tokens: Mapping[str, int], token_budget: int, max_epochs: Mapping[str, float]) -> dict[str, int]:
    """Return UniMax weights: as equal as the caps on epochs allow. An infinite cap is none.

    Domains take their share in order of what they can give (tokens x max_epochs, ties by name): each gets an equal part
    of what is left of the budget, or all it can give. A budget beyond all caps gives weights in proportion to the caps;
    the plan then refuses the budget.
    Source: Chung et al. 2023, arXiv:2304.09151, algorithm 1.
    """
    left = Fraction(token_budget)
    # no domain gets more than the budget, so that much is no cap
    ceilings = {
        name: min(count * exact(cap), left) if math.isfinite(cap := max_epochs[name]) else left * bool(count)
        for name, count in tokens.items()
    }
    return to_integers(fill(ceilings, left))


def whole_units(parts: Mapping[str, Fraction | float], total: int) -> dict[str, int]:
    """Return amounts of 0 or more as whole units that sum to `total`, by largest remainder (ties by name)."""
    units = {name: math.floor(part) for name, part in parts.items()}
    missing = total - sum(units.values())
    for name in sorted(parts, key=lambda name: (units[name] - parts[name], name))[:missing]:
        units[name] += 1
    return units


def fill(ceilings: Mapping[str, Fraction], left: Fraction) -> dict[str, Fraction]:
    """Return an amount shared out as equally as ceilings allow, in their order; beyond all of them, the ceilings."""
    shares: dict[str, Fraction] = {}
    in_order = sorted(ceilings, key=lambda name: (ceilings[name], name))
    for place, name in enumerate(in_order):
        shares[name] = min(left / (len(in_order) - place), ceilings[name])
        left -= shares[name]
    return {name: shares[name] for name in ceilings}


def to_integers(weights: Mapping[str, Number]) -> dict[str, int]:
    """Scale weights to integers that sum to D = 10**12, by largest remainder (ties by name), in the order given.

    A positive weight never becomes 0: it gets at least one unit, taken from the largest.

    Raises:
        WeightError: for a negative, infinite or NaN weight, and when all are zero; every bad domain is named.
    """
    check(weights)
    numerators = _common_numerators(weights)
    total = sum(numerators.values())
    units = {name: numerator * DENOMINATOR // total for name, numerator in numerators.items()}
    missing = DENOMINATOR - sum(units.values())
    by_remainder = sorted(units, key=lambda name: (-(numerators[name] * DENOMINATOR % total), name))
    for name in by_remainder[:missing]:
        units[name] += 1
    for name in [name for name in units if numerators[name] and not units[name]]:
        largest = min(units, key=lambda other: (-units[other], other))
        units[largest] -= 1
        units[name] = 1
    return units


def check(weights: Mapping[str, Number]) -> None:
    """Raise WeightError, naming all bad domains, unless every weight is finite, none negative and some positive."""
    bad = [
        f"domain {name!r}: weight {weight} is not a finite number of 0 or more"
        for name, weight in weights.items()
        if not math.isfinite(weight) or weight < 0
    ]
    if bad:
        raise WeightError("; ".join(bad) + "; give each domain a share of tokens between 0 and 1")
    if not any(weights.values()):
        raise WeightError(f"the weights of {len(weights)} domains sum to 0; give at least one domain a positive weight")


def exact(number: Number) -> Fraction:
    """Return a number as the fraction its decimal digits say: 0.1 -> 1/10."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def _common_numerators(weights: Mapping[str, Number]) -> dict[str, int]:
    """Return integers in the same proportion as the weights."""
    fractions = {name: exact(weight) for name, weight in weights.items()}
    denominator = math.lcm(*(fraction.denominator for fraction in fractions.values()))
    return {name: fraction.numerator * (denominator // fraction.denominator) for name, fraction in fractions.items()}


def read_weights(path: Path) -> dict[str, Number]:
    """Read weights from a file, as written there: names or patterns of domains with their shares.

    JSON and YAML: `{"name": share, …}` or `{"weights": {…}}`. CSV: the header `domain,weight` and a line per domain.
    UTF-8, with or without a byte order mark.

    Raises:
        WeightError: with the file and the line or key, for anything that is not a name and a number.
    """
    readers = {".json": _read_json, ".csv": _read_csv, ".yaml": _read_yaml, ".yml": _read_yaml}
    if path.suffix in readers:
        try:
            return readers[path.suffix](path)
        except UnicodeDecodeError as error:
            raise WeightError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    raise WeightError(
        f"{path}: weights are read from .json, .yaml or .csv, not {path.suffix or 'a file without suffix'}"
    )


def _read_json(path: Path) -> dict[str, Number]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal)
    except json.JSONDecodeError as error:
        raise WeightError(f"{path}: not JSON: {error}") from error
    return _shares_of(path, content)


def _read_yaml(path: Path) -> dict[str, Number]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return _shares_of(path, YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig")))
    except YAMLError as error:
        raise WeightError(f"{path}: not YAML: {error}") from error


def _shares_of(path: Path, content: object) -> dict[str, Number]:
    """The shares of a mapping, alone or under the key `weights`."""
    shares = content.get("weights", content) if isinstance(content, dict) else content
    if not isinstance(shares, dict):
        raise WeightError(f'{path}: expected {{"domain": share, …}}, found {type(shares).__name__}')
    for name, weight in shares.items():
        if not isinstance(name, str):
            raise WeightError(f"{path}: {name!r} is no domain's name; quote it")
        if isinstance(weight, bool) or not isinstance(weight, int | float | Decimal):
            raise WeightError(f"{path}: weight of {name!r} is {weight!r}, not a number")
    check(shares)
    return shares


def _read_csv(path: Path) -> dict[str, Number]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != ["domain", "weight"]:
        raise WeightError(f"{path}:1: expected the header domain,weight")
    shares: dict[str, Number] = {}
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or row[0] in shares:
            raise WeightError(f"{path}:{line}: expected one new domain and its weight, found {','.join(row)!r}")
        try:
            shares[row[0]] = +Decimal(row[1])  # the sign refuses a signalling NaN
        except ArithmeticError as error:
            raise WeightError(f"{path}:{line}: weight {row[1]!r} is not a number") from error
    check(shares)
    return shares
