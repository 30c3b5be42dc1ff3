"""Weights against loss: every run as a line over the domains, on a triangle of three groups, and domain by domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mixing.ablation.objective import percent, relative_change
from mixing.patterns import members
from recipes.report.axes import WIDTH, Scale, around, cut, left_axis, legend, picture, tip, words
from recipes.report.curves import Band, Curve, Panel, panels_over
from recipes.report.markup import Column, Figure, Table, tag
from recipes.report.record import Record

MOST_LINES, MOST_AXES, MOST_PANELS = 400, 24, 24
Run = Mapping[str, Any]


def mixture_figures(record: Record, found: Mapping[str, Any], groups: Mapping[str, str] | None = None) -> list[Figure]:
    """The figures that this analysis has numbers for.

    Args:
        record: the run.
        found: the analysis.
        groups: three names and the patterns behind them, for the triangle; by language without.
    """
    figures = []
    runs = [run for run in found.get("runs", []) if run.get("objective") is not None and run["kind"] != "order"]
    if len(runs) > 2 and len(found["natural"]) > 1:
        figures.append(_parallel(record, found, runs))
        three = groups_of(record, found, groups)
        if three:
            figures.append(_ternary(record, found, runs, three))
    if found.get("dependence"):
        figures.append(_dependence(record, found))
    return figures


# ---------------------------------------------------------------- colours of the objective


def _ends(runs: Sequence[Run]) -> tuple[float, float]:
    """Where colours are strongest: the best run's objective, and that of the worst tenth of runs.

    Each side has a scale of its own: on one, a few bad runs would leave the good ones, which are looked for, grey.
    """
    values = sorted(run["objective"] for run in runs)
    return values[0], values[int(0.9 * (len(values) - 1))]


def _strength(value: float, ends: tuple[float, float]) -> float:
    """-1 (the best run) over 0 (natural weights) to 1 (the worst tenth of runs)."""
    most = -ends[0] if value < 0 else ends[1]
    return max(-1.0, min(1.0, value / most)) if most > 0 else math.copysign(1.0, value)


def _paint(strength: float, attribute: str) -> str:
    """Red for worse than natural weights, blue for better, grey where equal; strong enough on white and on black."""
    pole = "--cool" if strength < 0 else "--warm"
    return f"{attribute}: color-mix(in oklab, var({pole}) {25 + 75 * abs(strength):.0f}%, var(--kx))"


def _told(run: Run) -> str:
    shares = ", ".join(f"{name} {100 * weight:.0f} %" for name, weight in sorted(run["weights"].items()) if weight)
    return f"{run['name']}: {percent(run['objective'])} ({shares})"


_LEGEND = legend(
    [("better than natural weights", "cool"), ("worse", "warm"), ("natural", "ring"), ("the surrogate's optimum", "k1")]
)


# ---------------------------------------------------------------- parallel coordinates


def _parallel(record: Record, found: Mapping[str, Any], runs: Sequence[Run]) -> Figure:
    natural = found["natural"]
    names = sorted(natural, key=lambda name: -natural[name])[:MOST_AXES]
    inner = [run for run in runs if run["kind"] != "one_domain"] or list(runs)
    drawn = sorted(inner, key=lambda run: -float(run["objective"]))[-MOST_LINES:]
    more = "" if len(names) == len(natural) else f" The {len(names)} domains of most text are drawn."
    return Figure(
        "weights-loss",
        "Weights of every run, and what came of them",
        "A line is a run: its weight on each domain, and at the right its objective (relative change of held-out loss "
        "against natural weights; lower is better). Blue lines did better than natural weights, red ones worse, each "
        "on a scale of its own. Where blue and red part on an axis, that domain's weight decides; where they mix, it "
        "does not matter. Runs of one domain alone are left out." + more,
        _LEGEND + _lines(found, names, drawn),
        record.command("report", "--figure weights-loss"),
        _weights_table(found, runs),
    )


def _lines(found: Mapping[str, Any], names: Sequence[str], runs: Sequence[Run]) -> Markup:
    top, tall, left = 44.0, 300.0, 40.0
    marked = [weights for weights in (found["natural"], found.get("optimum")) if weights]
    drawn = [run["weights"] for run in runs] + marked
    most = max((weights.get(name, 0.0) for weights in drawn for name in names), default=1.0) or 1.0
    weight = Scale(0.0, 100 * most, top + tall, top)
    low, high = around([100 * relative_change(run["objective"]) for run in runs] + [0.0], 0.03)
    objective = Scale(low, high, top + tall, top)
    step = (WIDTH - left - 70) / max(1, len(names))
    places = [left + step * k for k in range(len(names) + 1)]
    room = max(34.0, step - 6)
    leaning = any(len(name) * 7 > room for name in names)
    marks: list[Markup] = [left_axis(weight, left, "weight (%)", places[-2])]
    for x, name in zip(places, names):
        marks.append(tag("line", x1=x, x2=x, y1=top, y2=top + tall, class_="axis"))
        marks.append(_axis_name(x, top + tall, name, leaning))
    marks += _objective_axis(objective, places[-1], top, tall)
    ends = _ends(runs)
    marks += [_line(run, names, places, (weight, objective), _strength(run["objective"], ends)) for run in runs]
    for weights, class_, what in ((found["natural"], "way", "natural weights"),
                                  (found.get("optimum"), "way k1", "the surrogate's optimum")):  # fmt: skip
        if weights:
            points = [(x, weight.at(100 * weights[name])) for x, name in zip(places, names)]
            marks.append(tag("path", tip(what), d=_path(points), class_=class_))
            mark = "mark-natural" if class_ == "way" else "mark-optimum"
            marks += [tag("circle", tip(what), cx=x, cy=y, r=4.0, class_=mark) for x, y in points]
    return picture(top + tall + (92 if leaning else 30), "Weights and objective of every run", *marks)


def _axis_name(x: float, bottom: float, name: str, leaning: bool) -> Markup:
    if not leaning:
        return words(x, bottom + 18, name, "name", "middle")
    turned = f"rotate(-40 {x:.0f} {bottom + 14:.0f})"
    return words(x + 4, bottom + 14, cut(name, 110), "name", "end", transform=turned)


def _objective_axis(scale: Scale, x: float, top: float, tall: float) -> list[Markup]:
    marks = [tag("line", x1=x, x2=x, y1=top, y2=top + tall, class_="axis")]
    for value in scale.ticks(5):
        marks.append(words(x + 8, scale.at(value) + 4, f"{value:+.4g}" if value else "0", "tick"))
    marks.append(words(x + 60, top - 26, "objective (%)", "axis-title", "end"))
    marks.append(tag("line", x1=x - 6, x2=x + 6, y1=scale.at(0.0), y2=scale.at(0.0), class_="cut"))
    return marks


def _line(
    run: Run, names: Sequence[str], places: Sequence[float], scales: tuple[Scale, Scale], strength: float
) -> Markup:
    weight, objective = scales
    points = [(x, weight.at(100 * run["weights"].get(name, 0.0))) for x, name in zip(places, names)]
    points.append((places[-1], objective.at(100 * relative_change(run["objective"]))))
    return tag("path", tip(_told(run)), d=_path(points), class_="run", style=_paint(strength, "stroke"))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _weights_table(found: Mapping[str, Any], runs: Sequence[Run]) -> Table:
    names = sorted(found["natural"])
    shares = [Column(name, "share") for name in names]
    columns = [Column("run"), Column("kind"), Column("objective", "log_change"), *shares]
    rows = [
        (run["name"], run["kind"], run["objective"], *(run["weights"].get(name) for name in names))
        for run in sorted(runs, key=lambda run: float(run["objective"]))
    ]
    return Table("weights_loss", tuple(columns), tuple(rows), head=40)


# ---------------------------------------------------------------- a triangle of three groups


def groups_of(record: Record, found: Mapping[str, Any], wanted: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Three groups of domains: the user's, else by language, else the two largest domains and the rest.

    Languages beyond two of most natural weight are one group, `others`; so are domains.
    """
    natural: Mapping[str, float] = found["natural"]
    if wanted:
        taken: set[str] = set()
        groups = {}
        for name, pattern in wanted.items():
            groups[name] = [domain for domain in members(pattern, sorted(natural)) if domain not in taken]
            taken |= set(groups[name])
        return groups
    languages = {name: _language(record, name) or name for name in natural}
    if len(set(languages.values())) < 3:
        languages = {name: name for name in natural}
    sizes = {one: sum(natural[n] for n in natural if languages[n] == one) for one in set(languages.values())}
    largest = sorted(sizes, key=lambda one: (-sizes[one], one))
    if len(largest) < 3:
        return {}
    kept = largest if len(largest) == 3 else largest[:2]
    groups = {one: sorted(name for name in natural if languages[name] == one) for one in kept}
    rest = sorted(set(natural) - {name for names in groups.values() for name in names})
    return groups if not rest else {**groups, "others": rest}


