"""Two recipes of one file name and one work directory never answer for each other."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from recipes.cli.main import gristmill as verbs
from recipes.errors import RunError
from recipes.run_names import claim_name, refuse_other_recipe
from recipes.schema.recipe import load_recipe

RECIPE = "sources: {%s: {path: in.jsonl, language: de}}\nexecution: {workdir: ../work, workers: 1}\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write `FOLDER/r.yaml` with a source and its text beside it."""
    monkeypatch.chdir(tmp_path)

    def write(folder, source="web"):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "in.jsonl").write_text(f'{{"text": "ein Satz von {folder}"}}\n')
        Path(folder, "r.yaml").write_text(RECIPE % source)
        return Path(folder, "r.yaml")

    return write


def called(*arguments):
    return CliRunner().invoke(verbs, [str(one) for one in arguments])


def test_another_recipe_of_the_same_name_is_refused_by_what_makes_and_what_looks(written):
    one, other = written("p", "first"), written("q", "second")
    assert called("curate", one).exit_code == 0
    for verb in (("curate",), ("why", "Satz"), ("inspect", "read"), ("report",)):
        told = str(called(verb[0], other, *verb[1:]).exception)
        assert told.startswith(f"{other}: runs/r in ")
        assert f"belongs to {one.resolve()}, another recipe of the same file name" in told
    assert not list(Path("work").glob("second.*"))
    assert called("why", one, "Satz").exit_code == 0
    other.rename("q/s.yaml")
    assert "not curated yet" in str(called("why", "q/s.yaml", "Satz").exception)


def test_name_is_shared_by_checkouts_and_passes_on_when_its_file_is_gone(written, tmp_path):
    folder = tmp_path / "work" / "runs" / "r"
    folder.mkdir(parents=True)
    raw = f"execution.raw={tmp_path / 'p'}"
    one, other = load_recipe(written("p"), (raw,)), load_recipe(written("q"), (raw,))
    claim_name(folder, one)
    claim_name(folder, other)  # a checkout of the same over the same text: the name stays where it was
    refuse_other_recipe(folder, one)
    refuse_other_recipe(folder, other)
    with pytest.raises(RunError, match="belongs to"):  # the same words, but text of its own beside it
        refuse_other_recipe(folder, load_recipe("q/r.yaml"))
    Path("q/r.yaml").write_text(RECIPE % "web" + "seed: 2\n")
    changed = load_recipe("q/r.yaml", (raw,))
    with pytest.raises(RunError, match=r"belongs to .*p/r\.yaml"):
        refuse_other_recipe(folder, changed)
    shutil.copytree("work", "copied/work")  # a project that was copied is its own
    refuse_other_recipe(tmp_path / "copied" / "work" / "runs" / "r", changed)
    Path("p/r.yaml").unlink()
    refuse_other_recipe(folder, changed)
    claim_name(folder, changed)
    written("p")
    with pytest.raises(RunError, match=r"belongs to .*q/r\.yaml"):
        refuse_other_recipe(folder, one)
