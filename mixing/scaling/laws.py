"""Laws of the loss as sums of exponentials of something linear, fitted together by one routine.

    power               L = exp(c - γ ln C)                                    Kaplan et al. 2020, arXiv:2001.08361
    power_floor         L = E + exp(c - γ ln C)                                the same above a floor
    chinchilla          L = E + A / N^α + B / D^β                              Hoffmann et al. 2022, arXiv:2203.15556
    chinchilla_mixture  L = E + A / N^α + B / D^β + exp(m + Σ t_j √w_j)        with a term for the mixture

Each is log L = logsumexp_k(G_k θ), so value and gradient are short. The objective is the *sum* of Huber's loss on
log L. With a mean, a minimiser's default tolerance stops on the flat floor of the valley: the coefficients published
with Chinchilla are such an early stop (Besiroglu et al. 2024, arXiv:2404.10102).
Shapes: N runs, K terms, P parameters, S starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

HUBER = 1e-3  # of log loss, as in Hoffmann et al.
SAME = 1e-6  # relative difference of objectives below which two starts ended in the same place
MOST_STEPS, STILL = 400, 1e-11  # steps of a start; relative fall of the objective that counts as none
MIXTURE_RIDGE = 1e-5  # on slopes of the mixture, so that domains that moved together have one answer


@dataclass(frozen=True)
class Law:
    """A law: which of its parameters each term adds up.

    Attributes:
        name: as users write it.
        parameters: names of θ.
        needs: columns of the table that must vary.
    """

    name: str
    parameters: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """A law fitted to runs.

    Attributes:
        theta: parameters (P,), in the law's order.
        objective: sum of Huber's loss.
        restarts: objectives that the starts ended at (S,), sorted.
    """

    law: Law
    theta: np.ndarray
    objective: float
    restarts: np.ndarray

    def values(self) -> dict[str, float]:
        """Parameters by name; those inside an exponential also as the constant they stand for."""
        values = dict(zip(self.law.parameters, self.theta.tolist(), strict=True))
        names = {"log_E": "E", "log_A": "A", "log_B": "B"}
        return values | {
            names[name]: float(np.exp(min(value, 700.0))) for name, value in values.items() if name in names
        }

    def agreeing(self) -> float:
        """Share of the starts that ended at the best objective."""
        return float((self.restarts <= self.restarts[0] * (1 + SAME) + 1e-15).mean())


def law_of(name: str, domains: Sequence[str] = ()) -> Law:
    """A law by name; the mixture's has a slope for each domain."""
    laws = {
        "power": Law("power", ("log_C", "gamma"), ("flops",)),
        "power_floor": Law("power_floor", ("log_E", "log_C", "gamma"), ("flops",)),
        "chinchilla": Law("chinchilla", ("log_E", "log_A", "alpha", "log_B", "beta"), ("parameters", "tokens")),
        "chinchilla_mixture": Law(
            "chinchilla_mixture",
            ("log_E", "log_A", "alpha", "log_B", "beta", "level", *(f"t:{name}" for name in domains)),
            ("parameters", "tokens", "weights"),
        ),
    }
    return laws[name]


