"""Mixtures by which an ablation begins and is judged: natural weights, baselines, caps and bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.domain_stage import Domain, read_domains
from mixing.patterns import resolve_weights, values_of
from mixing.weights import natural, unimax
from recipes.pretraining.shapes import batch_tokens_of, phase_tokens, tokens_of
from recipes.tokenizing.tokens import weights_of

if TYPE_CHECKING:
    from recipes.run import Run
    from recipes.tokenizing.tokens import Tokens


def domains_to_mix(tokens: Tokens) -> list[Domain]:
    """Domains that a mixture may draw from: those with text to train on."""
    return [domain for domain in read_domains(tokens.domains_path) if domain.num_tokens]


def target_tokens(run: Run) -> int:
    """Tokens of the schedule that the ablation is for; without one, of a proxy run."""
    recipe: Any = run.recipe
    if not recipe.schedule or recipe.model is None:
        context = recipe.ablation.proxy.context
        return tokens_of(recipe.ablation.tokens, context, batch_tokens_of(recipe.ablation.proxy.training, context))
    return sum(phase_tokens(recipe))


def bounds_of(study: Any) -> tuple[tuple[str, float, float], ...]:
    """Bounds as plain values."""
    return tuple(sorted((pattern, low, high) for pattern, (low, high) in study.bounds.items()))


def most_weights(run: Run, listed: list[Domain]) -> Iterator[tuple[str, float]]:
    """The weight above which the target run would pass a domain more often than it may."""
    budget = target_tokens(run)
    for name, cap in caps_of(run, [domain.name for domain in listed]).items():
        supply = next(domain.num_tokens for domain in listed if domain.name == name)
        if cap * supply < budget:
            yield name, cap * supply / budget


def natural_weights(listed: list[Domain]) -> dict[str, float]:
    """Natural weights."""
    total = sum(domain.num_tokens for domain in listed)
    return {domain.name: domain.num_tokens / total for domain in listed}


def baselines_of(run: Run, listed: list[Domain]) -> Iterator[tuple[str, dict[str, float]]]:
    """Weights that are trained beside the design, by name; natural is the design's own."""
    wanted: Any = run.recipe.ablation
    for weights in wanted.baselines:
        kind, power, _ = weights_of(run, weights, None)
        if kind == "natural" and power == 1.0:
            continue
        name = f"natural^{power:g}" if kind == "natural" else kind
        if kind == "shares":
            name = Path(str(weights.path)).stem if weights.path else "shares"
        yield name, mixture_of(run, weights, listed, target_tokens(run))


def mixture_of(
    run: Run, weights: Any, listed: list[Domain], budget: int, chosen: dict[str, float] | None = None
) -> dict[str, float]:
    """A recipe's weights as shares of tokens of each domain, summing to 1; `chosen` are an ablation's."""
    kind, power, shares = weights_of(run, weights, chosen)
    supply = {domain.name: domain.num_tokens for domain in listed}
    if kind == "natural":
        return _normalised(natural(supply, power))
    if kind == "unimax":
        return _normalised(unimax(supply, budget, caps_of(run, list(supply))))
    return resolve_weights(dict(shares), list(supply), {n: float(t) for n, t in supply.items()})


def caps_of(run: Run, names: list[str]) -> dict[str, float]:
    """Most passes over each domain, as `max_epochs` has them; infinite where it says none."""
    return dict.fromkeys(names, float("inf")) | values_of(run.recipe.domains.max_epochs, names)


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
