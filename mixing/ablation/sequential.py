"""Where the next runs teach most: expected improvement over the best run, from bootstraps of the surrogate.

A batch is picked one by one: each replicate then takes the picked mixture's value as known, so that the next pick looks
elsewhere (the improvement of a batch, maximised greedily). Shapes: M mixtures, D trained domains, R replicates.
"""

from __future__ import annotations

import numpy as np

from mixing.ablation.analysis import AnalysisOptions, make_portfolio, search_mixtures
from mixing.ablation.design import PlannedRun
from mixing.ablation.evidence import weights_of
from mixing.ablation.question import pose
from mixing.ablation.runs import RunsTable
from mixing.ablation.sampling import DUPLICATE_DISTANCE, rounded

KIND = "sequential"


def next_runs(table: RunsTable, options: AnalysisOptions, number: int) -> list[PlannedRun]:
    """Plan the next runs of a study from the runs there are.

    Args:
        table: finished runs; its sequential runs give the number that the next names start with.
        options: as for the analysis.
        number: of runs wanted; fewer come back where the region is too small for so many different mixtures.

    Raises:
        TableError, ObjectiveError, BoundsError: as `analysis.analyse`.
    """
    question = pose(table, options)
    search = search_mixtures(question, make_portfolio(question, options), options)
    candidates_MD, values_RM, taken_MD = search.candidates.mixtures, search.values, question.fitted.weights
    known_R = values_RM[:, _trained(candidates_MD, taken_MD)].min(1, initial=values_RM.max())
    first = sum(kind == KIND for kind in table.kinds)
    planned: list[PlannedRun] = []
    for index in range(first, first + number):
        far_M = _distance(candidates_MD, taken_MD) >= DUPLICATE_DISTANCE
        if not far_M.any():
            break
        gains_M = np.where(far_M, np.maximum(known_R[:, None] - values_RM, 0.0).mean(0), -1.0)
        if gains_M.max() <= 0:  # no replicate expects anything more: take what is expected to come next
            gains_M = np.where(far_M, -values_RM.mean(0), -np.inf)
        best = int(np.argmax(gains_M))
        weights_D = rounded(candidates_MD[best])
        planned.append(
            PlannedRun(f"sequential.{index:03}", KIND, weights_of(question.fitted.domains, weights_D), options.seed)
        )
        known_R = np.minimum(known_R, values_RM[:, best])
        taken_MD = np.concatenate([taken_MD, candidates_MD[best][None]])
    return planned


def _distance(mixtures_MD: np.ndarray, taken_ND: np.ndarray) -> np.ndarray:
    """Total variation of each mixture to the closest one taken, (M,)."""
    closest_M = np.full(len(mixtures_MD), np.inf)
    for taken_D in taken_ND:
        closest_M = np.minimum(closest_M, 0.5 * np.abs(mixtures_MD - taken_D).sum(1))
    return closest_M


def _trained(mixtures_MD: np.ndarray, taken_ND: np.ndarray) -> np.ndarray:
    """Rows of mixtures that were trained."""
    return np.flatnonzero(_distance(mixtures_MD, taken_ND) < 1e-6)
