"""Mixtures by which an ablation begins and is judged: natural weights, baselines, caps and bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from curation.fields import Problem
from mixing.ablation.region import BoundsError
from mixing.budget import too_little
from mixing.domain_stage import Domain, read_domains
from mixing.patterns import covers, resolve_weights, values_of
from mixing.weights import natural, unimax
from recipes.pretraining.shapes import batch_tokens_of, phase_tokens, tokens_of
from recipes.schema.located import RecipeErrors, Segments
from recipes.schema.validation import located_problems
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


def supply_of(run: Run, listed: list[Domain]) -> dict[str, int]:
    """Tokens of one pass over each domain: its own, or those of its packed sequences as the target reads them."""
    models = [run.recipe.model, None if run.recipe.ablation is None else run.recipe.ablation.proxy]
    context = next((model.context for model in models if model is not None), None)
    return {one.name: one.num_tokens if context is None else one.tokens_of_pass(context) for one in listed}


def bounds_of(study: Any) -> tuple[tuple[str, float, float], ...]:
    """Bounds as plain values."""
    return tuple(sorted((pattern, low, high) for pattern, (low, high) in study.bounds.items()))


def most_weights(run: Run, listed: list[Domain]) -> Iterator[tuple[str, float]]:
    """The weight above which the target run would pass a domain more often than it may."""
    budget, caps = target_tokens(run), caps_of(run, [domain.name for domain in listed])
    for name, tokens in supply_of(run, listed).items():
        most = caps[name] * tokens
        if most < budget:
            yield name, most / budget


def check_supply(run: Run, listed: list[Domain]) -> None:
    """Refuse a schedule that is longer than all text there is, before any proxy is trained.

    Raises:
        RecipeErrors: at the schedule's line.
    """
    caps, asked = caps_of(run, [domain.name for domain in listed]), target_tokens(run)
    supply = supply_of(run, listed)
    if sum(caps[name] * tokens for name, tokens in supply.items()) < asked:
        reason = too_little(asked, list(supply.values()), [caps[name] for name in supply])
        where: Segments = (
            ("ablation", "tokens") if not run.recipe.schedule else ("schedule", _longest_phase(run), "tokens")
        )
        raise RecipeErrors(located_problems(run.recipe, [(where, {}, reason)]))


def refuse_bounds(run: Run, error: BoundsError) -> NoReturn:
    """Tell bounds that no mixture meets as a mistake of the recipe, with its line."""
    where = ("ablation", "bounds") if run.recipe.ablation and run.recipe.ablation.bounds else ("ablation",)
    raise RecipeErrors(located_problems(run.recipe, [(where, {}, str(error))])) from error


def _longest_phase(run: Run) -> int:
    tokens = phase_tokens(run.recipe)
    return tokens.index(max(tokens))


def check_objective(run: Run) -> None:
    """Refuse an objective that no held-out text of the run measures, before any proxy is trained.

    Raises:
        RecipeErrors: with the line of each pattern, once curation has told how much text there is.
    """
    study: Any = run.recipe.ablation
    models = [study.proxy] if study.confirm is None else [study.proxy, study.confirm.model]
    context = max(model.context for model in models)
    listed = read_domains(run.tokens.domains_path)
    measured = [domain.name for domain in listed if domain.num_held_out(context) > 0]
    wanted = study.objective
    patterns = [] if wanted is None else [*wanted.shares, *wanted.pareto]
    less = f"held-out text of less than a sequence of {context:,} tokens, so nothing measures it"
    fix = "raise domains.held_out (share and tokens), or take it out of the objective"
    wrong: list[Problem] = []
    for pattern in patterns:
        if not any(covers(pattern, name) for name in measured):
            had = ", ".join(f"{d.name}: {d.held_out_tokens:,} tokens" for d in listed if covers(pattern, d.name))
            wrong.append((("ablation", "objective", pattern), pattern, f"{less} ({had or 'no such domain'}); {fix}"))
    if not measured:
        wrong.append((("ablation",), None, f"every domain has {less}; raise domains.held_out (share and tokens)"))
    if wrong:
        raise RecipeErrors(located_problems(run.recipe, wrong))


def natural_weights(run: Run, listed: list[Domain]) -> dict[str, float]:
    """Natural weights."""
    supply = supply_of(run, listed)
    total = sum(supply.values())
    return {name: tokens / total for name, tokens in supply.items()}


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
    supply = supply_of(run, listed)
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
