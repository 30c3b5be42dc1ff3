"""The report of a run: every picture that the run has numbers for, what is absent by name, texts that stay texts."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.errors import RunError
from recipes.report import write_report
from recipes.report.axes import Scale, apart, log_ticks, ticks
from recipes.report.bars import Bar, Piece, stacked_bars
from recipes.report.curves import Curve, curves_over, thinned
from recipes.report.funnel import funnels
from recipes.report.markup import Column, Table, shown, tag
from recipes.report.overview import bits_per_byte
from recipes.report.page import draw_figures
from recipes.report.record import read_record
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from recipes.texts.made_text import made_lines

VICIOUS = '<script>alert("x")</script><img src=x onerror=alert(1)>'
RECIPE = """
seed: 1
sources:
  de: {path: "de/*.jsonl", language: de}
  en: {path: "en/*.jsonl", language: en}
steps:
  - rules: {name: shape, drop: {too_short: "word_count < 12"}}
  - perplexity: {preset: sound, sources: [de], model: {train_on: [de], order: 2}, pieces: {unigram: 200},
                 buckets: {values: [4, 5]}}
  - dedup: {preset: minhash, keep: [longest]}
domains: {split: {de: bucket}, held_out: {tokens: 1K, share: 0.1}, max_epochs: 40}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
ablation: {proxy: llama_tiny, tokens: 4K, runs: {dirichlet: 2}}
schedule: [{name: main, tokens: 4K, weights: natural}, {name: cooldown, tokens: 2K, weights: natural}]
model: {preset: llama_tiny, context: 64}
training: {batch: 4 sequences}
export: {format: huggingface}
"""
RUNS = {"natural.s0": "natural", "one.en": "one_domain", "dirichlet.0": "dirichlet"}
DOMAINS = ("de/head", "de/middle", "en")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A run up to its plan, whose text holds markup."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("de", "en"):
        lines = list(made_lines(f"made_{name}", num_documents=40))
        vicious = [VICIOUS, f"{VICIOUS} {'und so weiter ' * 6}"]
        lines += [json.dumps({"id": f"v{i}", "text": text}).encode() + b"\n" for i, text in enumerate(vicious)]
        (folder / name).mkdir()
        (folder / name / "part-0.jsonl").write_bytes(b"".join(lines))
    path = folder / "tiny.yaml"
    path.write_text(f"{RECIPE}execution: {{raw: {folder}, workdir: {folder / 'work'}, workers: 1}}\n", "utf-8")
    with Run.open(load_recipe(path), silent=True) as run:
        assert run.plan
    return path


@pytest.fixture
def opened(planned, tmp_path):
    """The planned run in a work directory of its own: what lies beside it may be changed."""
    recipe = load_recipe(planned)
    beside = tmp_path / "work" / "runs" / "tiny"
    shutil.copytree(recipe.execution.workdir, tmp_path / "work", symlinks=True)
    run = Run.open(load_recipe(planned, [f"execution.workdir={tmp_path / 'work'}"]), silent=True)
    assert run.folder == beside
    return run


def test_report_after_any_verb_tells_what_that_verb_made(planned):
    """The plan was made by no verb that reports; a later `curate` leaves what was made from the same text."""
    run = Run.open(load_recipe(planned), silent=True)
    stages = run.recall("stages")
    assert {one["part"] for one in stages} >= {"curate", "tokenize", "plan"}
    record = read_record(run)
    assert sum(one.rows for one in funnels(record)) > 80
    assert record.plan is not None
    with Run.open(load_recipe(planned), silent=True) as again:
        assert again.curation
    assert again.recall("stages") == stages


def add_stage(run, part, title, folder, files):
    """Add an artifact that nobody made to what the run used."""
    place = run.store.workdir / folder
    place.mkdir()
    for name, content in files.items():
        (place / name).write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    used = run.recall("stages")
    run.remember("stages", [*used, {"folder": folder, "part": part, "title": title, "counts": {}}])


def made_analysis():
    """An analysis of the documented form that keeps natural weights."""
    weights = dict.fromkeys(DOMAINS, 1 / 3)
    runs = [
        {"name": name, "kind": kind, "seed": seed, "weights": weights, "objective": 0.01 * seed, "diverged": False,
         "losses": dict.fromkeys(DOMAINS, 4.0)}
        for seed, (name, kind) in enumerate(RUNS.items())
    ]  # fmt: skip
    curve = {"tokens": [1024, 4096], "losses": {name: [5.0, 4.0] for name in DOMAINS}}
    line = {"weights": [0.0, 0.5], "objective": [0.1, 0.0], "low": [0.0, -0.1], "high": [0.2, 0.1]}
    scores = {"chosen": True, "mae": dict.fromkeys(DOMAINS, 0.1), "objective_error": 0.02, "rank_correlation": None}
    arm = {"kind": "baseline", "seeds": [1, 2], "pairs": 2, "objective": 0.0, "difference": 0.0, "error": 0.001,
           "weights": weights}  # fmt: skip
    return {
        "chosen": weights, "natural": weights, "optimum": weights, "reason": "natural", "surrogate": "ridge_sqrt",
        "natural_losses": dict.fromkeys(DOMAINS, 4.2), "surrogates": {"ridge_sqrt": scores},
        "matrix": {a: {b: 4.0 if a == b else 5.0 for b in DOMAINS} for a in DOMAINS}, "matrix_bits_per_byte": {},
        "weights_interval": {name: [0.2, 0.5] for name in DOMAINS},
        "arms": [arm | {"name": name} for name in ("natural", "unimax")],
        "curves": {one["name"]: curve for one in runs}, "runs": runs, "notes": ["Nothing beats <natural> weights."],
        "observed_vs_predicted": [{"name": one["name"], "observed": 0.0, "predicted": 0.1} for one in runs],
        "more_runs": {"curve": [[2, 0.1], [3, 0.09]], "expected": {"3": 0.09, "6": 0.08}},
        "tied": {"ranges": {name: [0.1, 0.6] for name in DOMAINS}, "distance": 0.2},
        "learnability": {name: {"natural": 4.2, "alone": 4.0, "gap": 0.05, "falling": None} for name in DOMAINS},
        "dependence": dict.fromkeys(DOMAINS, line),
        "clusters": {"order": list(DOMAINS), "measured": list(DOMAINS), "merges": [[0, 1, 0.1], [3, 2, 0.3]]},
        "objective_noise": {"sd": 0.01, "degrees": 1}, "num_parameters": 42_000, "num_tokens": 4096,
    }  # fmt: skip


def finish(run):
    """Add an ablation, a training, an evaluation and an export that nobody made."""
    add_stage(run, "ablate", "weights", "weights-0000000000000000", {"all.analysis.json": made_analysis()})
    metrics = "step,tokens,loss,gradient_norm,learning_rate,tokens_per_s\n"
    metrics += "10,2560,5.5,0.4,0.01,100\n20,5120,4.5,0.5,0.001,200\n"
    held = "step,position,tokens,domain,loss,bits_per_byte,num_tokens\n"
    for name in DOMAINS:
        held += f"0,0,0,{name},7.0,4.0,512\n20,80,5120,{name},4.25,2.5,512\n"
    files = {"metrics.csv": metrics, "held_out.csv": held}
    add_stage(run, "train", "llama_tiny", "training-0000000000000000", files)
    run.remember("training", {"checkpoint": "step-20", "folder": "training-0000000000000000", "key": "k"})
    losses = [{"domain": name, "loss_nats": 4.25, "bits_per_byte": 2.5, "num_tokens": 512} for name in DOMAINS]
    run.remember("evaluation", {"checkpoint": "step-20", "domains": losses, "key": "k"})
    check = {"continuation": VICIOUS, "logit_difference": 4e-6, "logit_scale": 8.0, "num_parameters": 150_336}
    add_stage(run, "export", "Hugging Face export", "export-0000000000000000", {"export.json": check})


class Page(HTMLParser):
    """What is on a page: tags, ids of figures with their pictures, and everything that asks for something else."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.figures, self.asked, self.words, self.open = [], {}, [], [], None
        self.feed(text)

    def handle_starttag(self, name, attributes):
        found = dict(attributes)
        self.tags.append(name)
        if name == "figure":
            self.open = found["id"].removeprefix("figure-")
            self.figures[self.open] = 0
        if name == "svg" and self.open:
            self.figures[self.open] += 1
        self.asked += [
            value for key, value in found.items() if key in ("src", "href", "srcset", "data") or key.startswith("on")
        ]

    def handle_endtag(self, name):
        self.open = None if name == "figure" else self.open

    def handle_data(self, words):
        self.words.append(words)


