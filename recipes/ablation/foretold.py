"""What an ablation will cost before its text is made: its domains are then those that a sample of the text has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curation.amounts import Amount
from mixing.domain_stage import Domain
from mixing.patterns import covers
from recipes.ablation.ablate import costs_left
from recipes.ablation.confirm import CONFIRMING, num_runs
from recipes.ablation.halving import left_of_all
from recipes.ablation.mixtures import baselines_of
from recipes.ablation.one_pass import scale_of
from recipes.ablation.standing import with_placed
from recipes.ablation.study import plan_design, prepare
from recipes.ablation.study_cost import Study, study_costs
from recipes.ablation.swarm import SwarmSize, sized_options, untrained
from recipes.ablation.swarm_cost import Runs, SwarmCost
from recipes.pretraining.training_cost import vocabulary_of
from recipes.progress import Narrator
from recipes.show import text_is_made
from recipes.whole import parts_of
from training.swarm import SwarmOptions

if TYPE_CHECKING:
    from recipes.run import Run


def study_forecast(run: Run, tokens: Mapping[str, int] | None = None) -> list[SwarmCost] | None:
    """What each part of a recipe's ablation comes to; None for a recipe that asks for none.

    Args:
        run: the run. Where its text is made, what is finished of the study is not counted.
        tokens: else, tokens of each domain as a sample foretells them; without them nothing is known.
    """
    if "ablate" not in parts_of(run):
        return None
    if text_is_made(run):
        told, run.narrator = run.narrator, Narrator(silent=True)  # nothing is made: what is reused needs no words
        try:
            with untrained(run):
                return costs_left(run, prepare(run))
        finally:
            run.narrator = told
    return None if not tokens else _of_domains(run, simulated(run, tokens))


def simulated(run: Run, tokens: Mapping[str, int]) -> list[Domain]:
    """Domains of so many tokens, with what the recipe holds out of them."""
    wanted = run.recipe.domains
    found = []
    for name, number in sorted(tokens.items()):
        measured = any(covers(pattern, name) for pattern in wanted.validate_only)
        held = number if measured else min(wanted.held_out.tokens.number, int(wanted.held_out.share * number))
        trained = 0 if measured else number - held
        found.append(Domain(name, None if measured else "", "", trained, 0, 0, 0, held, 0))
    return found


def _of_domains(run: Run, measured: list[Domain]) -> list[SwarmCost]:
    """The cost of a study whose domains are simulated: of all its runs, for none can be there."""
    study: Any = run.recipe.ablation
    listed = [domain for domain in measured if domain.num_tokens]
    if not listed:
        return []
    runs, planned = study.runs, plan_design(run, listed, [])
    options = _options(run, study.proxy, study.tokens)
    factor = scale_of(listed, options.tokens)
    passes = [
        _options(run, study.proxy, Amount(int(domain.num_tokens * factor), "tokens"))
        for domain in listed
        for _ in range(runs.one_pass)
    ]
    passes = sorted((one for one in passes if one.tokens), key=lambda one: -one.tokens)
    confirmation = None
    if study.confirm is not None:
        confirming = num_runs(run, len(list(baselines_of(run, listed))))
        size = _options(run, study.confirm.model, study.confirm.tokens)
        confirmation = (size, Runs(confirming, CONFIRMING, measured=measured))
    left = with_placed(left_of_all(run, planned, options), runs.sequential, runs.optimum)
    proxies = (options, Runs(left.number, left=left, measured=measured))
    return study_costs(run, Study(proxies, (passes, range(len(passes))), confirmation), measured)


def _options(run: Run, model: Any, tokens: Any) -> SwarmOptions:
    """What runs of a size share, by the recipe's vocabulary; any token ends documents where attention stays inside."""
    study: Any = run.recipe.ablation
    size = SwarmSize(model, tokens, study.evaluate.number, study.threads)
    return sized_options(run, size, vocabulary_of(run.recipe), 0)
