"""What figures are drawn from: the tree of the loss matrix, and partial dependence."""

import numpy as np
import pytest

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.clusters import clustered
from mixing.ablation.dependence import _moved

# Two languages of two domains each; each domain is best on itself, and better on its own language.
LOSSES = np.array([[2.0, 5.0, 2.4, 5.5], [5.0, 2.0, 5.5, 2.6], [2.3, 5.6, 2.1, 5.0], [5.4, 2.5, 5.2, 2.2]])
NAMES = ("de_law", "zh_law", "de_wiki", "zh_wiki")
MATRIX = {a: {b: float(LOSSES[i, j]) for j, b in enumerate(NAMES)} for i, a in enumerate(NAMES)}


def test_clusters_join_languages_first_and_put_them_side_by_side():
    found = clustered(MATRIX)
    pairs = {frozenset(found["order"][:2]), frozenset(found["order"][2:])}
    assert pairs == {frozenset({"de_law", "de_wiki"}), frozenset({"zh_law", "zh_wiki"})}
    heights = [height for _, _, height in found["merges"]]
    law_wiki = (np.log(2.4 / 2.1) + np.log(2.3 / 2.0)) / 2
    assert heights[0] == pytest.approx(law_wiki)
    assert heights[2] > 4 * heights[1]


def test_clusters_put_a_domain_that_nothing_trains_on_beside_its_best_teacher():
    matrix = {name: {**row, "de_kids": 2.5 if name == "de_wiki" else 4.0} for name, row in MATRIX.items()}
    measured = clustered(matrix)["measured"]
    assert measured[measured.index("de_wiki") + 1] == "de_kids"
    assert len(measured) == 5


def test_clusters_of_two_domains_or_of_a_matrix_with_holes_are_none():
    assert clustered({"a": {"a": 1.0, "b": 2.0}, "b": {"a": 2.0, "b": 1.0}}) == {}
    assert clustered({**MATRIX, "de_law": {"de_law": 2.0}}) == {}


def test_moved_mixtures_keep_the_ratios_of_the_others():
    moved = _moved(np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), 0, 0.75)
    assert moved[0] == pytest.approx([0.75, 0.15, 0.1])
    assert moved[1] == pytest.approx([0.75, 0.125, 0.125])


def test_partial_dependence_follows_the_truth_within_its_band(make_table, natural, truth):
    options = AnalysisOptions(natural=natural, objective={}, bootstraps=60, surrogates=("exponential_sqrt",))
    table = make_table(dirichlet=30)
    found = analyse(table, options)["dependence"]
    assert set(found) == set(natural)
    inner = np.unique(np.round(table.weights[table.weights.max(1) < 0.9], 9), axis=0)
    names = sorted(natural)
    for name, curve in found.items():
        assert curve["weights"][0] == 0.0
        assert curve["weights"][-1] == pytest.approx(inner[:, names.index(name)].max(), abs=0.2)
        for _, said, low, high in zip(*curve.values(), strict=True):
            assert low <= said + 1e-3
            assert said - 1e-3 <= high
        # Far from zero weight the mean over mixtures is known to a fraction of a per cent.
        weight = curve["weights"][4]
        moved = _moved(inner, names.index(name), weight)
        true = np.mean([truth(dict(zip(names, row, strict=True))) for row in moved])
        assert curve["objective"][4] == pytest.approx(true, abs=0.02)