CURATED = {
    "times",
    "funnel",
    "perplexity",
    "perplexity-length",
    "overlap-minhash",
    "clusters-minhash",
    "bytes-per-token",
    "domains",
    "plan-shares",
    "plan-course",
    "plan-passes",
    "plan-epochs",
}
TRAINED = {
    "matrix",
    "weights-loss",
    "triangle",
    "dependence",
    "weights",
    "arms",
    "observed-predicted",
    "proxy-curves",
    "more-runs",
    "losses",
    "course",
    "bits-per-byte",
}


def test_report_of_a_finished_run_has_every_picture(opened):
    finish(opened)
    path = write_report(opened)
    page = Page(path.read_text("utf-8"))
    assert page.figures.keys() == CURATED | TRAINED
    assert set(page.figures.values()) == {1}
    assert "not made yet" not in " ".join(page.words).lower()
    assert path.stat().st_size < 1_500_000


def test_report_of_a_planned_run_names_what_is_absent_and_how_to_make_it(opened):
    page = Page(write_report(opened).read_text("utf-8"))
    assert page.figures.keys() >= CURATED
    assert not page.figures.keys() & TRAINED
    said = " ".join(page.words)
    for verb in ("train", "evaluate", "export"):
        assert re.search(rf"Not made yet:\s+gristmill {verb} \S+tiny\.yaml", said), verb


