"""`ablate --runs` of somebody else's table: whose weights are natural, and what is said of it."""

import json

import numpy as np
import pytest

RECIPE = """
sources: {web: {path: web.jsonl, language: en}}
"""


@pytest.fixture
def foreign(tmp_path):
    """A recipe of other sources, and a table of eleven mixtures of two domains, the first twice."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "web.jsonl").write_text('{"text": "a"}\n')
    chance = np.random.default_rng(0)
    lines = ["kind,w:Pile CC,w:arXiv/x,loss:Pile CC"]
    for number, share in enumerate([0.5, 0.5, *np.linspace(0.05, 0.95, 10)]):
        loss = 3 - 0.5 * share**0.5 + 0.002 * chance.standard_normal()
        lines.append(f"{'KIND' if number < 2 else 'dirichlet'},{share},{1 - share},{loss}")

    def written(kind):
        (tmp_path / "t.csv").write_text("\n".join(lines).replace("KIND", kind) + "\n")
        return tmp_path / "r.yaml", "--runs", tmp_path / "t.csv", "--json"

    return written


def test_natural_weights_are_those_of_the_tables_natural_runs(foreign, gristmill_here):
    found = json.loads(gristmill_here("ablate", *foreign("natural")).out)
    assert found["natural"] == {"Pile CC": 0.5, "arXiv/x": 0.5}
    assert found["objective_noise"]["degrees"] == 1  # without a column of seeds two rows of a mixture are two seeds
    assert found["notes"][-1].startswith("Natural weights are those of the table's natural runs; their supply")


def test_table_without_natural_runs_says_that_even_weights_stand_for_them(foreign, gristmill_here):
    found = json.loads(gristmill_here("ablate", *foreign("other")).out)
    assert found["natural"] == {"Pile CC": 0.5, "arXiv/x": 0.5}
    assert "even weights stand for natural ones (`--natural FILE` names others)" in found["notes"][-1]


def test_natural_weights_of_a_file_stand_for_the_tables(foreign, gristmill_here, tmp_path):
    weights = tmp_path / "nat.csv"
    weights.write_text("domain,weight\nPile CC,70\narXiv/x,30\n")
    found = json.loads(gristmill_here("ablate", *foreign("natural"), "--natural", weights).out)
    assert found["natural"] == pytest.approx({"Pile CC": 0.7, "arXiv/x": 0.3})
    assert any(note.startswith("Runs called natural have other weights") for note in found["notes"])
    assert found["notes"][-1].startswith("Natural weights are those of nat.csv")
    weights.write_text("domain,weight\nPile CC,70\n")
    refused = gristmill_here("ablate", *foreign("natural"), "--natural", weights, code=1)
    assert "no weight names arXiv/x" in refused.err


def test_weights_and_losses_in_two_files_say_the_same_as_in_one(foreign, gristmill_here, tmp_path):
    wanted = json.loads(gristmill_here("ablate", *foreign("natural")).out)
    rows = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()]
    rows[0] = ["kind", "Pile CC", "arXiv/x", "Pile CC"]
    weights, losses = tmp_path / "ratios.csv", tmp_path / "metrics.csv"
    names = ["run", *(f"run.{number:03}" for number in range(len(rows) - 1))]
    weights.write_text("".join(f"{','.join([name, *row[:3]])}\n" for name, row in zip(names, rows, strict=True)))
    losses.write_text("".join(f"{name},{row[3]}\n" for name, row in zip(names, rows, strict=True)))
    found = gristmill_here("ablate", tmp_path / "r.yaml", "--runs", weights, "--losses", losses, "--json")
    assert json.loads(found.out) == wanted
    alone = gristmill_here("ablate", tmp_path / "r.yaml", "--losses", losses, code=2)
    assert "--losses goes with --runs" in alone.err
    weights_alone = gristmill_here("ablate", tmp_path / "r.yaml", "--runs", weights, code=1)
    assert "losses in a file of their own are named by --losses FILE" in weights_alone.err


def test_natural_weights_of_a_file_go_with_a_table_alone(foreign, gristmill_here, tmp_path):
    (tmp_path / "nat.csv").write_text("domain,weight\nweb,1\n")
    refused = gristmill_here("ablate", foreign("natural")[0], "--natural", tmp_path / "nat.csv", code=2)
    assert "--natural goes with --runs" in refused.err