def _language(record: Record, domain: str) -> str | None:
    source: Any = record.recipe.sources.get(domain.partition("/")[0])
    declared = getattr(source, "language", None)
    return declared if isinstance(declared, str) else "+".join(declared) if declared else None


def _ternary(
    record: Record, found: Mapping[str, Any], runs: Sequence[Run], groups: Mapping[str, Sequence[str]]
) -> Figure:
    told = "; ".join(
        f"{name}: {', '.join(domains)}" for name, domains in groups.items() if [name] != list(domains)
    )  # fmt: skip
    shares = {
        run["name"]: tuple(sum(run["weights"].get(domain, 0.0) for domain in names) for names in groups.values())
        for run in runs
    }
    columns = (
        Column("run"), Column("kind"), *(Column(name, "share") for name in groups), Column("objective", "log_change"),
    )  # fmt: skip
    return Figure(
        "triangle",
        f"Objective over {', '.join(list(groups)[:-1])} and {list(groups)[-1]}",
        "A dot is a run; it lies the nearer to a corner, the more of its tokens are of that group, and on a corner if "
        "all are. Blue did better than natural weights (the ring), red worse, each on a scale of its own. "
        f"Runs in one place differ inside the groups. {told + '. ' if told else ''}"
        "Other groups: `--group NAME=PATTERN` three times.",
        _LEGEND + tag("div", _triangle(found, runs, groups, shares), class_="middling"),
        record.command("report", "--figure triangle"),
        Table("triangle", columns, tuple((r["name"], r["kind"], *shares[r["name"]], r["objective"]) for r in runs), 40),
    )


