import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import norm, t

from mixing.scaling.laws import fit, law_of, objective, terms_of
from mixing.scaling.study import Target, analyse, envelope, optimal_split, predict, study
from mixing.scaling.table import ScalingError, make_table, read_table, write_table

# Besiroglu et al. 2024 (arXiv:2404.10102): the corrected fit of Chinchilla's own runs.
PUBLISHED = {"log_E": np.log(1.8172), "log_A": np.log(477.8), "alpha": 0.3473, "log_B": np.log(2143.4), "beta": 0.3672}


def columns_of(sizes, per_parameter):
    """Every size at every number of tokens a parameter."""
    parameters = np.repeat(np.array(sizes, float), len(per_parameter))
    tokens = parameters * np.tile(per_parameter, len(sizes))
    weights = np.zeros((len(tokens), 0))
    return {"parameters": parameters, "tokens": tokens, "flops": 6 * parameters * tokens, "weights": weights}


SIZES = (1e7, 3e7, 1e8, 2e8, 5e8)


def losses_at(columns, law=PUBLISHED):
    a, b = np.exp(law["log_A"]), np.exp(law["log_B"])
    return np.exp(law["log_E"]) + a / columns["parameters"] ** law["alpha"] + b / columns["tokens"] ** law["beta"]


def test_chinchilla_recovers_the_published_coefficients():
    columns = columns_of(SIZES, (5, 20, 80))
    fitted = fit(law_of("chinchilla"), columns, losses_at(columns))
    found = fitted.values()
    assert {name: found[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, rel=1e-6)
    assert fitted.agreeing() > 0.9


def test_chinchilla_early_stop_of_the_published_fit_is_no_end():
    """Hoffmann's own coefficients are far from the floor of the sum of losses."""
    columns = columns_of(SIZES, (5, 20, 80))
    terms, logs = terms_of(law_of("chinchilla"), columns), np.log(losses_at(columns))
    early = np.array([np.log(1.69), np.log(406.4), 0.34, np.log(410.7), 0.28])
    value, slope = objective(early, terms, logs, np.ones(15), np.zeros(5))
    assert value > 1e-4
    assert np.abs(slope).max() > 1e-4


def test_objective_gradient_is_that_of_differences():
    chance = np.random.default_rng(0)
    columns = columns_of(SIZES, (5, 20)) | {"weights": chance.dirichlet(np.ones(3), 10)}
    law = law_of("chinchilla_mixture", ("a", "b", "c"))
    problem = (terms_of(law, columns), np.log(losses_at(columns)), chance.random(10), np.full(9, 1e-3))
    theta = np.array([0.5, 6, 0.34, 7.5, 0.36, -2, -0.5, -0.1, 0.3])
    differences = approx_fprime(theta, lambda at: objective(at, *problem)[0], 1e-7)
    np.testing.assert_allclose(objective(theta, *problem)[1], differences, rtol=2e-4, atol=1e-7)


def test_power_laws_recover_what_made_them():
    columns = columns_of(SIZES, (20,))
    plain = fit(law_of("power"), columns, np.exp(3.0 - 0.05 * np.log(columns["flops"])))
    assert plain.theta == pytest.approx([3.0, 0.05], rel=1e-5)
    floor = fit(law_of("power_floor"), columns, 1.7 + np.exp(6.0 - 0.15 * np.log(columns["flops"])))
    assert floor.values()["E"] == pytest.approx(1.7, rel=1e-5)
    assert floor.values()["gamma"] == pytest.approx(0.15, rel=1e-5)


def test_mixture_law_orders_mixtures_it_has_not_seen():
    chance = np.random.default_rng(2)
    columns = columns_of(SIZES, (5, 20, 80, 5, 20, 80)) | {"weights": chance.dirichlet(np.ones(3), 30)}
    slopes = np.array([-2.0, -0.5, 0.0])
    losses = losses_at(columns) + np.exp(-0.2 + np.sqrt(columns["weights"]) @ slopes)
    law = law_of("chinchilla_mixture", ("a", "b", "c"))
    fitted = fit(law, {k: v[:24] for k, v in columns.items()}, losses[:24])
    new = {k: v[24:] for k, v in columns.items()}
    predicted = np.exp(np.logaddexp.reduce(terms_of(law, new) @ fitted.theta, axis=1))
    np.testing.assert_allclose(predicted, losses[24:], rtol=0.02)
    assert (np.argsort(predicted) == np.argsort(losses[24:])).all()


def test_optimal_split_is_the_least_loss_of_a_scan():
    flops = 1e20
    size, tokens, loss = optimal_split(PUBLISHED | {"E": 1.8172}, flops)
    scanned = np.geomspace(1e7, 1e11, 20001)
    columns = {"parameters": scanned, "tokens": flops / 6 / scanned}
    least = losses_at(columns)
    assert loss == pytest.approx(least.min(), rel=1e-7)
    assert size == pytest.approx(scanned[np.argmin(least)], rel=1e-3)
    assert 6 * size * tokens == pytest.approx(flops)


def made_table(noise=0.002, per_parameter=(5, 20, 80)):
    columns = columns_of(SIZES, per_parameter)
    chance = np.random.default_rng(1)
    losses = losses_at(columns) * np.exp(noise * chance.standard_normal(len(columns["tokens"])))
    return make_table([f"r{i}" for i in range(len(losses))], columns, losses)


def test_study_foretells_the_largest_size_and_holds_the_truth():
    target = Target(1.3e9, 26e9, 6 * 1.3e9 * 26e9)
    found = analyse(made_table(), target, bootstraps=40)
    assert set(found["laws"]) == {"power", "power_floor", "chinchilla"}
    law = found["laws"]["chinchilla"]
    assert abs(law["held_out"]["error"]) < 0.02
    assert law["held_out"]["parameters"] == 5e8
    for name in ("alpha", "beta", "E"):
        truth = np.exp(PUBLISHED["log_E"]) if name == "E" else PUBLISHED[name]
        low, high = law["intervals"][name]
        assert low - 0.02 < truth < high + 0.02
    wanted = float(losses_at({"parameters": np.array([1.3e9]), "tokens": np.array([26e9])})[0])
    assert law["target"]["loss"] == pytest.approx(wanted, rel=0.01)
    assert [row["is_target"] for row in found["optimal"]].count(True) == 1
    # The power law without a floor cannot foretell what flattens.
    assert abs(found["laws"]["power"]["held_out"]["error"]) > abs(law["held_out"]["error"])


def test_intervals_of_few_runs_are_as_wide_as_what_is_left_over_allows():
    table = made_table()
    studied = study(law_of("chinchilla"), table, 30, 0)
    num_runs, spare = table.num_runs, table.num_runs - 5
    assert studied.stretch == pytest.approx(np.sqrt(num_runs / spare) * t.ppf(0.975, spare) / norm.ppf(0.975))
    beta = studied.fitted.law.parameters.index("beta")
    value, drawn = studied.fitted.theta[beta], studied.thetas[:, beta]
    low, high = studied.interval(value, drawn)
    narrow = np.percentile(drawn, [2.5, 97.5])
    assert (value - low) / (value - narrow[0]) == pytest.approx(studied.stretch)
    assert (high - value) / (narrow[1] - value) == pytest.approx(studied.stretch)


def test_law_of_as_many_parameters_as_runs_has_no_interval():
    columns = {name: values[:5] for name, values in columns_of((1e7, 1e8, 1e9), (5, 20)).items()}
    studied = study(law_of("chinchilla"), make_table(list("abcde"), columns, losses_at(columns)), 5, 0)
    assert studied.stretch is None
    losses, low, high = predict(studied, columns)
    assert np.isfinite(losses).all()
    assert np.isnan([low, high]).all()


def test_study_on_one_ray_says_that_size_and_tokens_cannot_be_told_apart():
    found = analyse(made_table(per_parameter=(20,)), bootstraps=5)
    assert "chinchilla" not in found["laws"]
    assert any("tokens_per_parameter" in note for note in found["notes"])
    assert found["optimal"] == []


def test_envelope_leaves_out_runs_that_cheaper_ones_beat():
    columns = columns_of((1e7, 1e8, 1e9), (20,))
    extra = {name: np.concatenate([values, values[2:] * 2]) for name, values in columns.items()}
    table = make_table(list("abcd"), extra, np.array([4.0, 3.0, 2.0, 2.5]))
    assert [table.names[row] for row in envelope(table)] == ["a", "b", "c"]


def test_table_of_sizes_reads_back_and_takes_other_names(tmp_path):
    table = made_table()
    write_table(table, tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv")
    np.testing.assert_array_equal(again.losses, table.losses)
    np.testing.assert_array_equal(again.flops, table.flops)
    rows = ["Model Size,Training Tokens,loss"] + [f"{10**k}e6,{20 * 10**k}e6,{4 - 0.3 * k}" for k in range(4)]
    (tmp_path / "other.csv").write_text("\n".join([*rows, "1e9,,3.0"]))
    other = read_table(tmp_path / "other.csv")
    assert other.num_runs == 4
    assert other.flops[0] == pytest.approx(6 * 1e6 * 20e6)
    assert "1 runs without size" in other.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "num_parameters, num_tokens and loss"),
        ("num_parameters,num_tokens,loss\n1e6,x,3\n", "t.csv:2: num_tokens is 'x'"),
        ("num_parameters,num_tokens,loss\n1e6,1e7,3\n", "needs at least 4"),
        ("num_parameters,num_tokens,loss\n" + "1e6,1e7,-3\n" * 5, "0 runs with size"),
    ],
)
def test_bad_table_of_sizes_says_where(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ScalingError, match=said):
        read_table(tmp_path / "t.csv")
