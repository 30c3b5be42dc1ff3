"""What can be said of a schedule before its ablation has run: natural weights stand where chosen ones will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mixing.domain_stage import Domain, read_domains
from recipes.ablation.mixtures import supply_of
from recipes.errors import RunError
from recipes.tokenizing.tokens import plan_options

if TYPE_CHECKING:
    from mixing.plan_record import Plan
    from recipes.run import Run


def provisional_plan(run: Run, domains: Sequence[Domain] | None = None) -> Plan:
    """The plan of a schedule with natural weights in place of those that an ablation has not chosen; kept nowhere.

    Args:
        run: the run; without `domains` its tokens are made.
        domains: simulated ones instead.

    Raises:
        RunError: for sizes, patterns, weights or budgets that make no plan.
    """
    from mixing.plan_stage import plan_of

    listed = list(read_domains(run.tokens.domains_path) if domains is None else domains)
    tokens = supply_of(run, [domain for domain in listed if domain.training is not None and domain.num_tokens])
    total = sum(tokens.values())
    natural = {name: number / total for name, number in tokens.items()} if run.recipe.open_phases() else None
    try:
        plan: Plan = plan_of(listed, plan_options(run, natural))
    except ValueError as error:  # each says what to mend
        raise RunError(f"{run.recipe.path}: {error}") from error
    return plan