def _triangle(
    found: Mapping[str, Any],
    runs: Sequence[Run],
    groups: Mapping[str, Sequence[str]],
    shares: Mapping[str, tuple[float, ...]],
) -> Markup:
    side, left, top = 380.0, 80.0, 30.0
    tall = side * math.sqrt(3) / 2
    corners = ((left + side / 2, top), (left, top + tall), (left + side, top + tall))

    def at(parts: Sequence[float]) -> tuple[float, float]:
        total = sum(parts) or 1.0
        x, y = (sum(p * c[axis] for p, c in zip(parts, corners)) / total for axis in (0, 1))
        return x, y

    marks, ends = _grid_of_triangle(at, list(groups)), _ends(runs)
    for run in sorted(runs, key=lambda run: -float(run["objective"])):  # the best on top
        x, y = at(shares[run["name"]])
        fill = _paint(_strength(run["objective"], ends), "fill")
        marks.append(tag("circle", tip(_told(run)), cx=x, cy=y, r=5.0, class_="dot", style=fill))
    for weights, class_, what in ((found["natural"], "mark-natural hollow", "natural weights"),
                                  (found.get("optimum"), "mark-optimum", "the surrogate's optimum")):  # fmt: skip
        if weights:
            x, y = at([sum(weights.get(domain, 0.0) for domain in names) for names in groups.values()])
            marks.append(tag("circle", tip(what), cx=x, cy=y, r=7.0, class_=f"{class_} large"))
    return picture(top + tall + 58, "Objective of every run over three groups", *marks, width=side + 2 * left)


