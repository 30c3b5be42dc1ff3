"""Figures of weights against loss, the tree beside the matrix, and figures as files of their own."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from recipes.report.ablation import ablation_section
from recipes.report.grids import Cell, heat_map
from recipes.report.markup import Figure
from recipes.report.mixtures import groups_of, mixture_figures
from recipes.report.one_pass import one_pass_figures
from recipes.report.standalone import mixed, style, svg_of

NATURAL = {"de_law": 0.3, "de_wiki": 0.2, "zh_law": 0.3, "en_books": 0.2}
SVG = "{http://www.w3.org/2000/svg}"


class FakeRecord:
    """A run with sources in three languages."""

    class recipe:
        sources = {  # noqa: RUF012
            name: type("Source", (), {"language": name[:2]})() for name in NATURAL
        }

    @staticmethod
    def command(verb, *more):
        return " ".join(["gristmill", verb, "r.yaml", *more])


def run(name, objective, **weights):
    """A run of an analysis."""
    return {
        "name": name,
        "kind": "dirichlet",
        "objective": objective,
        "weights": {**dict.fromkeys(NATURAL, 0.0), **weights},
    }


FOUND = {
    "natural": NATURAL,
    "optimum": {"de_law": 0.1, "de_wiki": 0.4, "zh_law": 0.3, "en_books": 0.2},
    "surrogate": "ridge_sqrt",
    "runs": [
        run("corner", 0.05, de_law=0.5, de_wiki=0.5),
        run("middle", -0.02, de_law=0.25, de_wiki=0.25, zh_law=0.25, en_books=0.25),
        run("half", 0.01, zh_law=0.5, en_books=0.5),
    ],
    "dependence": {
        "de_law": {
            "weights": [0.0, 0.1, 0.5], "objective": [0.02, 0.0, 0.01],
            "low": [0.01, -0.01, 0.0], "high": [0.03, 0.01, 0.04],
        }
    },
}  # fmt: skip


def drawn(name, **options):
    """A figure of the made analysis by name."""
    return next(figure for figure in mixture_figures(FakeRecord, FOUND, **options) if figure.name == name)


def test_groups_are_the_languages_and_a_users_own_where_given():
    assert groups_of(FakeRecord, FOUND, None) == {"de": ["de_law", "de_wiki"], "zh": ["zh_law"], "en": ["en_books"]}
    own = groups_of(FakeRecord, FOUND, {"law": "*_law", "books": "*_books", "rest": "*"})
    assert own == {"law": ["de_law", "zh_law"], "books": ["en_books"], "rest": ["de_wiki"]}


def test_triangle_puts_a_run_of_one_group_on_its_corner_and_an_even_one_where_its_shares_say():
    tree = ElementTree.fromstring(f"<div>{drawn('triangle').picture}</div>")
    places = {}
    for circle in tree.iter(f"{SVG}circle"):
        told = circle.find(f"{SVG}title").text.partition(":")[0]
        places[told] = (float(circle.get("cx")), float(circle.get("cy")))
    corners = re.findall(r'd="M([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)L', drawn("triangle").picture)
    top, left, right = ((float(x), float(y)) for x, y in zip(corners[-1][::2], corners[-1][1::2], strict=True))
    assert places["corner"] == pytest.approx(top, abs=0.2)
    assert places["half"] == pytest.approx([(a + b) / 2 for a, b in zip(left, right, strict=True)], abs=0.2)
    middle = [0.5 * a + 0.25 * b + 0.25 * c for a, b, c in zip(top, left, right, strict=True)]
    assert places["middle"] == pytest.approx(middle, abs=0.2)


def test_best_run_is_the_bluest_and_the_worst_the_reddest():
    styles = re.findall(r"stroke: color-mix\(in oklab, var\((--\w+)\) (\d+)%", drawn("weights-loss").picture)
    assert styles[0] == ("--warm", "100")  # drawn first, behind the others
    assert styles[-1] == ("--cool", "100")


def test_run_of_twice_the_loss_is_told_and_drawn_as_twice_the_loss():
    runs = [*FOUND["runs"], run("bad", math.log(2.0), en_books=1.0), run("good", math.log(0.5), zh_law=1.0)]
    (figure,) = (f for f in mixture_figures(FakeRecord, FOUND | {"runs": runs}) if f.name == "weights-loss")
    tree = ElementTree.fromstring(f"<div>{figure.picture}</div>")
    told = {path.find(f"{SVG}title").text: path for path in tree.iter(f"{SVG}path") if path.get("class") == "run"}
    heights = {}
    for sentence, path in told.items():
        name, _, change = sentence.partition(" (")[0].partition(": ")
        heights[change if name in ("bad", "good") else name] = float(path.get("d").rpartition(" ")[2])
    ticks = {
        text.text: float(text.get("y")) - 4 for text in tree.iter(f"{SVG}text") if re.fullmatch(r"[+-]?\d+", text.text)
    }
    assert heights["+100.00%"] == pytest.approx(ticks["+100"], abs=0.2)
    assert heights["-50.00%"] == pytest.approx(ticks["-50"], abs=0.2)


def test_optimum_beyond_all_runs_stays_inside_the_axes():
    optimum = {"de_law": 0.9, "de_wiki": 0.1, "zh_law": 0.0, "en_books": 0.0}
    (figure,) = (f for f in mixture_figures(FakeRecord, FOUND | {"optimum": optimum}) if f.name == "weights-loss")
    tree = ElementTree.fromstring(f"<div>{figure.picture}</div>")
    places = [float(circle.get("cy")) for circle in tree.iter(f"{SVG}circle") if circle.get("class") == "mark-optimum"]
    axes = [float(line.get("y1")) for line in tree.iter(f"{SVG}line") if line.get("class") == "axis"]
    assert len(places) == 4
    assert min(places) >= min(axes)


def test_dependence_draws_the_band_and_the_natural_weight():
    picture = drawn("dependence").picture
    assert picture.count('class="band k0"') == 1
    assert picture.count('class="cut"') == 1


def test_tree_beside_a_heat_map_joins_rows_at_their_height():
    cells = [[Cell("1", 0.0, "")] * 3] * 3
    picture = heat_map("abc", "abc", cells, "", ("r", "c"), [(0, 1, 0.1), (3, 2, 0.4)])
    paths = re.findall(r'd="([^"]+)" class="branch"', picture)
    first, second = ([float(x) for x in re.findall(r"[ML]([0-9.]+) ", path)] for path in paths)
    start = first[0]
    assert (second[1] - start) == pytest.approx(4 * (first[1] - start), abs=0.3)


def test_figure_alone_names_every_colour_and_keeps_the_legend():
    for name in ("weights-loss", "triangle", "dependence"):
        text = svg_of(drawn(name))
        ElementTree.fromstring(text)
        assert "var(" not in text
        assert "color-mix" not in text
    assert "better than natural weights" in svg_of(drawn("triangle"))
    assert re.search(r"\.dot\.k3 \{[^}]*fill: #d69300", style())


def test_figure_alone_of_several_pictures_stacks_them():
    one = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50"><text>{}</text></svg>'
    whole = ElementTree.fromstring(svg_of(Figure("f", "T", "", one.format("a") + one.format("b"), "c")))
    assert whole.get("viewBox") == "0 0 120 130"


def test_mixed_colours_have_their_ends_and_a_known_middle():
    assert mixed("#2a78d6", "#eeece7", 1.0) == "#2a78d6"
    assert mixed("#2a78d6", "#eeece7", 0.0) == "#eeece7"
    assert mixed("#fff", "#000", 0.5) == "#636363"  # CSS Color 4: oklab(50% 0 0)


def test_section_of_an_analysis_from_a_table_has_its_figures():
    found = {
        **FOUND,
        "chosen": NATURAL,
        "reason": "natural",
        "notes": ["A note."],
        "num_parameters": 0,
        "num_tokens": 0,
    }
    section = ablation_section(
        FakeRecord, {**found, "runs": [{**r, "seed": 0, "diverged": False, "losses": {}} for r in FOUND["runs"]]}
    )
    assert {"weights-loss", "triangle", "dependence", "weights"} <= {figure.name for figure in section.figures}
    assert section.lead.startswith("3 proxies. Natural weights stay")


def test_table_of_one_pass_is_whole_where_its_picture_is_cut():
    names = [f"d{k:02}" for k in range(34)]
    curve = {"tokens": [100], "losses": {name: [1.0] for name in names}}
    passes = {name: {"tokens": 100, "losses": dict.fromkeys(names, 1.0), "curve": curve} for name in names}
    grid, _ = one_pass_figures(FakeRecord, {"one_pass": passes})
    assert len(grid.table.rows) == 34 * 34
    assert "d31" in grid.picture
    assert "d32" not in grid.picture
    assert "the table has all" in grid.reading


def test_one_pass_is_coloured_by_its_difference_to_equal_tokens():
    curve = {"tokens": [100, 200], "losses": {"a": [5.0, 4.0], "b": [6.0, 5.5]}}
    short = {"tokens": [100], "losses": {"a": [6.0], "b": [5.0]}}
    passes = {
        "a": {"tokens": 200, "losses": {"a": 4.0, "b": 5.5}, "curve": curve},
        "b": {"tokens": 100, "losses": {"a": 6.0, "b": 5.0}, "curve": short},
    }
    matrix = {"a": {"a": 4.5, "b": 5.5}, "b": {"a": 5.5, "b": 5.0}}
    grid, curves = one_pass_figures(FakeRecord, {"one_pass": passes, "matrix": matrix})
    assert "a (200)" in grid.picture
    colours = re.findall(r"var\((--cool|--warm)\) (\d+)%", grid.picture)
    assert colours == [("--cool", "72"), ("--warm", "0"), ("--warm", "72"), ("--warm", "0")]
    assert curves.picture.count('class="curve') == 2  # the proxy of b was measured once: a dot
    assert [row[3] for row in grid.table.rows] == [4.0, 5.5, 6.0, 5.0]
