"""Rules across sections of a recipe: weights, schedule, ablation, training. Each check yields (path, value, reason)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from curation.amounts import Amount
from curation.fields import Problem, did_you_mean
from mixing.ablation_config import Ablation
from mixing.config import Phase, Weights
from mixing.patterns import PatternError, covers, winners
from recipes.checks.spans import (
    batch_sizes,
    sizes_within,
    span_problems,
    span_tokens,
    step_tokens,
    whole_sequences,
)
from recipes.checks.weights import SUM_TOLERANCE, nothing_left, shares_in, shares_problem, unnamed, weights_problems
from recipes.schema.located import Segments
from recipes.schema.names import Names, domain_problems, names_domain
from recipes.schema.recipe import Recipe
from training.config import Model
from training.spec import attention_problem


def training_problems(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """All checks of this file."""
    for check in (
        _tokenizer,
        _what_is_needed,
        _sequences,
        _phases,
        span_problems,
        _max_epochs,
        _ablation,
        _batches,
        _saving,
        _attention,
    ):
        yield from check(recipe, names)


def _tokenizer(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """The shares of training text; ready tokens need the tokenizer that wrote them."""
    if recipe.tokenizer is None or recipe.tokenizer.path is not None:
        return
    for name, source in recipe.token_sources().items():
        reason = "ready tokens need the tokenizer that wrote them, but this recipe trains one; say tokenizer: PATH"
        yield ("sources", name, "format"), source.format, reason
    shares, path = recipe.tokenizer.text.shares, ("tokenizer", "text", "shares")
    yield from domain_problems(shares, names, path)
    yield from shares_problem(shares, path, "shares of text")
    if len(shares) > 1:  # the default is everything
        yield from nothing_left(shares, names, path)


def _what_is_needed(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Sections that make no sense without another."""
    needs = {
        ("training", "model"): "training of what? Name a model, such as model: llama_15m",
        ("schedule", "tokenizer"): "a schedule counts tokens; say tokenizer: a path, a preset or how one is trained",
        (
            "model",
            "schedule",
        ): "a model is trained on a schedule; add one, such as schedule: [{name: main, tokens: 1B}]",
        ("ablation", "schedule"): "an ablation chooses weights for a schedule; add one with weights: ablation",
    }
    for (section, other), reason in needs.items():
        if section in names.given and other not in names.given:
            yield (section,), {}, reason
    for place, phase in enumerate(recipe.schedule):
        if phase.weights.kind == "ablation" and "ablation" not in names.given:
            yield ("schedule", place, "weights"), "ablation", "there is no `ablation:` section to take weights from"