def _grid_of_triangle(at: Any, names: Sequence[str]) -> list[Markup]:
    """Sides, lines of equal share every fifth, the corners' names, and each side's scale."""
    marks = []
    for share in (0.2, 0.4, 0.6, 0.8):
        for corner in range(3):
            ends = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
            for end, other in zip(ends, ((corner + 1) % 3, (corner + 2) % 3)):
                end[corner], end[other] = share, 1 - share
            (x1, y1), (x2, y2) = at(ends[0]), at(ends[1])
            marks.append(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="grid"))
            # A corner's share is written on the side that runs from it to the next corner, outside.
            shift = ((-8.0, 4.0, "end"), (0.0, 17.0, "middle"), (8.0, 4.0, "start"))[corner]
            marks.append(words(x1 + shift[0], y1 + shift[1], f"{100 * share:.0f}", "tick", shift[2]))
    (x0, y0), (x1, y1), (x2, y2) = (at([float(k == corner) for k in range(3)]) for corner in range(3))
    marks.append(tag("path", d=_path([(x0, y0), (x1, y1), (x2, y2), (x0, y0)]), class_="side"))
    for place, (x, y, anchor) in enumerate(((x0, y0 - 12, "middle"), (x1, y1 + 38, "middle"), (x2, y2 + 38, "middle"))):
        marks.append(words(x, y, f"{cut(names[place], 150)} 100 %", "panel", anchor))
    return marks


# ---------------------------------------------------------------- partial dependence


def _dependence(record: Record, found: Mapping[str, Any]) -> Figure:
    natural, curves = found["natural"], found["dependence"]
    names = sorted(curves, key=lambda name: -_reach(curves[name]))
    panels = [_panel(name, curves[name], natural[name]) for name in names[:MOST_PANELS]]
    rows = tuple(
        (name, *point)
        for name in names
        for point in zip(*(curves[name][key] for key in ("weights", "objective", "low", "high")))
    )
    columns = (
        Column("domain"), Column("weight", "share"), Column("objective", "log_change"), Column("from", "log_change"),
        Column("to", "log_change"),
    )  # fmt: skip
    more = "" if len(names) <= MOST_PANELS else f" The {MOST_PANELS} of {len(names)} with the largest effect are drawn."
    return Figure(
        "dependence",
        "What each domain's weight does",
        f"Partial dependence by {found.get('surrogate')}: the objective (change against natural weights; lower is "
        "better) over one domain's weight while the others keep their ratios, mean over the trained mixtures. Band: "
        "nine in ten bootstraps of the runs and their seeds. Dashed: the natural weight. All panels have one scale, "
        "the largest effect first; a flat line means that the domain's share hardly matters. Curves end where the runs "
        "do." + more,
        panels_over(panels, "Objective over the weight of each domain", ("weight (%)", "objective (%)"), shared=True),
        record.command("report", "--figure dependence"),
        Table("dependence", columns, rows, head=36),
    )


def _reach(curve: Mapping[str, Sequence[float]]) -> float:
    return max(curve["objective"]) - min(curve["objective"])


def _panel(name: str, curve: Mapping[str, Sequence[float]], natural: float) -> Panel:
    weights = [100 * weight for weight in curve["weights"]]
    mean, low, high = ([100 * relative_change(value) for value in curve[key]] for key in ("objective", "low", "high"))
    band = Band(tuple(zip(weights, low, high)), "k0")
    return Panel(name, (Curve("objective", tuple(zip(weights, mean)), "k0"),), band, 100 * natural)