def terms_of(law: Law, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """G (N, K, P): each term's exponent is G_k θ.

    Args:
        law: whose terms.
        columns: parameters, tokens, flops (N,) and weights (N, D).
    """
    one_N = np.ones(len(columns["tokens"]))
    logs = {name: np.log(columns[name]) for name in ("parameters", "tokens", "flops")}
    terms = []
    if "log_E" in law.parameters:
        terms.append({"log_E": one_N})
    if law.name.startswith("power"):
        terms.append({"log_C": one_N, "gamma": -logs["flops"]})
    else:
        terms.append({"log_A": one_N, "alpha": -logs["parameters"]})
        terms.append({"log_B": one_N, "beta": -logs["tokens"]})
    if law.name == "chinchilla_mixture":
        slopes = [name for name in law.parameters if name.startswith("t:")]
        terms.append({"level": one_N, **dict(zip(slopes, np.sqrt(columns["weights"]).T, strict=True))})
    made = np.zeros((len(one_N), len(terms), len(law.parameters)))
    for place, term in enumerate(terms):
        for name, values_N in term.items():
            made[:, place, law.parameters.index(name)] = values_N
    return made


def log_loss(theta_P: np.ndarray, terms_NKP: np.ndarray) -> np.ndarray:
    """Log of the predicted loss (N,)."""
    logs: np.ndarray = np.logaddexp.reduce(terms_NKP @ theta_P, axis=1)
    return logs


def objective(
    theta_P: np.ndarray, terms_NKP: np.ndarray, logs_N: np.ndarray, counts_N: np.ndarray, ridge_P: np.ndarray
) -> tuple[float, np.ndarray]:
    """Sum over runs of Huber's loss on log L, and its gradient (P,).

    Args:
        theta_P: parameters.
        terms_NKP: of `terms_of`.
        logs_N: log of the observed losses.
        counts_N: how often each run counts.
        ridge_P: squared penalty on each parameter.
    """
    exponents_NK = terms_NKP @ theta_P
    most_N = exponents_NK.max(1)
    parts_NK = np.exp(exponents_NK - most_N[:, None])
    sums_N = parts_NK.sum(1)
    predicted_N = most_N + np.log(sums_N)
    errors_N = predicted_N - logs_N
    small_N = np.abs(errors_N) <= HUBER
    losses_N = np.where(small_N, 0.5 * errors_N**2, HUBER * (np.abs(errors_N) - 0.5 * HUBER))
    slopes_N = counts_N * np.clip(errors_N, -HUBER, HUBER)
    shares_NK = slopes_N[:, None] * (parts_NK / sums_N[:, None])
    gradient_P = shares_NK.ravel() @ terms_NKP.reshape(-1, terms_NKP.shape[2])
    value = float(counts_N @ losses_N + ridge_P @ theta_P**2)
    return value, gradient_P + 2 * ridge_P * theta_P


def fit(
    law: Law,
    columns: Mapping[str, np.ndarray],
    losses_N: np.ndarray,
    counts_N: np.ndarray | None = None,
    starts_SP: np.ndarray | None = None,
) -> Fitted:
    """Fit a law from many starts and keep the best end.

    Args:
        law: what is fitted.
        columns: of the runs.
        losses_N: observed, positive.
        counts_N: how often each run counts (a bootstrap's); once each without.
        starts_SP: where to begin; a grid of exponents, with the rest by least squares, without.
    """
    # About the mean logarithms coefficient and exponent hardly pull on each other: a tenth of the steps.
    about_PP = _about_means(law, columns)
    terms_NKP, logs_N = terms_of(law, columns) @ about_PP, np.log(losses_N)
    counts_N = np.ones(len(losses_N)) if counts_N is None else counts_N
    starts_SP = _starts(law, columns, losses_N) if starts_SP is None else starts_SP
    ridge_P = np.array([MIXTURE_RIDGE if name.startswith("t:") else 0.0 for name in law.parameters])
    begins_SP = np.linalg.solve(about_PP, starts_SP.T).T
    ends = [_descend(start_P, terms_NKP, logs_N, counts_N, ridge_P) for start_P in begins_SP]
    ends.sort(key=lambda end: end[0])
    best, theta_P = ends[0]
    if len(ends) > 1:  # a bootstrap's single start lies in the valley already
        best, theta_P = _polish(theta_P, terms_NKP, logs_N, counts_N, ridge_P)
    return Fitted(law, about_PP @ theta_P, best, np.array([best, *(value for value, _ in ends[1:])]))


def _about_means(law: Law, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Matrix (P, P) from coefficients at the mean logarithm of size, tokens or operations to the law's own."""
    about_PP = np.eye(len(law.parameters))
    for level, slope, name in (
        ("log_A", "alpha", "parameters"),
        ("log_B", "beta", "tokens"),
        ("log_C", "gamma", "flops"),
    ):
        if level in law.parameters:
            place = law.parameters.index(level), law.parameters.index(slope)
            about_PP[place] = np.log(columns[name]).mean()
    return about_PP


def _descend(
    theta_P: np.ndarray, terms_NKP: np.ndarray, logs_N: np.ndarray, counts_N: np.ndarray, ridge_P: np.ndarray
) -> tuple[float, np.ndarray]:
    """Levenberg and Marquardt's steps with Huber's weights, until hundreds of them or none lower the objective."""
    problem = (terms_NKP, logs_N, counts_N, ridge_P)
    value, gradient_P = objective(theta_P, *problem)
    damping, still = 1e-3, 0
    for _ in range(MOST_STEPS):
        hessian_PP = _curvature(theta_P, *problem)
        scale_P = np.maximum(np.diag(hessian_PP), 1e-12)
        moved_P = theta_P - np.linalg.solve(hessian_PP + damping * np.diag(scale_P), gradient_P)
        new, new_gradient_P = objective(moved_P, *problem)
        if not new < value:
            damping *= 4
            if damping > 1e10:
                break
            continue
        still = still + 1 if value - new < STILL * value else 0
        theta_P, value, gradient_P, damping = moved_P, new, new_gradient_P, max(damping / 3, 1e-12)
        if still == 5:
            break
    return value, theta_P


def _curvature(
    theta_P: np.ndarray, terms_NKP: np.ndarray, logs_N: np.ndarray, counts_N: np.ndarray, ridge_P: np.ndarray
) -> np.ndarray:
    """Gauss and Newton's matrix (P, P), far runs weighing less as in Huber's loss."""
    exponents_NK = terms_NKP @ theta_P
    predicted_N = np.logaddexp.reduce(exponents_NK, axis=1)
    jacobian_NP = np.einsum("nk,nkp->np", np.exp(exponents_NK - predicted_N[:, None]), terms_NKP)
    weights_N = counts_N * np.minimum(1.0, HUBER / np.maximum(np.abs(predicted_N - logs_N), 1e-300))
    curvature_PP: np.ndarray = (jacobian_NP * weights_N[:, None]).T @ jacobian_NP + 2 * np.diag(ridge_P)
    return curvature_PP


def _polish(theta_P: np.ndarray, *problem: np.ndarray) -> tuple[float, np.ndarray]:
    """BFGS from the best end: its full inverse Hessian follows the valley to the floor."""
    from scipy.optimize import minimize

    before = objective(theta_P, *problem)[0]
    found = minimize(objective, theta_P, problem, "BFGS", jac=True, options={"gtol": 1e-10, "maxiter": 3000})
    return (float(found.fun), found.x) if found.fun <= before else (before, theta_P)


def _starts(law: Law, columns: Mapping[str, np.ndarray], losses_N: np.ndarray) -> np.ndarray:
    """Starts (S, P): for each pair of exponents on a grid the coefficients that least squares gives, not negative.

    For fixed exponents a law is linear in E, A and B, so a start is never far from a valley.
    """
    from scipy.optimize import nnls

    exponents = (0.1, 0.2, 0.3, 0.4, 0.55, 0.75)
    grid = [(a,) for a in (0.02, 0.05, *exponents)] if law.name.startswith("power") else [
        (a, b) for a in exponents for b in exponents
    ]  # fmt: skip
    names = ("flops",) if law.name.startswith("power") else ("parameters", "tokens")
    starts = []
    for powers in grid:
        scales = [np.log(columns[name]).mean() for name in names]
        parts = [np.exp(-p * (np.log(columns[n]) - s)) for p, n, s in zip(powers, names, scales, strict=True)]
        floor = [np.ones(len(losses_N))] if "log_E" in law.parameters else []
        found, _ = nnls(np.stack([*floor, *parts], axis=1), losses_N)
        logs = np.log(np.maximum(found, 1e-3 * losses_N.mean()))
        start = list(logs[: len(floor)])
        for power, level, scale in zip(powers, logs[len(floor) :], scales, strict=True):
            start += [level + power * scale, power]
        extra = len(law.parameters) - len(start)
        starts.append([*start, *([float(np.log(0.1 * losses_N.mean()))] if extra else []), *[-0.5] * max(0, extra - 1)])
    return np.array(starts)