def test_report_before_anything_was_made_names_curation(tmp_path, planned):
    run = Run.open(load_recipe(planned, [f"execution.workdir={tmp_path}"]), silent=True)
    page = Page(write_report(run).read_text("utf-8"))
    assert not page.figures
    assert "gristmill curate" in " ".join(page.words)


def test_texts_of_documents_stay_texts(opened):
    finish(opened)
    text = write_report(opened).read_text("utf-8")
    page = Page(text)
    assert not {"script", "img", "iframe", "link"} & set(page.tags)
    assert VICIOUS in " ".join(page.words)  # the dropped document is shown
    assert "Nothing beats <natural> weights" in " ".join(page.words)


def test_page_asks_for_nothing_but_its_own_tables(opened):
    finish(opened)
    path = write_report(opened)
    asked = [one for one in Page(path.read_text("utf-8")).asked if not one.startswith("#")]
    assert asked
    assert all((path.parent / one).is_file() for one in asked)
    assert "url(" not in path.read_text("utf-8")


def test_report_written_twice_is_the_same_bytes(opened):
    finish(opened)
    path = write_report(opened)
    tables = sorted((path.parent / "report").glob("*.csv"))
    first = [path.read_bytes(), *(table.read_bytes() for table in tables)]
    write_report(opened)
    assert first == [path.read_bytes(), *(table.read_bytes() for table in tables)]


def test_figures_are_drawn_alone_and_unknown_ones_are_answered_with_those_there_are(opened, tmp_path):
    finish(opened)
    written = draw_figures(opened, ["matrix", "dependence"], None, tmp_path / "out")
    assert [path.name for path in written] == ["matrix.svg", "dependence.svg"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"dependence.csv", "cross_domain_losses.tex"}
    with pytest.raises(RunError, match=r"no figure matrx; it has .*matrix"):
        draw_figures(opened, ["matrx"], None, tmp_path / "out")


def test_report_makes_nothing_but_itself(opened):
    def files():
        return {path for path in opened.store.workdir.rglob("*") if path.is_file()}

    before = files()
    path = write_report(opened)
    assert all(one == path or one.parent == path.parent / "report" for one in files() - before)


