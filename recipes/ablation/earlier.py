"""Runs of earlier swarms as evidence: read, told of, and what new runs they leave to be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixing.ablation.design import PlannedRun
from mixing.ablation.lineage import Carried, Evidence, needed, read_evidence, words_of
from mixing.ablation.runs import RunsError
from mixing.domain_stage import read_domains
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.run import Run


def evidence_of(study: Any) -> tuple[Evidence, ...]:
    """Earlier swarms as plain values."""
    return tuple(
        Evidence(str(one.runs), tuple((old, tuple(new)) for old, new in sorted(one.became.items())))
        for one in study.evidence
    )


def earlier_runs(run: Run, natural: Mapping[str, float]) -> list[Carried]:
    """The recipe's earlier swarms in terms of its domains.

    Raises:
        RunError: for a table that cannot be read, or domains that are not there.
    """
    try:
        return read_evidence(evidence_of(run.recipe.ablation), natural)
    except RunsError as error:
        raise RunError(f"{run.recipe.path}: ablation.{error}") from error


def known_mixtures(found: Sequence[Carried]) -> tuple[dict[str, float], ...]:
    """Mixtures that earlier runs speak of: new ones that are placed go where they are not."""
    return tuple(
        dict(zip(one.table.domains, weights_D.tolist(), strict=True))
        for one in found
        for weights_D in one.table.weights
    )


def needed_words(
    run: Run, found: Sequence[Carried], natural: Mapping[str, float], planned: Sequence[PlannedRun]
) -> list[str]:
    """How many earlier runs still speak, of what, and whether the design has the new ones that are needed."""
    if not found:
        return []
    measured = [domain.name for domain in read_domains(run.tokens.domains_path) if domain.held_out_tokens]
    least = needed(found, natural, measured)
    new = len({tuple(sorted(one.weights.items())) for one in planned if one.kind not in ("natural", "order")})
    more = "" if new >= least else "; raise ablation.runs.d_optimal, whose runs go where the earlier ones did not"
    new_words = f"{least} new mixtures are needed beside them, the design has {new}{more}"
    return [*(words_of(one) for one in found), new_words]
