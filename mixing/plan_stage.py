"""The plan as a stage: a recipe's schedule as plain values, over the domains that were selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.stage import Counts, Output
from mixing.domain_stage import Domain, TokenInputs, read_domains
from mixing.patterns import resolve_weights


@dataclass(frozen=True)
class PhaseOptions:
    """A phase as the recipe writes it, amounts as (number, unit).

    `weights` is (kind, power, shares): natural (to a power), unimax, or shares of patterns; shares that come from a
    file or an ablation are shares by the time they stand here.
    """

    name: str
    span: tuple[int, str]
    ramp: tuple[int, str]
    weights: tuple[str, float, tuple[tuple[str, float], ...]]
    order: tuple[str, tuple[str, ...], str]
    context: int


@dataclass(frozen=True)
class PlanOptions:
    """What a plan depends on beside the domains. `batch` is lines of (from tokens, tokens a train step)."""

    phases: tuple[PhaseOptions, ...]
    batch: tuple[tuple[int, int], ...]
    seed: int
    max_epochs: tuple[tuple[str, float], ...]
    shortage: str
    stretch_tokens: int = 0


def make_plan_file(inputs: TokenInputs, options: PlanOptions, output: Output) -> Counts:
    """Make the plan of a run from its domains and write it as JSON."""
    plan = plan_of(read_domains(inputs.artifact("domains")), options)
    output.path(".plan.json").write_text(plan.to_json(), encoding="utf-8")
    return {"steps": plan.num_steps, "tokens": plan.num_tokens, "plan": plan.id, "warnings": "\n".join(plan.warnings)}


def plan_of(domains: Sequence[Domain], options: PlanOptions) -> Any:
    """The plan of a schedule over domains: `mixing.plan.Plan`.

    Raises:
        PatternError, WeightError, BudgetError, ScheduleError: see `mixing.plan.make_plan`.
    """
    from mixing.patterns import values_of
    from mixing.plan import DomainSupply, make_plan
    from mixing.schedule import BatchLine
    from mixing.unimax_phases import with_unimax

    trained = [d for d in domains if d.training is not None]
    supplies = [
        DomainSupply(d.name, d.num_tokens, d.num_documents, d.size_bytes, d.num_characters, _packed(d)) for d in trained
    ]
    names = [domain.name for domain in trained]
    caps = {name: float("inf") for name in names} | values_of(dict(options.max_epochs), names)
    batch = [BatchLine(start, tokens) for start, tokens in options.batch]
    phases = [_phase(phase, _drawable(supplies, phase.context)) for phase in options.phases]
    asking = [place for place, phase in enumerate(options.phases) if phase.weights[0] == "unimax"]
    phases = with_unimax(supplies, phases, asking, batch, caps)
    return make_plan(
        supplies, phases, batch, seed=options.seed, max_epochs=caps, shortage=options.shortage,
        stretch_tokens=options.stretch_tokens,
    )  # fmt: skip


def _drawable(supplies: Sequence[Any], context: int) -> dict[str, int]:
    """Tokens of a pass of each domain, 0 without a sequence: natural weights and patterns leave such a domain out."""
    return {d.name: d.tokens_of_pass(context) if d.num_sequences(context) else 0 for d in supplies}


def _packed(domain: Domain) -> tuple[tuple[int, int], ...]:
    """Sequences of each context that the domain was packed for."""
    return tuple((packed.context, packed.num_sequences) for packed in domain.packed)


def _phase(phase: PhaseOptions, supply: Mapping[str, int]) -> Any:
    """A phase with its weights; those of unimax, which depend on all phases, are still to come."""
    from mixing.patterns import winners
    from mixing.schedule import Amount, Blocked, BySignal, Phase, Uniform
    from mixing.weights import natural

    kind, power, shares = phase.weights
    if kind == "natural":
        weights: Mapping[str, Any] = natural(supply, power)
    elif kind == "unimax":
        weights = {}
    else:
        named = winners(dict(shares), list(supply))
        # A domain that curation left nothing of needs no weight; one that is given a weight is refused by the plan.
        nothing = {name: 0.0 for name, tokens in supply.items() if not tokens and named[name] is None}
        tokens_of = {name: float(tokens) for name, tokens in supply.items()}
        weights = resolve_weights({**dict(shares), **nothing}, list(supply), tokens_of)
    order_kind, patterns, direction = phase.order
    order: Any = Uniform()
    if order_kind == "blocked":
        won = winners(patterns, list(supply))  # "*" is the rest, as everywhere
        order = Blocked(tuple(tuple(name for name in supply if won[name] == pattern) for pattern in patterns))
    elif order_kind == "by":
        order = BySignal(patterns[0], direction == "desc")
    span, ramp = Amount(*phase.span), Amount(*phase.ramp)  # type: ignore[arg-type]
    return Phase(phase.name, span, weights, phase.context, ramp, order)