def _sequences(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Attention that stays inside documents needs a token at which they end."""
    if recipe.sequences.document_masks and not recipe.sequences.eos:
        reason = "documents are told apart by their end tokens; leave sequences.eos true"
        yield ("sequences", "document_masks"), True, reason


def _phases(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Names, weights, ramps and orders of the phases."""
    first: dict[str, int] = {}
    for place, phase in enumerate(recipe.schedule):
        path: Segments = ("schedule", place)
        if phase.name in first:
            yield (*path, "name"), phase.name, "two phases are called so"
        first.setdefault(phase.name, place)
        yield from weights_problems(phase.weights, names, (*path, "weights"))
        yield from _blocks(phase, recipe.ablation, names, (*path, "order", "blocked"))
        if place == 0 and phase.ramp.number:
            yield (*path, "ramp"), str(phase.ramp), "the first phase has no weights to ramp from"
        yield from _ramp(phase, recipe, path)
        yield from _positions(phase, recipe.model, path)


def _blocks(phase: Phase, study: Ablation[Model] | None, names: Names, path: Segments) -> Iterator[Problem]:
    """A blocked order names each source once, but those to which the phase can give no weight."""
    blocks = phase.order.domains
    unknown = list(domain_problems_of_list(blocks, names, path))
    yield from unknown
    if not blocks or unknown:  # a misspelt name leaves out what it meant
        return
    if reason := _tie(blocks, names.domains):
        yield path, list(blocks), reason
    if left := unnamed(_drawn(phase.weights, study, names), blocks):
        reason = f'the weights of this phase draw {", ".join(left)} too; name them, or "*" for the rest'
        yield path, list(blocks), reason


def _drawn(weights: Weights, study: Ablation[Model] | None, names: Names) -> list[str]:
    """Sources of which weights may give some part more than 0; none where the weights are wrong themselves."""
    shares: dict[str, float] = {"*": 1.0}
    try:
        if weights.kind in ("shares", "file"):
            shares = weights.shares or shares_in(weights)
        elif weights.kind == "ablation" and study is not None:
            shares |= {pattern: high for pattern, (_, high) in study.bounds.items()}
        won = winners(shares, names.trained())
    except ValueError:
        return []
    parts = [pattern.partition("/")[0] for pattern, share in shares.items() if "/" in pattern and share > 0]
    whole = [source for source, pattern in won.items() if pattern is not None and shares[pattern] > 0]
    others = [source for source in won if any(covers(part, source) for part in parts)] if parts else []
    return sorted({*whole, *others})


def _tie(patterns: Iterable[str], domains: Sequence[str]) -> str | None:
    """That two patterns of one precedence cover a domain."""
    try:
        winners(patterns, domains)
    except PatternError as error:
        return str(error)
    return None


def _positions(phase: Phase, model: Model | None, path: Segments) -> Iterator[Problem]:
    """A model with a learned vector for each position has none behind its context."""
    if model is not None and model.family == "gpt_neo" and (phase.context or 0) > model.context:
        reason = (
            f"a gpt_neo has learned positions, and this one has {model.context:,} (model.context); "
            f"set model.context to {phase.context}, and the other phases' context to {model.context}"
        )
        yield (*path, "context"), phase.context, reason


def _ramp(phase: Phase, recipe: Recipe, path: Segments) -> Iterator[Problem]:
    """A ramp fits into its phase, and a phase into the model's train steps."""
    span, ramp = span_tokens(phase.tokens, recipe, phase), span_tokens(phase.ramp, recipe, phase)
    if span is not None and ramp is not None and ramp > span:
        yield (*path, "ramp"), str(phase.ramp), f"longer than its phase of {phase.tokens}"
    step = step_tokens(recipe.training, recipe.model)
    # Which batch a phase has where it grows is known to the plan, which asks again.
    least = None if step is None else min(size for _, size in batch_sizes(recipe))
    if span is not None and least is not None and span < least:
        yield (*path, "tokens"), str(phase.tokens), f"shorter than one train step of {least:,} tokens"
    cut = [size for size in sizes_within(recipe, phase) if phase.context is not None and size % phase.context]
    for size in cut[:1]:
        yield (*path, "context"), phase.context, f"a train step of {size:,} tokens is not whole sequences of so many"


def domain_problems_of_list(patterns: Iterable[str], names: Names, path: Segments) -> Iterator[Problem]:
    """As `domain_problems`, for a list of patterns."""
    for place, pattern in enumerate(patterns):
        for where, value, reason in domain_problems((pattern,), names, path):
            yield (*where[:-1], place), value, reason


def _max_epochs(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Caps name domains, and each of them once."""
    caps, path = recipe.domains.max_epochs, ("domains", "max_epochs")
    yield from domain_problems(caps, names, path)
    if reason := _tie(caps, names.domains):
        yield path, caps, reason


def _ablation(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Bounds, objective, baselines, orders and runs of the study."""
    study = recipe.ablation
    if study is None:
        return
    yield from domain_problems(study.bounds, names, ("ablation", "bounds"))
    yield from _bounds(study.bounds)
    if study.objective is not None:
        path: Segments = ("ablation", "objective")
        if study.objective.kind == "shares":
            yield from shares_problem(study.objective.shares, path, "shares of the objective")
        for pattern in (*study.objective.shares, *study.objective.pareto):
            if pattern not in names.validate_only and not names_domain(names, pattern):
                hint = did_you_mean(pattern, [*names.domains, *names.validate_only], limit=20)
                yield (*path, pattern), pattern, f"names no domain and no validate_only source{hint}"
    yield from _unmeasured(recipe, study, names)
    yield from _confirmation(study)
    for place, baseline in enumerate(study.baselines):
        yield from weights_problems(baseline, names, ("ablation", "baselines", place))
        if baseline.kind == "ablation":
            yield ("ablation", "baselines", place), "ablation", "a baseline is what the ablation is compared with"
    for place, order in enumerate(study.orders):
        unknown = list(domain_problems_of_list(order.domains, names, ("ablation", "orders", place, "blocked")))
        yield from unknown
        left = unnamed(names.trained(), order.domains) if order.domains else []
        if left and not unknown:  # a misspelt name leaves out what it meant
            reason = f'natural weights in this order draw {", ".join(left)} too; name them, or "*" for the rest'
            yield ("ablation", "orders", place, "blocked"), list(order.domains), reason
    runs = study.runs
    if not any(
        (runs.dirichlet, runs.space_filling, runs.d_optimal, runs.sequential, runs.leave_one_out, runs.one_domain)
    ):
        yield ("ablation", "runs"), {}, "no run is asked for"
    step = step_tokens(study.proxy.training, study.proxy)
    if step is not None and study.tokens.number < step:
        yield ("ablation", "tokens"), str(study.tokens), f"shorter than one train step of the proxy ({step:,} tokens)"


def _unmeasured(recipe: Recipe, study: Ablation[Model], names: Names) -> Iterator[Problem]:
    """Trained domains have held-out text of a sequence at least where the objective counts them."""
    held_out, context = recipe.domains.held_out, study.proxy.context
    if held_out.share > 0 and held_out.tokens.number > context:
        return
    fix = f"raise domains.held_out (tokens: {held_out.tokens}, share: {held_out.share:g})"
    if study.objective is None or study.objective.kind == "worst":
        if not names.validate_only:
            told = None if study.objective is None else "worst"
            yield ("ablation", "objective"), told, f"no domain has held-out text of a sequence of {context:,}; {fix}"
        return
    for pattern in (*study.objective.shares, *study.objective.pareto):
        if names_domain(names, pattern) and not any(covers(pattern, name) for name in names.validate_only):
            reason = f"its held-out text is less than a sequence of {context:,} tokens, so nothing measures it; {fix}"
            yield ("ablation", "objective", pattern), pattern, reason


def _confirmation(study: Ablation[Model]) -> Iterator[Problem]:
    """A confirmation is as long as a train step at least, of whole sequences."""
    if study.confirm is None:
        return
    model, tokens = study.confirm.model, study.confirm.tokens
    yield from whole_sequences(model.training, model, ("ablation", "confirm", "model", "training", "batch"))
    step = step_tokens(model.training, model)
    if step is not None and tokens.number < step:
        yield (
            ("ablation", "confirm", "tokens"),
            str(tokens),
            f"shorter than one train step of its model ({step:,} tokens)",
        )


def _bounds(bounds: Mapping[str, tuple[float, float]]) -> Iterator[Problem]:
    """Bounds of sources that do not overlap leave room for a mixture."""
    names = [name for name in bounds if "*" not in name and "?" not in name]
    lows = math.fsum(bounds[name][0] for name in names)
    if lows > 1 + SUM_TOLERANCE:
        yield ("ablation", "bounds"), bounds, f"the least shares sum to {lows:g}, more than 1"
    if "*" in bounds and bounds["*"][1] < 1 and len(bounds) == 1:
        yield ("ablation", "bounds", "*"), bounds["*"], 'everything sums to 1, which "*" bounds lower'


def _batches(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Batches are whole sequences, of the target and of every proxy."""
    if recipe.training is not None and recipe.model is not None:
        yield from whole_sequences(recipe.training, recipe.model, ("training", "batch"))
    if recipe.ablation is not None:
        proxy = recipe.ablation.proxy
        yield from whole_sequences(proxy.training, proxy, ("ablation", "proxy", "training", "batch"))


def _saving(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """Checkpoints that stay are checkpoints that are made."""
    made, kept = recipe.checkpoints.every, recipe.checkpoints.keep.every
    if made.number == 0:
        yield ("checkpoints", "every"), str(made), "must be more than 0"
    elif kept is not None and kept.unit == made.unit and (kept.number == 0 or kept.number % made.number):
        nearest = max(1, round(kept.number / made.number)) * made.number
        reason = f"not a multiple of checkpoints.every ({made}); did you mean {Amount(nearest, made.unit)}?"
        yield ("checkpoints", "keep", "every"), str(kept), reason
    if recipe.evaluation.every.number == 0:
        yield ("evaluation", "every"), str(recipe.evaluation.every), "must be more than 0"


def _attention(recipe: Recipe, names: Names) -> Iterator[Problem]:
    """A kernel of attention takes the precision; whether the machine has it is asked where training is to run."""
    wanted = recipe.execution.training.attention
    for section in (recipe.training, recipe.finetuning):
        problem = None if section is None else attention_problem(wanted, "cuda", section.precision)
        if problem is not None:
            yield ("execution", "training", "attention"), wanted, problem
            return
