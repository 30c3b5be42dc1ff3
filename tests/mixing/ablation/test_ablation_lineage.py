"""Evidence over domains that were split, merged, renamed, added or taken away, on a law whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.design import DesignOptions, design
from mixing.ablation.lineage import carried, needed, successors, with_evidence, words_of
from mixing.ablation.runs import RunsError, table_of

NATURAL = {"books": 0.1, "code": 0.05, "forum": 0.6, "law": 0.25}
ARMS = {"natural": 0, "one_domain": 1}


def new_losses(weights):
    """Losses of an old law in which `forum` was split: what counts of it is the sum of its parts, each measured."""
    roots = {"books": weights["books"], "forum": weights["forum/a"] + 0.2 * weights["forum/b"]}
    return {
        "books": 2 + np.exp(0.7 - 2 * np.sqrt(roots["books"])),
        "forum/a": 2 + np.exp(0.7 - 1.5 * np.sqrt(roots["forum"])),
        "forum/b": 2 + np.exp(0.7 - 1.5 * np.sqrt(weights["forum/b"] + 0.2 * weights["forum/a"])),
    }


def test_successors_follow_names_and_what_is_told():
    new = ("web/head", "web/tail", "law", "prose")
    found = successors(("web", "law", "books", "gone"), new, {"books": ["prose"]})
    assert found == {"web": ("web/head", "web/tail"), "law": ("law",), "books": ("prose",), "gone": ()}
    assert successors(("web/head", "web/tail"), ("web",), {}) == {"web/head": ("web",), "web/tail": ("web",)}
    with pytest.raises(RunsError, match="nowhere"):
        successors(("web",), new, {"web": ["nowhere"]})


def test_split_shares_the_weight_out_in_natural_proportion_and_knows_no_loss_of_parts(make_table):
    table = make_table(dirichlet=4)
    natural = {"books": 0.1, "code": 0.05, "law": 0.25, "forum/a": 0.45, "forum/b": 0.15}
    found = carried(table, natural, {})
    old, place = table.weights[:, table.domains.index("forum")], found.table.domains.index
    assert found.table.weights[:, place("forum/a")] == pytest.approx(0.75 * old)
    assert found.table.weights.sum(1) == pytest.approx(np.ones(table.num_runs))
    assert found.split == ("forum",)
    assert set(found.table.targets) == {"books", "code", "law"}


def test_merged_domains_add_up_and_so_do_losses_by_natural_proportion(make_table):
    table = make_table(dirichlet=4)
    found = carried(table, {"text": 0.7, "code": 0.05, "law": 0.25}, {"books": ["text"], "forum": ["text"]})
    of = table.domains.index
    text = found.table.weights[:, found.table.domains.index("text")]
    assert text == pytest.approx(table.weights[:, of("books")] + table.weights[:, of("forum")])
    expected = (0.1 * table.losses[:, table.targets.index("books")]
                + 0.6 * table.losses[:, table.targets.index("forum")]) / 0.7  # fmt: skip
    assert found.table.losses[:, found.table.targets.index("text")] == pytest.approx(expected)
    assert found.silent == ()


def test_runs_that_drew_a_removed_domain_are_silent_and_an_added_one_has_weight_zero(make_table):
    table = make_table(dirichlet=0, repeats=2)  # natural twice, each domain alone
    found = carried(table, {"books": 0.3, "code": 0.2, "forum": 0.4, "poems": 0.1}, {})
    assert set(found.silent) == {"natural.s0", "natural.s1", "one.law"}
    assert [name.removeprefix("earlier.") for name in found.table.names] == ["one.books", "one.code", "one.forum"]
    assert (found.table.weights[:, found.table.domains.index("poems")] == 0).all()
    assert (found.added, found.removed) == (("poems",), ("law",))
    assert "3 of 6 earlier runs still speak" in words_of(found)


def test_needed_runs_count_directions_that_no_earlier_run_moved(make_table):
    table = make_table(dirichlet=12)
    same = carried(table, NATURAL, {})
    assert needed([same], NATURAL, list(NATURAL)) == 0
    merged = {"text": 0.7, "code": 0.05, "law": 0.25}
    assert (
        needed([carried(table, merged, {"books": ["text"], "forum": ["text"]})], merged, ["text", "code", "law"]) == 0
    )
    split = {"books": 0.1, "code": 0.05, "law": 0.25, "forum/a": 0.45, "forum/b": 0.15}
    assert needed([carried(table, split, {})], split, ["books", "code", "law"]) == 2
    # A measured domain that no earlier run knows needs runs of its own.
    assert needed([carried(table, split, {})], split, list(split)) == 10
    assert needed([], NATURAL, list(NATURAL)) == 8


def test_runs_of_another_proxy_are_left_out_with_the_reason(make_table):
    table, other = make_table(dirichlet=6), make_table(lambda weights: dict.fromkeys(NATURAL, 5.0), dirichlet=6)
    joined = with_evidence(table, [carried(other, NATURAL, {})], NATURAL)
    assert joined.num_runs == table.num_runs
    assert "left out: at natural weights their losses differ by" in joined.notes[-1]


def flat(level=1.0):
    return lambda weights: dict.fromkeys(NATURAL, 3.0 * level)


def test_difference_between_swarms_is_no_gain_of_earlier_mixtures(make_table):
    table, lower = make_table(flat(), dirichlet=8), make_table(flat(0.97), dirichlet=8)
    options = AnalysisOptions(NATURAL, {}, bootstraps=20, surrogates=("ridge_sqrt",))
    joined = with_evidence(table, [carried(lower, NATURAL, {})], NATURAL)
    assert "their losses differed by 3." in joined.notes[-1]
    own, earlier = joined.losses[: table.num_runs].mean(), joined.losses[table.num_runs :].mean()
    assert earlier == pytest.approx(own, rel=0.002)
    found = analyse(joined, options)
    assert found["reason"] == "natural"
    assert found["objective_noise"] == analyse(table, options)["objective_noise"]


def test_earlier_run_is_never_the_best_run_that_is_chosen(make_table):
    # Nothing levels these: no earlier run is at natural weights.
    lower = make_table(flat(0.9), dirichlet=8)
    lower = lower.rows(np.array([kind == "dirichlet" for kind in lower.kinds]))
    table = make_table(flat(), dirichlet=8)
    joined = with_evidence(table, [carried(lower, NATURAL, {})], NATURAL)
    options = AnalysisOptions(NATURAL, {}, bootstraps=20, surrogates=("constant",))
    assert analyse(joined, options)["reason"] == "natural"


def test_other_orders_of_an_earlier_swarm_say_nothing_of_weights(make_table):
    numbers = {"dirichlet": 6, "orders": (("blocked", ("books",), "first"),)}
    table = make_table(**numbers)
    worse = np.array([1.15 if kind == "order" else 1.0 for kind in table.kinds])
    assert (worse > 1).sum() == 3
    earlier = carried(replace(table, losses=table.losses * worse[:, None]), NATURAL, {})
    assert not [name for name in earlier.table.names if "order" in name]
    joined = with_evidence(table, [earlier], NATURAL)
    assert joined.num_runs == 2 * table.num_runs - 3


def _rows(runs):
    rows = []
    for run in runs:
        noise = 0.002 * np.random.default_rng(list(run.name.encode())).standard_normal(3)
        losses = {name: loss + more for (name, loss), more in zip(new_losses(run.weights).items(), noise, strict=True)}
        measured = [{"step": 1, "tokens": 9, "losses": losses, "bits_per_byte": {}}]
        rows.append({"name": run.name, "weights": run.weights, "seed": run.seed, "held_out": measured})
    return rows


def test_earlier_runs_of_the_whole_sharpen_a_study_of_its_parts():
    natural = {"books": 0.25, "forum/a": 0.5, "forum/b": 0.25}
    before = design(["books", "forum"], {"books": 0.25, "forum": 0.75}, DesignOptions(one_domain=0, dirichlet=16))
    parts = [{"books": one.weights["books"], "forum/a": one.weights["forum"] * 2 / 3,
              "forum/b": one.weights["forum"] / 3} for one in before]  # fmt: skip
    old_rows = []
    for one, weights in zip(before, parts, strict=True):
        losses = {"books": new_losses(weights)["books"], "forum": 3.0}
        measured = [{"step": 1, "tokens": 9, "losses": losses, "bits_per_byte": {}}]
        old_rows.append({"name": one.name, "weights": one.weights, "seed": one.seed, "held_out": measured})
    earlier = carried(table_of(old_rows, {one.name: one.kind for one in before}), natural, {})
    runs = design(sorted(natural), natural, DesignOptions(one_domain=0, dirichlet=0, d_optimal=6, repeats=2))
    table = table_of(_rows(runs), {one.name: one.kind for one in runs})
    options = AnalysisOptions(
        natural=natural, objective={"books": 1.0}, bootstraps=40, surrogates=("exponential_sqrt",)
    )
    joined = with_evidence(table, [earlier], natural)
    alone, together = analyse(table, options), analyse(joined, options)
    assert together["more_runs"]["curve"][-1][1] < alone["nested"]["objective_error"]
    assert any("earlier runs still speak" in note for note in together["notes"])
    assert {run["kind"] for run in together["runs"]} == {"natural", "d_optimal", "earlier"}


def test_d_optimal_runs_complement_what_earlier_runs_know():
    natural = {"books": 0.25, "forum/a": 0.5, "forum/b": 0.25}
    # Earlier runs moved books against the forum as a whole; new ones should move its parts against each other.
    known = tuple({"books": w, "forum/a": (1 - w) * 2 / 3, "forum/b": (1 - w) / 3} for w in np.linspace(0.02, 0.98, 24))

    def off_natural(seen):
        options = DesignOptions(one_domain=0, d_optimal=4, repeats=1, known=seen)
        runs = [one.weights for one in design(sorted(natural), natural, options) if one.kind == "d_optimal"]
        inside = [one["forum/a"] / (one["forum/a"] + one["forum/b"] + 1e-9) for one in runs]
        return np.abs(np.array(inside) - 2 / 3).mean()

    assert off_natural(known) >= off_natural(()) - 1e-9
    assert off_natural(known) > 0.2


def test_d_optimal_runs_are_never_copies_of_each_other_or_of_known_ones():
    known = tuple({"a": w, "b": 1 - w} for w in np.linspace(0, 1, 9))
    runs = design(["a", "b"], {"a": 0.5, "b": 0.5}, DesignOptions(one_domain=0, d_optimal=8, repeats=1, known=known))
    weights = np.array([[one.weights["a"], one.weights["b"]] for one in runs if one.kind == "d_optimal"])
    taken = np.array([[one["a"], one["b"]] for one in known])
    assert len(weights) == 8
    for place, own in enumerate(weights):
        others = np.vstack([np.delete(weights, place, axis=0), taken])
        assert (0.5 * np.abs(others - own).sum(1)).min() > 0.0199
