"""The names a recipe defines (sources, steps, domains), and how patterns are checked against them.

Names are read from the located tree, so that they are known also where an entry is wrong otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from curation.config import BUCKETED_FORMATS, TOKEN_FORMATS, Perplexity
from curation.fields import Problem, allowed_name, did_you_mean
from curation.perplexity.levels import level_names
from mixing.patterns import covers, is_pattern
from recipes.schema.layered import entry_name
from recipes.schema.located import Node, Segments
from recipes.schema.recipe import Recipe, matches

CCNET_CUTS = (0.3, 0.6)  # what its published cutoffs are shares of; RedPajama-V2 brings buckets cut so


@dataclass(frozen=True)
class Names:
    """What patterns may name."""

    sources: tuple[str, ...]
    validate_only: tuple[str, ...]
    steps: tuple[str, ...]  # one for each entry; "" where it has none
    domains: tuple[str, ...]  # trained domains as far as they are known before data is read
    open: tuple[str, ...]  # sources whose parts only the data tells
    given: frozenset[str]  # sections that the recipe has, right or wrong

    @cached_property
    def called(self) -> frozenset[str]:
        """Trained domains and the sources they are of: what a name without signs may be, looked up among 10,000."""
        return frozenset(self.domains) | {domain.partition("/")[0] for domain in self.domains}

    def trained(self) -> list[str]:
        """Sources that may be trained on."""
        unmixed = frozenset(self.validate_only)
        return [name for name in self.sources if name not in unmixed]


def names_of(recipe: Recipe, tree: Node) -> Names:
    """Names a recipe defines."""
    sources = tuple(allowed_name(str(name)) for name, _ in _children(tree, "sources"))
    steps = tuple(entry_name(entry) or "" for _, entry in _children(tree, "steps"))
    validate_only, unmixed = recipe.domains.validate_only, frozenset(recipe.domains.validate_only)
    domains: list[str] = []
    unknown: list[str] = []
    for source in sources:
        if source in unmixed:
            continue
        signal = split_signal(recipe, source)
        if signal is None:
            domains.append(source)
        elif not is_ready(recipe, source) and (levels := _levels(recipe, source, signal)):
            domains += [f"{source}/{level}" for level in levels]
        else:
            unknown.append(source)
            domains.append(source)
    given = frozenset(str(key) for key, section in tree.children() if section.value not in (None, [], {}))
    return Names(sources, validate_only, steps, tuple(domains), tuple(unknown), given)


def is_ready(recipe: Recipe, source: str) -> bool:
    """Whether a source is ready token shards, whose parts only a column beside the tokens tells."""
    return source in recipe.sources and recipe.sources[source].format in TOKEN_FORMATS


def _children(tree: Node, key: str) -> Iterator[tuple[str | int, Node]]:
    section = tree.get(key)
    if section is not None:
        yield from section.children()


def split_signal(recipe: Recipe, source: str) -> str | None:
    """The signal a source is split by: that of the name itself, else of the first pattern that matches."""
    split = recipe.domains.split
    if source in split:
        return split[source]
    return next((signal for pattern, signal in split.items() if fnmatchcase(source, pattern)), None)


def is_bucket(signal: str) -> bool:
    """Whether a signal is the bucket of a perplexity step, with or without the step's name."""
    return signal == "bucket" or signal.endswith("_bucket")


def _levels(recipe: Recipe, source: str, signal: str) -> list[str]:
    """Levels of a bucket as the step cuts them that gives it to a source, or its format; none where the data tells."""
    steps = [step for step in recipe.steps if isinstance(step, Perplexity) and matches(step.sources, source)]
    cuts = [
        step.buckets.values or step.buckets.shares or CCNET_CUTS for step in steps if f"{step.prefix}bucket" == signal
    ]
    described = recipe.sources.get(source)
    brought = signal == "bucket" and (described is None or described.format in BUCKETED_FORMATS)
    return level_names(len(cuts[-1])) if cuts else level_names(len(CCNET_CUTS)) if brought else []


def makes_buckets(recipe: Recipe, source: str) -> bool:
    """Whether a perplexity step looks at a source, or its format or columns bring buckets."""
    described = recipe.sources.get(source)
    if described is None or described.format in BUCKETED_FORMATS:
        return True
    return any(step.kind == "perplexity" and matches(step.sources, source) for step in recipe.steps)


def names_domain(names: Names, pattern: str) -> bool:
    """Whether a name or pattern means at least one trained domain."""
    if pattern == "*" or pattern in names.called:
        return True
    if is_pattern(pattern) and any(covers(pattern, domain) for domain in names.domains):
        return True
    source, slash, _ = pattern.partition("/")
    return bool(slash) and any(fnmatchcase(name, source) for name in names.open)


def source_problems(patterns: Iterable[str], known: Iterable[str], path: Segments) -> Iterator[Problem]:
    """Patterns of a list that match none of the sources; none where there are no sources, which is told as such."""
    sources = list(known)
    plain = frozenset(sources)
    for place, pattern in enumerate(patterns if sources else ()):
        signs = is_pattern(pattern)
        if pattern not in plain and not (signs and any(fnmatchcase(source, pattern) for source in sources)):
            yield (*path, place), pattern, f"no source is called so{did_you_mean(pattern, sources)}"


def domain_problems(patterns: Iterable[str], names: Names, path: Segments) -> Iterator[Problem]:
    """Keys of a mapping (or entries of a list given as `path`) that mean no trained domain."""
    unmixed = frozenset(names.validate_only)
    for pattern in patterns:
        source = pattern.partition("/")[0]
        if source in unmixed:
            yield (
                (*path, pattern),
                pattern,
                "this source is validate_only: it is measured, never trained on, and has no weight",
            )
        elif not names_domain(names, pattern):
            yield (*path, pattern), pattern, f"names no domain{_nearest_domain(pattern, names)}"


def _nearest_domain(pattern: str, names: Names) -> str:
    source, slash, _ = pattern.partition("/")
    if slash and source in names.domains:
        return f"; {source} is not split: add it to domains.split, or write {source}"
    known = [*names.domains, *(name for name in names.trained() if name not in names.domains)]
    return did_you_mean(pattern, known, limit=20)
