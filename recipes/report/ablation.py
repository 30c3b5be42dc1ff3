"""The ablation: which domain helps which, natural and chosen weights, and how far the surrogates can be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mixing.ablation.objective import relative_change
from recipes.progress import several
from recipes.report.axes import colour, legend
from recipes.report.confirmation import confirmation_figure
from recipes.report.curves import Curve, Panel, curves_over, panels_over
from recipes.report.front import front_figure
from recipes.report.grids import Span, intervals, scatter
from recipes.report.markup import Column, Figure, Section, Table, not_made, tag
from recipes.report.matrix import matrix_figure
from recipes.report.mixtures import mixture_figures
from recipes.report.one_pass import one_pass_figures
from recipes.report.record import Record

MOST_PANELS, MOST_OTHERS = 12, 60  # drawn; the tables have all
_REASONS = {
    "natural": "Natural weights stay: nothing was shown to beat them.",
    "best_run": "The weights of the best run were chosen; nothing has confirmed them.",
    "surrogate": "The surrogate's optimum was chosen; nothing has confirmed it.",
    "confirmed": "The proposed weights held when they were trained again, and were chosen.",
}


def ablation_section(
    record: Record, found: Mapping[str, Any] | None = None, groups: Mapping[str, str] | None = None
) -> Section:
    """What the proxies say, in pictures and in words.

    Args:
        record: the run.
        found: an analysis; without one the run's own.
        groups: three groups of domains for the triangle; by language without.
    """
    found = record.analysis if found is None else found
    if found is None:
        return not_made("ablation", "Ablation", record.command("ablate"), "ablate" in record.asked)
    runs = found.get("runs", [])
    size, tokens = found.get("num_parameters") or 0, found.get("num_tokens") or 0
    each = f" of {size:,} parameters, {tokens:,} tokens each" if size and tokens else ""
    lead = f"{len(runs)} proxies{each}. {_REASONS.get(found.get('reason', ''), '')}"
    section = Section("ablation", "Ablation", lead)
    section.listed([_signed(note) for note in found.get("notes", [])])
    if found.get("matrix"):
        section.figure(matrix_figure(record, found))
    if found.get("one_pass"):
        for figure in one_pass_figures(record, found):
            section.figure(figure)
    front: Sequence[Any] = found.get("front") or ()
    fronts = [front_figure(record, found)] if len(front) > 1 and len(front[0]["axes"]) > 1 else []
    for figure in [_weights(record, found), *mixture_figures(record, found, groups), *fronts]:
        section.figure(figure)
    if any("objective" in arm for arm in (found.get("confirmation") or {}).get("arms", ())):
        section.figure(confirmation_figure(record, found))
    if len(found.get("arms") or ()) > 1:
        section.figure(_arms(record, found))
    if found.get("observed_vs_predicted"):
        section.figure(_observed(record, found))
    if found.get("surrogates"):
        _surrogates(section, found)
    _say_tied(section, found)
    if found.get("learnability"):
        _learnability(section, found)
    if found.get("curves"):
        section.figure(_curves(record, found))
    if len((found.get("more_runs") or {}).get("curve", [])) > 1:
        section.figure(_more_runs(record, found))
    if runs:
        section.tables.append(_runs(found))
        section.say("Every run with its weights and losses: ", tag("a", "runs.csv", href="report/runs.csv"), ".")
    return section


def _signed(note: str) -> str:
    """A note with minus signs and spaces as the page writes them."""
    return re.sub(r"(\d)%", r"\1 %", re.sub(r"(?<![\w.])-(?=\d)", "−", note))


def _weights(record: Record, found: Mapping[str, Any]) -> Figure:
    natural, chosen, optimum = found["natural"], found["chosen"], found.get("optimum") or {}
    spread, tied = found.get("weights_interval") or {}, (found.get("tied") or {}).get("ranges") or {}
    spans = []
    for name in sorted(natural):
        marks = [(natural[name], "mark-natural", f"{name}: natural weight {100 * natural[name]:.1f} %")]
        if name in optimum:
            marks.append(
                (optimum[name], "mark-optimum", f"{name}: the surrogate's optimum {100 * optimum[name]:.1f} %")
            )
        marks.append((chosen[name], "mark-chosen", f"{name}: chosen weight {100 * chosen[name]:.1f} %"))
        interval = tuple(spread[name]) if name in spread else None
        told = f"{name}: bootstraps {100 * interval[0]:.1f} to {100 * interval[1]:.1f} %" if interval else ""
        spans.append(Span(name, tuple(marks), interval, told))
    columns = (
        Column("domain"), Column("natural", "share", bar=True), Column("chosen", "share", bar=True),
        Column("optimum", "share"), Column("interval from", "share"), Column("interval to", "share"),
        Column("tied from", "share"), Column("tied to", "share"), Column("MixMin", "share"),
    )  # fmt: skip
    mixmin = found.get("mixmin") or {}
    rows = tuple(
        (
            name,
            natural[name],
            chosen[name],
            optimum.get(name),
            *_pair(spread.get(name)),
            *_pair(tied.get(name)),
            mixmin.get(name),
        )
        for name in sorted(natural)
    )
    return Figure(
        "weights",
        "Weights: natural and chosen",
        "The ring is a domain's natural weight, the blue dot the chosen weight; they coincide where natural weights "
        "stay. The orange dot is the surrogate's optimum (hidden by the blue one where it was chosen), the bar "
        "where nine in ten bootstraps of the runs put it: an optimum with wide bars is not known well.",
        legend([("natural", "ring"), ("chosen", colour(0)), ("surrogate's optimum and its interval", colour(1))])
        + intervals(spans, "Natural and chosen weight of each domain", "weight (share of tokens, %)"),
        record.command("ablate"),
        Table("weights", columns, rows),
    )


def _pair(interval: Sequence[float] | None) -> tuple[float | None, float | None]:
    return (None, None) if not interval else (interval[0], interval[1])


def _arms(record: Record, found: Mapping[str, Any]) -> Figure:
    arms = [arm for arm in found["arms"] if arm.get("difference") is not None]
    columns = (
        Column("weights"), Column("kind"), Column("seeds"), Column("objective", "log_change"),
        Column("difference to natural", "log_change"), Column("standard error", "share"),
    )  # fmt: skip
    rows = tuple(
        (
            arm["name"], arm.get("kind"), ", ".join(map(str, arm["seeds"])), arm["objective"], arm.get("difference"),
            arm.get("error"),
        )
        for arm in arms
    )  # fmt: skip
    spans = [_arm_span(arm) for arm in sorted(arms, key=lambda one: float(one["difference"]))]
    return Figure(
        "arms",
        "Weights that were trained as they are",
        "Measured, not predicted: how much the objective of each set of weights differs from natural weights of the "
        "same seed, mean over seeds, with the nine-in-ten interval that their spread allows (none from one seed). "
        "Left of zero is better; an interval that crosses zero has shown nothing.",
        intervals(spans, "Objective of each set of weights", "change of held-out loss against natural weights (%)"),
        record.command("ablate"),
        Table("arms", columns, rows),
    )


def _arm_span(arm: Mapping[str, Any]) -> Span:
    from scipy.stats import t

    change, error, pairs = float(arm["difference"]), arm.get("error"), int(arm["pairs"])
    reach = float(t.ppf(0.95, pairs - 1)) * error if error and pairs > 1 else 0.0
    value = relative_change(change)
    told = f"{arm['name']}: {value:+.2%} from {several(pairs, 'pair')} of seeds"
    interval = (relative_change(change - reach), relative_change(change + reach)) if reach else None
    return Span(arm["name"], ((value, "mark-chosen", told),), interval, told)


def _observed(record: Record, found: Mapping[str, Any]) -> Figure:
    kinds = {run["name"]: run["kind"] for run in found.get("runs", [])}
    order = list(dict.fromkeys(kinds.get(one["name"], "other") for one in found["observed_vs_predicted"]))
    known = [o for o in found["observed_vs_predicted"] if o["observed"] is not None and o["predicted"] is not None]
    points = []
    for one in known:
        observed, predicted = relative_change(one["observed"]), relative_change(one["predicted"])
        told = f"{one['name']}: observed {observed:+.2%}, predicted {predicted:+.2%}"
        place = order.index(kinds.get(one["name"], "other"))
        points.append((100 * observed, 100 * predicted, f"dot {colour(place)}", told))
    columns = (Column("run"), Column("observed", "log_change"), Column("predicted", "log_change"))
    return Figure(
        "observed-predicted",
        f"Observed and predicted ({found.get('surrogate')})",
        "Each point is a run: what was measured, and what the chosen surrogate said of it when fitted without it. "
        "Objective: relative change of held-out loss against natural weights. On the dashed line the prediction is "
        "right; a cloud without slope means that the surrogate knows nothing.",
        legend([(kind.replace("_", " "), colour(place)) for place, kind in enumerate(order)])
        + tag(
            "div",
            scatter(points, "Observed against predicted objective", ("observed change (%)", "predicted change (%)")),
            class_="narrow",
        ),
        record.command("ablate"),
        Table("observed_predicted", columns, tuple((o["name"], o["observed"], o["predicted"]) for o in known)),
    )


def _surrogates(section: Section, found: Mapping[str, Any]) -> None:
    columns = (
        Column("surrogate"), Column("chosen"), Column("relative error of losses", "loss"),
        Column("mean absolute error (nats)", "loss"), Column("rank correlation of losses", "loss"),
        Column("rank correlation of the objective", "loss"), Column("error of the objective", "share"),
        Column("regret", "share"),
    )  # fmt: skip
    rows = []
    for name, scores in sorted(found["surrogates"].items(), key=lambda one: one[1].get("relative_error") or 1e9):
        errors = [value for value in (scores.get("mae") or {}).values() if value is not None]
        rows.append(
            (
                name, "yes" if scores.get("chosen") else "", scores.get("relative_error"),
                sum(errors) / len(errors) if errors else None, scores.get("rank_correlation"),
                scores.get("objective_rank_correlation"), scores.get("objective_error"), scores.get("regret"),
            )
        )  # fmt: skip
    words = (
        "Scores on runs held out in cross-validation; losses are means over domains. The relative error is squared "
        "error over the domain's variance: 1 is as good as always saying the mean. A rank correlation of 1 orders "
        "all runs rightly, 0 is guessing, below 0 is worse. Regret is what the surrogate's pick among the runs lost "
        "against the best of them."
    )
    section.table("Surrogates", Table("surrogates", columns, tuple(rows)), words)


def _say_tied(section: Section, found: Mapping[str, Any]) -> None:
    """How far the runs leave the optimum open."""
    tied = found.get("tied") or {}
    if tied.get("ranges") and tied.get("distance") is not None:
        widest = max(tied["ranges"], key=lambda name: float(tied["ranges"][name][1] - tied["ranges"][name][0]))
        low, high = tied["ranges"][widest]
        section.say(
            "Other mixtures cannot be told from the surrogate's optimum by these runs (columns tied from, tied to "
            f"of the weights): {widest}, known least, may have {100 * low:.0f} to {100 * high:.0f} %. The one of "
            f"them nearest to natural weights moves {100 * tied['distance']:.0f} % of the tokens."
        )


def _learnability(section: Section, found: Mapping[str, Any]) -> None:
    columns = (
        Column("domain"), Column("loss at natural weights (nats)", "loss"),
        Column("loss trained on alone (nats)", "loss"), Column("saved by training on it alone", "share", bar=True),
        Column("fell over the last half", "share"),
    )  # fmt: skip
    rows = tuple(
        (name, one.get("natural"), one.get("alone"), one.get("gap"), one.get("falling"))
        for name, one in sorted(found["learnability"].items())
    )
    words = (
        "What each domain still has to give: what a proxy saves that reads nothing else, and how much its loss still "
        "fell over the last half of a run at natural weights (nothing where it was measured too seldom)."
    )
    section.table("Learnability", Table("learnability", columns, rows), words)


def _curves(record: Record, found: Mapping[str, Any]) -> Figure:
    kinds = {run["name"]: run["kind"] for run in found.get("runs", [])}
    domains = sorted({name for curve in found["curves"].values() for name in curve.get("losses", {})})
    panels = [Panel(name, tuple(_panel_curves(name, found["curves"], kinds))) for name in domains[:MOST_PANELS]]
    columns = (
        Column("run"),
        Column("kind"),
        Column("domain"),
        Column("tokens", "count"),
        Column("loss (nats per token)", "loss"),
    )
    rows = tuple(
        (run, kinds.get(run), domain, tokens, loss)
        for run, curve in found["curves"].items()
        for domain, losses in curve.get("losses", {}).items()
        for tokens, loss in zip(curve.get("tokens", []), losses)
    )
    more = "" if len(domains) <= MOST_PANELS else f" The first {MOST_PANELS} of {len(domains)} domains are drawn."
    return Figure(
        "proxy-curves",
        "Loss curves of the proxies",
        "A panel for each domain that is measured: held-out loss of every proxy over its training. Orange was "
        "trained on that domain alone, blue at natural weights, grey on anything else. Curves that still fall "
        "steeply end too early to be compared." + more,
        legend([("natural weights", colour(0)), ("this domain alone", colour(1)), ("other runs", "kx")])
        + panels_over(panels, "Held-out loss of the proxies by domain", ("tokens", "nats per token")),
        record.command("ablate", "--set ablation.tokens=…"),
        Table("proxy_curves", columns, rows, head=60),
    )


def _panel_curves(domain: str, curves: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Curve]:
    drawn = []
    for run, curve in curves.items():
        losses = curve.get("losses", {}).get(domain, [])
        points = tuple((float(x), float(y)) for x, y in zip(curve.get("tokens", []), losses) if y is not None)
        alone = kinds.get(run) == "one_domain" and (run == f"one.{domain}" or run.startswith(f"one.{domain}.s"))
        level = 2 if kinds.get(run) == "natural" else 1 if alone else 0
        drawn.append((level, Curve(run, points, ("kx", colour(1), colour(0))[level], thin=level == 0)))
    others = [curve for level, curve in drawn if level == 0][:MOST_OTHERS]
    return [*others, *(curve for _, curve in sorted((one for one in drawn if one[0]), key=lambda one: one[0]))]


def _more_runs(record: Record, found: Mapping[str, Any]) -> Figure:
    more = found["more_runs"]
    curve = tuple((float(n), 100 * float(error)) for n, error in more["curve"])
    expected = tuple(sorted((float(n), 100 * float(error)) for n, error in more.get("expected", {}).items()))
    noise = (found.get("objective_noise") or {}).get("sd")
    last = max([x for x, _ in (*curve, *expected)])
    curves = [Curve("measured", curve, colour(0), dots=True), Curve("expected", expected, colour(1), dots=True)]
    if noise is not None:
        curves.insert(0, Curve("seed noise", ((curve[0][0], 100 * noise), (last, 100 * noise)), "kx"))
    rows = [("measured", n, error / 100) for n, error in curve] + [
        ("expected", n, error / 100) for n, error in expected
    ]
    return Figure(
        "more-runs",
        "What more runs would bring",
        "Error of the objective on runs not seen, by the number of runs the surrogate was fitted to; orange "
        "continues it as a power of the number of runs. Below seed noise, more runs of one seed do not help.",
        curves_over(curves, "Error over number of runs", ("runs", "error of the objective (%)"), height=250.0),
        record.command("ablate", "--set ablation.runs.dirichlet=…"),
        Table(
            "more_runs",
            (Column("what"), Column("runs", "count"), Column("error of the objective", "share")),
            tuple(rows),
        ),
    )


def _runs(found: Mapping[str, Any]) -> Table:
    domains = sorted(found["natural"])
    targets = sorted({name for run in found["runs"] for name in run["losses"]})
    columns = [Column("name"), Column("kind"), Column("seed"), Column("diverged"), Column("objective", "number")]
    columns += [Column(f"w:{name}", "number") for name in domains] + [
        Column(f"loss:{name}", "loss") for name in targets
    ]
    rows = tuple(
        (
            run["name"], run["kind"], run["seed"], int(run["diverged"]), run.get("objective"),
            *(run["weights"].get(name) for name in domains), *(run["losses"].get(name) for name in targets),
        )
        for run in found["runs"]
    )  # fmt: skip
    return Table("runs", tuple(columns), rows)