def test_funnel_table_agrees_with_the_ledger(opened):
    from recipes.ledger.queries import open_ledger

    path = write_report(opened)
    with (path.parent / "report" / "funnel.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    ledger = open_ledger(opened).scan().collect()
    for source in ("de", "en"):
        mine = [row for row in rows if row["source"] == source]
        assert [row["step"] for row in mine] == ["read", "shape", "minhash"]
        kept = ledger.filter((ledger["source"] == source) & ledger["kept"]).height
        assert int(mine[-1]["left"]) == kept
        assert all(int(a["left"]) == int(b["documents that reach it"]) for a, b in pairwise(mine))


def test_bucket_table_counts_the_kept_documents_of_each_bucket(opened):
    from recipes.ledger.queries import open_ledger

    path = write_report(opened)
    with (path.parent / "report" / "perplexity_buckets.csv").open(newline="", encoding="utf-8") as stream:
        found = {row["bucket"]: int(row["documents"]) for row in csv.DictReader(stream)}
    ledger = open_ledger(opened).scan(["de"]).collect()
    kept = ledger.filter(ledger["kept"])["bucket"].to_list()
    assert found == {bucket: kept.count(bucket) for bucket in ("head", "middle", "tail")}


def test_bucket_borders_show_the_nearest_documents_and_moves_every_shorter_order(opened):
    from recipes.ledger.queries import open_ledger

    folder = write_report(opened).parent / "report"
    ledger = open_ledger(opened).scan(["de"]).collect()
    kept = ledger.filter(ledger["kept"] & ledger["perplexity"].is_not_null())
    known = {
        number.hex(): (value, bucket) for number, value, bucket in kept["content_id", "perplexity", "bucket"].rows()
    }
    with (folder / "bucket_borders.csv").open(newline="", encoding="utf-8") as stream:
        borders = list(csv.DictReader(stream))
    for cutoff in (4.0, 5.0):
        shown = [float(row["perplexity"]) for row in borders if float(row["cutoff"]) == cutoff]
        above = sorted(value for value, _ in known.values() if value >= cutoff)
        below = sorted(value for value, _ in known.values() if value < cutoff)
        assert sorted(shown) == [*below[-2:], *above[:2]]
    assert borders
    assert all((float(row["perplexity"]), row["bucket"]) == known[row["content id"]] for row in borders)
    assert all(row["text"] for row in borders)
    with (folder / "buckets_moved.csv").open(newline="", encoding="utf-8") as stream:
        assert "order 1 instead of 2" in [row["what was changed"] for row in csv.DictReader(stream)]
    with (folder / "buckets_by_length.csv").open(newline="", encoding="utf-8") as stream:
        quarters = list(csv.DictReader(stream))
    assert sum(int(row["documents"]) for row in quarters) == len(known)
    assert all(sum(float(row[name]) for name in ("head", "between", "tail")) == pytest.approx(1) for row in quarters)


def test_samples_show_the_value_that_decided(opened):
    path = write_report(opened)
    with (path.parent / "report" / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["reason"] == "too_short"]
    words = {kind: [int(row["values"].removeprefix("word_count = ")) for row in rows if row["what it did"] == kind]
             for kind in ("dropped", "borderline", "kept")}  # fmt: skip
    assert max(words["dropped"]) < 12 <= min(words["borderline"])
    assert max(words["borderline"]) <= min(words["kept"])


def test_bits_per_byte_of_all_domains_are_all_bits_by_all_bytes():
    nats = math.log(2)
    first = {"loss_nats": 4 * nats, "bits_per_byte": 1.0, "num_tokens": 300}  # 1,200 bits, 1,200 bytes
    second = {"loss_nats": 4 * nats, "bits_per_byte": 2.0, "num_tokens": 100}  # 400 bits, 200 bytes
    unknown = {"loss_nats": 9.0, "bits_per_byte": None, "num_tokens": 50}
    assert bits_per_byte([first, second, unknown]) == pytest.approx(1600 / 1400)
    assert bits_per_byte([unknown]) is None


def test_stale_evaluation_is_not_shown(opened):
    finish(opened)
    opened.remember("training", {"checkpoint": "step-40", "folder": "training-0000000000000000", "key": "other"})
    page = Page(write_report(opened).read_text("utf-8"))
    assert "bits-per-byte" not in page.figures
    assert "losses" in page.figures


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not looked at")
def test_page_is_drawn_by_a_browser(opened, tmp_path):
    finish(opened)
    picture = tmp_path / "page.png"
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    url = f"file://{write_report(opened)}"
    subprocess.run([BROWSER, *switches, "--window-size=1200,900", f"--screenshot={picture}", url], check=True,
                   capture_output=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 10_000  # an empty page of this size has some 5 kB


def test_many_domains_get_a_panel_each_and_a_page_that_stays_small(opened):
    finish(opened)
    names = [f"source_{n:02}" for n in range(40)]
    rows = [f"{k},{k},{k}000,{name},{4 + k % 7},1.5,64\n" for k in range(300) for name in names]
    folder = opened.store.workdir / "training-0000000000000000"
    (folder / "held_out.csv").write_text("step,position,tokens,domain,loss,bits_per_byte,num_tokens\n" + "".join(rows))
    path = write_report(opened)
    text = path.read_text("utf-8")
    losses = text[text.index('id="figure-losses"') : text.index('id="figure-course"')]
    assert losses.count('class="panel"') == 40
    assert path.stat().st_size < 1_500_000


# ---------------------------------------------------------------- pictures of plain values


def marks_of(picture, name):
    return [mark for mark in ElementTree.fromstring(str(picture)).iter() if mark.tag.rpartition("}")[2] == name]


def test_stacked_bar_pieces_have_lengths_of_their_values():
    bars = [Bar("a", (Piece(30.0, "k0", "thirty"), Piece(70.0, "k1", "seventy")))]
    boxes = marks_of(stacked_bars(bars, "shares", "%", 100.0), "rect")
    widths = [float(box.get("width")) for box in boxes]
    assert [box.get("class") for box in boxes] == ["k0", "k1"]
    assert widths[1] / widths[0] == pytest.approx(70 / 30, rel=0.02)


def test_curve_with_one_point_is_a_dot():
    assert (
        len(marks_of(curves_over([Curve("a", ((1.0, 2.0),), "k0")], "one", ("x", "y")), "circle")) == 2
    )  # and its name's


def test_picture_of_nothing_is_still_a_picture():
    assert marks_of(curves_over([], "nothing", ("x", "y")), "line")
    assert marks_of(stacked_bars([], "nothing", "%"), "line")


def test_names_of_curves_that_end_early_stand_at_the_right_and_apart():
    early, late = ((0.0, 5.0), (10.0, 1.0)), ((10.0, 1.0), (40.0, 1.1))
    drawn = str(curves_over([Curve("measured", early, "k0"), Curve("expected", late, "k1")], "two", ("x", "y")))
    places = re.findall(r'<text[^>]*x="([\d.]+)"[^>]*y="([\d.]+)"[^>]*>(measured|expected)<', drawn)
    (x0, y0, _), (x1, y1, _) = places
    assert x0 == x1
    assert abs(float(y0) - float(y1)) >= 13.9


def test_thinned_curve_keeps_its_ends_and_a_single_jump():
    points = [(float(x), 9.0 if x == 617 else 0.0) for x in range(1000)]
    kept = thinned(points, 10)
    assert len(kept) <= 10
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert (617.0, 9.0) in kept
    assert kept == sorted(kept)


def test_ticks_are_round_numbers_inside_the_range():
    assert ticks(0.0, 100.0) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.12, 0.31, 4) == [0.15, 0.2, 0.25, 0.3]
    assert log_ticks(1.0, 1000.0) == [1, 3, 10, 30, 100, 300, 1000]


def test_log_scale_puts_the_geometric_mean_in_the_middle():
    assert Scale(1.0, 100.0, 0.0, 10.0, log=True).at(10.0) == pytest.approx(5.0)


@given(st.lists(st.floats(0, 100), max_size=9))
def test_names_are_set_apart_in_order(places):
    moved = apart(places, 10.0, 0.0, 100.0)
    order = sorted(range(len(places)), key=lambda i: places[i])
    gaps = [moved[b] - moved[a] for a, b in pairwise(order)]
    assert all(gap >= 10.0 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= 100.0 + 1e-9 for place in moved)


def test_names_far_apart_stay_where_they_are():
    assert apart([5.0, 50.0, 90.0], 10.0, 0.0, 100.0) == [5.0, 50.0, 90.0]


def test_tag_escapes_what_is_no_markup():
    assert tag("p", "<b>", title='"&') == '<p title="&#34;&amp;">&lt;b&gt;</p>'


def test_shown_values_say_when_nothing_is_known():
    assert [shown(None, "loss"), shown(float("nan"), "share"), shown(0.0001, "share"), shown(-0.5, "change")] == [
        "–", "–", "<0.1 %", "−50.00 %",
    ]  # fmt: skip
    assert shown(math.log(0.5), "log_change") == "−50.00 %"


def test_long_table_shows_its_head_and_names_the_rest():
    table = Table("many", (Column("n", "count"),), tuple((n,) for n in range(10)), head=3)
    assert str(table.html()).count("<tr>") == 4
    assert "7 more rows" in str(table.html())
    assert len(table.records()) == 11
