"""Patterns that name domains, and how a weight for a name is spread over what it covers.

A domain is a source (`wiki_de`) or a part of one (`web_de/head`). A name covers the domain of that name and all its
parts; a pattern (`zh_*`) covers what it matches in the same way; `"*"` is the rest. The most specific wins.
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase


class PatternError(ValueError):
    """Patterns that name nothing, or that leave a domain without a weight."""


_SIGNS = frozenset("*?[")


def is_pattern(name: str) -> bool:
    """Whether a name holds `*`, `?` or `[`, and so can match several names."""
    return not _SIGNS.isdisjoint(name)


def covers(pattern: str, domain: str) -> bool:
    """Whether a name or pattern covers a domain: the domain itself, or the source that it is a part of.

    `*` alone covers everything. In a pattern without a slash, `*` stays inside the source's name.
    """
    if pattern in ("*", domain):
        return True
    asked = domain if "/" in pattern else domain.partition("/")[0]
    return fnmatchcase(asked, pattern) if is_pattern(pattern) else asked == pattern


def specificity(pattern: str) -> tuple[int, int, int]:
    """Order of precedence: exact part > exact source > pattern of a part > pattern of sources > "*".

    Among patterns of one kind, more literal characters are more specific.
    """
    literal = sum(character not in "*?[]" for character in pattern)
    if pattern == "*":
        return 0, 0, 0
    return (1 if is_pattern(pattern) else 2), ("/" in pattern), literal


def winners(patterns: Iterable[str], domains: Sequence[str]) -> dict[str, str | None]:
    """The most specific pattern that covers each domain; None where none does.

    Costs O(domains x patterns with signs): plain names are looked up, for there may be one for each of 10,000 domains.

    Raises:
        PatternError: if two equally specific patterns cover one domain.
    """
    ranked = sorted(set(patterns), key=lambda pattern: (specificity(pattern), pattern), reverse=True)
    plain = {pattern for pattern in ranked if not is_pattern(pattern)}
    with_signs = [pattern for pattern in ranked if is_pattern(pattern)]
    chosen: dict[str, str | None] = {}
    for domain in domains:
        covering = [name for name in dict.fromkeys((domain, domain.partition("/")[0])) if name in plain]
        covering += [pattern for pattern in with_signs if covers(pattern, domain)]
        if len(covering) > 1 and specificity(covering[0]) == specificity(covering[1]):
            first, second = sorted(covering[:2])
            raise PatternError(
                f"domain {domain!r} is named by {first!r} and by {second!r}, and neither is more specific"
            )
        chosen[domain] = covering[0] if covering else None
    return chosen


def values_of(by_pattern: Mapping[str, float], domains: Sequence[str]) -> dict[str, float]:
    """The value of the most specific pattern for each domain that one names, such as `max_epochs`."""
    chosen = winners(by_pattern, domains)
    return {domain: by_pattern[pattern] for domain, pattern in chosen.items() if pattern is not None}


def members(pattern: str, domains: Sequence[str]) -> list[str]:
    """All domains a name or pattern covers, in the order of `domains`; bounds are on their sum."""
    return [domain for domain in domains if covers(pattern, domain)]


def resolve_weights(
    weights: Mapping[str, float], domains: Sequence[str], natural: Mapping[str, float]
) -> dict[str, float]:
    """Weight of each domain: a pattern's share is split over the domains it wins in natural proportion.

    Args:
        weights: share of tokens for each name or pattern, summing to 1.
        domains: the trained domains.
        natural: supply of each domain (any unit: tokens or natural weights), positive.

    Returns:
        Weight of each domain, in the order of `domains`, summing to 1 up to rounding.

    Raises:
        PatternError: a domain that nothing names, a pattern that names nothing, two equally specific patterns, or a
            share for domains without supply.
    """
    chosen = winners(weights, domains)
    unnamed = sorted(domain for domain, pattern in chosen.items() if pattern is None)
    if unnamed:
        raise PatternError(f'no weight names {", ".join(unnamed)}; add them, or "*": SHARE for the rest')
    resolved = dict.fromkeys(domains, 0.0)
    won_by: dict[str | None, list[str]] = {}
    for domain in domains:
        won_by.setdefault(chosen[domain], []).append(domain)
    for pattern, share in weights.items():
        won = won_by.get(pattern, [])
        if not won:
            raise PatternError(_names_nothing(pattern, share, domains, chosen))
        supply = math.fsum(natural[domain] for domain in won)
        if supply <= 0 and share > 0:
            raise PatternError(
                f"{pattern!r} has weight {share:g}, but {', '.join(won)} hold no tokens, or less than a sequence"
            )
        for domain in won:
            resolved[domain] = share * natural[domain] / supply if supply > 0 else 0.0
    return resolved


def _names_nothing(pattern: str, share: float, domains: Sequence[str], chosen: Mapping[str, str | None]) -> str:
    """Tell a pattern that matches nothing from one whose domains are all named more specifically."""
    covered = members(pattern, domains)
    if not covered:
        return f"{pattern!r} (weight {share:g}) names no domain; domains: {', '.join(domains)}"
    others = sorted({str(chosen[domain]) for domain in covered})
    return f"nothing is left for {pattern!r} (weight {share:g}): all it covers is named by {', '.join(others)}"
