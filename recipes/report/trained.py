"""Training, evaluation and export: losses over tokens, and what came out."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from recipes.report.axes import NUM_COLOURS, colour
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.curves import Curve, Panel, curves_over, panels_over
from recipes.report.markup import Column, Figure, Section, Table, not_made, seconds, shown, tag
from recipes.report.record import Record

TOKENS = "tokens trained on"
MOST_PANELS = 48
LONG, SKIPPED = 50, 0.02  # of a long curve the beginning is left out: its fall would flatten all that follows

Points = tuple[tuple[float, float], ...]


def train_seconds(record: Record) -> float | None:
    """Time in train steps, from the speed of each line of the log; None before training."""
    total, before = 0.0, 0.0
    for line in record.metrics:
        tokens, speed = line.get("tokens"), line.get("tokens_per_s")
        if tokens and speed:
            total += (tokens - before) / speed
            before = tokens
    return total or None


def training_section(record: Record) -> Section:
    """Curves of the training."""
    if not record.metrics:
        return not_made("training", "Training", record.command("train"), "train" in record.asked)
    last = record.metrics[-1]
    spent = train_seconds(record)
    lead = f"{last['step'] or 0:,.0f} train steps on {last['tokens'] or 0:,.0f} tokens"
    section = Section("training", "Training", f"{lead}, {seconds(spent)}." if spent else f"{lead}.")
    section.figure(_losses(record))
    section.figure(_course(record))
    dropped = last.get("dropped_updates")
    if dropped:
        section.listed(
            [f"{dropped:,.0f} updates were left out because of spikes or gradients that are no number."], "warnings"
        )
    return section


def _borders(record: Record) -> list[tuple[float, str]]:
    """Where phases after the first begin, in tokens."""
    found, so_far = [], 0
    for phase in record.plan.phases if record.plan else ():
        if so_far:
            found.append((float(so_far), phase.name))
        so_far += phase.num_tokens
    return found


def _points(record: Record, column: str) -> tuple[tuple[float, float], ...]:
    lines = ((line.get("tokens"), line.get(column)) for line in record.metrics)
    return tuple((x, y) for x, y in lines if x is not None and y is not None)


def _losses(record: Record) -> Figure:
    columns = (
        Column("tokens", "count"), Column("domain"), Column("loss (nats per token)", "loss"),
        Column("bits per byte", "loss"),
    )  # fmt: skip
    rows = tuple((t, name, loss, bits) for name, points in record.held_out.items() for t, loss, bits in points)
    measured = {name: tuple((t, loss) for t, loss, _ in points) for name, points in record.held_out.items()}
    train, first = _points(record, "loss"), ""
    if max((len(points) for points in [train, *measured.values()]), default=0) >= LONG:
        begin = SKIPPED * train[-1][0]
        train, first = _from(train, begin), f" The first {SKIPPED:.0%} of training are left out.".replace("%", " %")
        measured = {name: _from(points, begin) for name, points in measured.items()}
    few = len(measured) <= NUM_COLOURS
    drawn = _together(record, train, measured) if few else _one_by_one(train, measured)
    return Figure(
        "losses",
        "Train loss and held-out loss by domain",
        "Held-out loss of each domain, and the train loss of the running mixture (thin line). A held-out curve that "
        "rises while train loss falls is over-fitted; a step at a phase's border shows what its weights change."
        + first,
        drawn,
        record.command("train"),
        Table("held_out", columns, rows, head=60),
    )


def _from(points: Points, begin: float) -> Points:
    return tuple(point for point in points if point[0] >= begin)


def _together(record: Record, train: Points, measured: Mapping[str, Points]) -> Markup:
    """All domains in one picture, the highest first."""
    curves = [Curve("train loss", train, "ink", thin=True)]
    for name in sorted(measured, key=lambda name: -measured[name][-1][1]):
        curves.append(Curve(name, measured[name], record.hues.get(name, "kx"), dots=len(measured[name]) < 80))
    axes = (TOKENS, "nats per token")
    return curves_over(curves, "Train loss and held-out loss by domain over tokens", axes, _borders(record), 400.0)


def _one_by_one(train: Points, measured: Mapping[str, Points]) -> Markup:
    """A panel for each domain, all on one scale."""
    back = Curve("train loss", train, "ink", thin=True)
    panels = [
        Panel(name, (back, Curve(name, points, colour(0)))) for name, points in list(measured.items())[:MOST_PANELS]
    ]
    return panels_over(panels, "Held-out loss of each domain over tokens", (TOKENS, "nats per token"), shared=True)


def _course(record: Record) -> Figure:
    titles = {"learning_rate": "learning rate", "gradient_norm": "gradient norm", "tokens_per_s": "tokens per second"}
    panels = [Panel(title, (Curve(title, _points(record, name), colour(0)),)) for name, title in titles.items()]
    columns = [name for name in record.metrics[0] if name != "position"]
    rows = tuple(tuple(line.get(name) for name in columns) for line in record.metrics)
    kinds = {"step": "count", "tokens": "count", "dropped_updates": "count", "tokens_per_s": "count"}
    return Figure(
        "course",
        "Learning rate, gradient norm and speed",
        "The learning rate as scheduled; the gradient's norm before clipping, whose jumps point at odd text "
        "(the command finds it); and the speed, which is low in the first line while the machine warms up.",
        panels_over(panels, "Learning rate, gradient norm and tokens per second over tokens", (TOKENS, "")),
        record.command("trace", "--train-step N"),
        Table("metrics", tuple(Column(name, kinds.get(name, "number")) for name in columns), rows, head=60),
    )


# ---------------------------------------------------------------- evaluation and export


def evaluation_section(record: Record) -> Section:
    """Held-out loss per domain at the end, against the beginning."""
    if not record.evaluation:
        return not_made("evaluation", "Evaluation", record.command("evaluate"), "evaluate" in record.asked)
    section = Section("evaluation", "Evaluation", "Held-out loss of the last checkpoint.")
    rows = evaluation_rows(record)
    columns = (
        Column("domain"), Column("held-out tokens measured", "count"), Column("first loss (nats per token)", "loss"),
        Column("last loss (nats per token)", "loss"), Column("bits per byte", "loss"),
    )  # fmt: skip
    bars = []
    for name, _, first, last, bits in rows:
        nats = f"{shown(first, 'loss')} → {shown(last, 'loss')} nats"
        told = f"{name}: {shown(bits, 'loss')} bits per byte, {nats}"
        bars.append(Bar(name, (Piece(bits or 0.0, colour(0), told),), f"{shown(bits, 'loss')} ({nats})"))
    section.figure(
        Figure(
            "bits-per-byte",
            "Bits per byte by domain",
            "Shorter is better: bits the model needs for a byte of text it has not seen. It does not depend on the "
            "tokenizer, so it can be compared with other models; loss in nats per token (first measurement → last) "
            "cannot.",
            stacked_bars(bars, "Bits per byte of held-out text by domain", "bits per byte", notes=200.0),
            record.command("evaluate"),
            Table("evaluation", columns, tuple(rows)),
        )
    )
    return section


def evaluation_rows(record: Record) -> list[tuple[str, int, float | None, float | None, float | None]]:
    """(domain, tokens measured, first loss, last loss, bits per byte) of each domain."""
    firsts = {name: points[0][1] for name, points in record.held_out.items()}
    return [
        (one["domain"], one["num_tokens"], firsts.get(one["domain"]), one["loss_nats"], one["bits_per_byte"])
        for one in record.evaluation
    ]


def export_section(record: Record) -> Section:
    """The export's check and a continuation."""
    found = record.export
    if found is None:
        return not_made("export", "Export", record.command("export"), "export" in record.asked)
    section = Section("export", "Export", f"A Hugging Face model of {found['num_parameters']:,} parameters.")
    difference, scale = found["logit_difference"], found.get("logit_scale")
    beside = f", where the largest logit is {scale:.3g}" if scale else ""
    section.say(
        f"transformers was given the exported files and random tokens: its logits differ from gristmill's by at most "
        f"{difference:.1e}{beside}."
    )
    section.say("What the exported model writes after the prompt, taking the likeliest token each time:")
    section.parts.append(tag("blockquote", found.get("continuation") or "(nothing)", class_="continuation", dir="auto"))
    section.say("Made by ", tag("code", record.command("export")), ".")
    return section
