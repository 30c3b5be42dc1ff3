"""The sentences of an analysis: what was chosen, why, how much of it is noise, and what no run has confirmed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixing.ablation.objective import percent
from mixing.ablation.preparation import num_mixtures

if TYPE_CHECKING:
    from mixing.ablation.analysis import Findings


NOT_CONFIRMED = "Not confirmed: "  # how the sentence begins that a confirmation makes void
KEPT_NATURAL = "Nothing beats natural weights beyond noise, so they were chosen"  # decides only without a confirmation


def verdict(found: Findings) -> list[str]:
    """What came out, most important first."""
    noise, degrees = found.noise["objective"], found.noise["degrees"]
    sentences = [_choice(found), *_not_confirmed(found)]
    if noise is None:
        sentences.append(
            "No mixture was trained on several seeds, so seed noise is unknown, and the error on held-out runs stood "
            "in for it; raise ablation.runs.repeats."
        )
    else:
        plural = "" if degrees == 1 else "s"
        sentences.append(f"Seed noise of the objective: {noise:.2%} ({degrees} degree{plural} of freedom).")
    if found.portfolio.chosen == "constant":
        sentences.append("No surrogate predicts a run it has not seen better than the mean of the others does.")
    return sentences


def _choice(found: Findings) -> str:
    gain, fitted = found.gain, found.question.fitted
    interval = f"{percent(gain.low)} to {percent(gain.high)}"
    if found.reason == "surrogate":
        return (
            f"Proposed: the optimum of {found.portfolio.chosen}. It is expected to change the objective by "
            f"{percent(gain.corrected)} against natural weights (90% interval {interval})."
        )
    if found.reason == "best_run":
        value = float(found.question.objective.of(fitted.losses[found.best_row]))
        return (
            f"Proposed: the weights of the run {fitted.names[found.best_row]}, which changed the objective by "
            f"{percent(value)} against natural weights, beyond seed noise. No surrogate's optimum is sure enough "
            f"({interval})."
        )
    if num_mixtures(fitted) == 1:
        return "Only one mixture was trained: there is nothing to choose from, and natural weights stay."
    expected = percent(gain.expected)
    if percent(gain.corrected) != expected:
        expected += f", or {percent(gain.corrected)} once the luck of having picked it is taken off"
    return f"{KEPT_NATURAL}: the fit expects of the best mixture {expected} (90% interval {interval})."


def _not_confirmed(found: Findings) -> list[str]:
    """That the proposed weights were not trained for a comparison of their own."""
    if found.reason == "natural":
        return []
    seeds = {seed for seed, kind in zip(found.question.fitted.seeds, found.question.fitted.kinds, strict=True)
             if kind not in ("natural", "baseline")}  # fmt: skip
    on = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return [
        f"{NOT_CONFIRMED}what was drawn was trained on {on}, and these weights were picked because they look best "
        "there. `ablation.confirm` trains them beside natural weights on seeds of their own."
    ]


def more_runs(more: dict[str, Any], noise: float | None) -> list[str]:
    """How much more runs would help."""
    if len(more["expected"]) < 2:
        return []
    (now_runs, now), (then_runs, then) = list(more["expected"].items())[:2]
    sentence = f"The objective of a run not seen is predicted to about {now:.2%} with {now_runs} runs"
    if then < 0.98 * now:
        sentence += f", and would be to about {then:.2%} with {then_runs}."
    else:
        sentence += f"; the error does not fall with the number of runs, so {then_runs} like these would hardly help."
    if noise is not None and now < 1.2 * noise:
        sentence += f" That is no more than seed noise ({noise:.2%}): more runs would hardly help."
    return [sentence]
