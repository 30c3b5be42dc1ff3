"""Runs as a table: the finished rows of a swarm that is still going on, and tables that came from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.lineage import with_evidence
from mixing.ablation.read_runs import read_csv, read_two
from mixing.ablation.runs import RunsTable, table_of, write_csv
from mixing.domain_stage import Domain
from mixing.patterns import PatternError, resolve_weights
from mixing.weights import WeightError, read_weights
from recipes.ablation.earlier import earlier_runs
from recipes.ablation.mixtures import bounds_of, caps_of, domains_to_mix, natural_weights, supply_of, target_tokens
from recipes.ablation.standing import Standing, standing_of
from recipes.ablation.study import (
    BOOTSTRAPS,
    Prepared,
    analysis_options,
    objective_of,
    plan_design,
    prepare,
    proxy_options,
)
from recipes.ablation.swarm import plan_swarm, plan_thinned, rows_of
from recipes.errors import RunError
from recipes.show import text_is_made

if TYPE_CHECKING:
    from recipes.run import Run


def finished_rows(run: Run) -> tuple[Prepared, Standing, RunsTable]:
    """The rows of a swarm that are there now; nothing is trained, and a swarm that goes on is not disturbed.

    Raises:
        RunError: if no run is finished.
    """
    swarm = prepare(run)
    standing = standing_of(run, swarm)
    done = standing.finished
    if not done:
        raise RunError(f"{run.recipe.path}: none of its {standing.number} proxies is finished; `gristmill ablate`")
    proxies = plan_swarm(run, run.tokens, swarm.drawn, done, swarm.options)
    return swarm, standing, table_of(rows_of(proxies, done), {one.name: one.kind for one in done})


def progress(run: Run) -> Standing | None:
    """Where the recipe's swarm stands; None while its domains are not made. Makes nothing and fits nothing."""
    if run.recipe.ablation is None or run.recipe.tokenizer is None or not text_is_made(run):
        return None
    listed, options = domains_to_mix(run.tokens), proxy_options(run)
    earlier = earlier_runs(run, natural_weights(run, listed))
    drawn = plan_thinned(run, run.tokens, listed, options, target_tokens(run))
    swarm = Prepared(listed, drawn, plan_design(run, listed, earlier), options, earlier)
    return standing_of(run, swarm, places=False)


def write_rows(run: Run, path: Path) -> Standing:
    """Write the finished rows as CSV; returns where the swarm stands."""
    _, standing, table = finished_rows(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table, path)
    return standing


def analyse_finished(run: Run) -> dict[str, Any]:
    """The analysis of the runs that are there now, with a note of how many are missing. No weights are kept from it."""
    swarm, standing, table = finished_rows(run)
    options = analysis_options(run, swarm.listed)
    analysis = dict(analyse(with_evidence(table, swarm.earlier, options.natural), options))
    if standing.left.number:
        note = f"{standing.words('runs')}: this is what they say so far."
        analysis["notes"] = [note, *analysis["notes"]]
    return {**analysis, "finished": table.num_runs, "planned": standing.number}


def analyse_table(run: Run, path: Path, losses: Path | None = None, natural: Path | None = None) -> dict[str, Any]:
    """Fit somebody's table of runs (`runs.csv`) and choose weights; nothing is trained.

    Bounds and objective are the recipe's. Where the table's domains are all domains of the recipe, natural weights,
    supply and caps are theirs too; else natural weights are those of the table's natural runs, or even ones.

    Args:
        run: whose recipe asks.
        path: of the table, or of its weights alone.
        losses: of its losses, where they stand in a file of their own.
        natural: file of natural weights, as `weights: FILE` reads it; they stand for those of recipe and table.

    Raises:
        RunsError: for a table that cannot be read.
        RunError: for natural weights that are no weights of the table's domains.
    """
    table = read_csv(path) if losses is None else read_two(path, losses)
    study: Any = run.recipe.ablation
    listed = _known_domains(run, table)
    options = AnalysisOptions(
        natural=_natural_in(run, natural, table, listed),
        objective={} if study is None else objective_of(study, run),
        bounds=() if study is None else bounds_of(study),
        supply=supply_of(run, listed) or None,
        max_epochs=caps_of(run, [domain.name for domain in listed]) if listed else None,
        budget_tokens=target_tokens(run) if listed and study is not None else 0,
        surrogates=() if study is None else study.surrogates,
        bootstraps=BOOTSTRAPS,
        seed=run.recipe.seed,
        effective_tokens=study is not None and study.effective_tokens,
    )
    analysis = dict(analyse(table, options))
    if not listed:
        note = f"{_origin(natural, table)}; their supply is not known: no cap on repeats was set."
        analysis["notes"] = [*analysis["notes"], note]
    return analysis


def _natural_in(run: Run, path: Path | None, table: RunsTable, listed: list[Domain]) -> dict[str, float]:
    """Natural weights: of a file where there is one, else the recipe's, else the table's own."""
    if path is None:
        return natural_weights(run, listed) if listed else _natural_of(table)
    try:
        shares = {name: float(share) for name, share in read_weights(path).items()}
        supply = {n: float(t) for n, t in supply_of(run, listed).items()} or dict.fromkeys(table.domains, 1.0)
        return resolve_weights(shares, list(supply), supply)
    except (WeightError, PatternError) as error:
        raise RunError(f"--natural {path}: {error}") from error


def _origin(path: Path | None, table: RunsTable) -> str:
    """Where natural weights come from that are not the recipe's."""
    if path is not None:
        return f"Natural weights are those of {path.name}"
    if "natural" in table.kinds:
        return "Natural weights are those of the table's natural runs"
    return "The table has no run of kind `natural`: even weights stand for natural ones (`--natural FILE` names others)"


def _known_domains(run: Run, table: RunsTable) -> list[Domain]:
    """The recipe's domains where the table's are all among them, else none.

    Asked only where sources and domains share a name: curating text for somebody else's table would be in vain.
    """
    names = {name.partition("/")[0] for name in table.domains}
    if run.recipe.tokenizer is None or not names <= set(run.recipe.sources):
        return []
    listed = domains_to_mix(run.tokens)
    return listed if set(table.domains) <= {domain.name for domain in listed} else []


def _natural_of(table: RunsTable) -> dict[str, float]:
    """Weights of the table's natural runs, else even ones."""
    for kind, weights_D in zip(table.kinds, table.weights, strict=True):
        if kind == "natural":
            return {name: float(weight) for name, weight in zip(table.domains, weights_D, strict=True)}
    return dict.fromkeys(table.domains, 1.0 / len(table.domains))
