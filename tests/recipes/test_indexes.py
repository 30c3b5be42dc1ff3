"""Indexes across runs by the command line: published, matched against, told of, refused."""

import json
import os
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

from recipes.curating.indexes import Publication
from recipes.curating.overlap import resolve_names
from recipes.errors import RunError
from recipes.schema.recipe import load_recipe

RECIPE = """
sources:
  SOURCE: {path: "SOURCE/*.jsonl", language: de, licence: CC0-1.0}
steps:
  - dedup: {preset: minhash, max_drop: 1, index: INDEX}
execution: {raw: raw, workdir: work, workers: 1}
"""
WORDS = "das ist ein Satz mit vielen Worten und jeder davon steht hier nur ein einziges Mal"


def text_of(number):
    return " ".join(f"{word}{number}" for word in WORDS.split())


def write(folder, name, numbers, index):
    """A source of made documents and the recipe of its run."""
    lines = [json.dumps({"text": text_of(number), "id": f"{name}-{number}"}) + "\n" for number in numbers]
    (folder / "raw" / name).mkdir(parents=True, exist_ok=True)
    (folder / "raw" / name / "part.jsonl").write_text("".join(lines))
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.replace("SOURCE", name).replace("INDEX", index))
    return path


@pytest.fixture(scope="module")
def published(gristmill, tmp_path_factory):
    """Two dumps, the second matched against the first; the folder with both recipes."""
    folder = tmp_path_factory.mktemp("indexes")
    gristmill("curate", write(folder, "old", range(6), "{publish: web}"))
    gristmill("curate", write(folder, "new", range(4, 9), "{against: [web@1], publish: web}"))
    return folder


def test_second_dump_is_published_with_its_parent_and_licences(published):
    first, second = (json.loads((published / "work/indexes/web" / f"00000{n}.json").read_text()) for n in (1, 2))
    assert (first["documents"], second["documents"], second["added"]) == (6, 9, 3)
    assert (second["parent"], second["parent_hash"]) == ("web@1", first["hash"])
    assert second["sources"]["new"]["licences"] == {"CC0-1.0": 3}
    assert first["config"]["compares"] == "shingles"


def test_why_inspect_and_counts_tell_what_an_index_has(published, gristmill_here):
    recipe = published / "new.yaml"
    assert (
        "stands in index web@1 as old old/part.jsonl row 4, similarity 1.00"
        in gristmill_here("why", recipe, "new-4").out
    )
    shown = json.loads(gristmill_here("inspect", recipe, "minhash", "--json").out)
    assert [(one["reason"], one["index"]) for one in shown] == [("in_index", "web@1")] * 2
    (fate,) = json.loads(gristmill_here("why", recipe, "new-5", "--json").out)
    assert fate["reason"] == "minhash.in_index"


def test_same_run_again_publishes_nothing(published, gristmill):
    before = sorted(path.name for path in (published / "work/indexes/web").iterdir())
    assert "web@2: 9 documents (3 added, 0 removed)" in (said := gristmill("curate", published / "new.yaml").err)
    assert "published before" in said
    assert sorted(path.name for path in (published / "work/indexes/web").iterdir()) == before


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{against: [wbe@1]}", "did you mean web@2"),
        ("{against: [web@5]}", "web has versions 1, 2"),
        ("{publish: web}", "index web@2 is there and was made from something else"),
        ("{against: [web@1], publish: web}", "what continues web@1 cannot follow it"),
    ],
)
def test_index_that_does_not_fit_is_refused_before_anything_runs(published, gristmill_here, index, said):
    path = write(published, "third", range(3), index)
    error = gristmill_here("show", path, code=2) if "publish" not in index else None
    error = error or gristmill_here("curate", path, code=2)
    assert said in error.err
    assert "third.yaml:5" in error.err


def test_index_of_another_config_is_refused_with_both(published, gristmill_here):
    path = write(published, "other", range(3), "{against: [web@1]}, bands: 9, rows: 13")
    said = gristmill_here("show", path, code=2).err
    assert '"bands": 14' in said
    assert '"bands": 9' in said


def test_two_steps_that_publish_one_index_are_refused_with_both_lines(tmp_path, gristmill_here):
    path = write(tmp_path, "old", range(3), "{publish: web}")
    second = "  - dedup: {preset: exact, name: second, index: {publish: web}}\nexecution"
    path.write_text(path.read_text().replace("execution", second))
    said = gristmill_here("curate", path, code=2).err
    assert "old.yaml:5" in said
    assert "old.yaml:6" in said
    assert "minhash would publish the same version" in said


def test_version_published_meanwhile_ends_a_run_with_a_message(published):
    """The work is done when another run takes the number: the error is for people, and what was made is kept."""
    index = SimpleNamespace(workdir=published / "work", reuse=())
    run = SimpleNamespace(publishes=True, remembers=True, store=index)
    made = next((published / "work").glob("minhash.index-*"))
    stage = SimpleNamespace(folder=SimpleNamespace(path=made, name="of another run"))
    with pytest.raises(RunError, match=r"web@2 is there and was made from something else.* What was made is kept"):
        Publication("web", None, stage, {}, {}).publish(run)


@pytest.mark.slow
def test_run_killed_while_it_publishes_resumes_to_the_same_version(published, gristmill, start, tmp_path):
    """Killed at twelve moments around the last stages: no half version is ever seen, and the end is the same."""
    write(tmp_path, "old", range(6), "{publish: web}")
    wanted = (published / "work/indexes/web/000001.json").read_bytes()
    place = tmp_path / "work" / "indexes" / "web"
    for number in range(12):
        process = start("curate", tmp_path / "old.yaml", start_new_session=True)
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end and not any((tmp_path / "work").glob("*duplicates*")):
            time.sleep(0.01)
        time.sleep(0.15 * number)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if (place / "000001.json").exists():
            assert (place / "000001.json").read_bytes() == wanted
    gristmill("curate", tmp_path / "old.yaml")
    assert (place / "000001.json").read_bytes() == wanted
    assert sorted(path.name for path in place.glob("0*")) == sorted(
        path.name for path in (published / "work/indexes/web").glob("000001*")
    )


def test_overlap_counts_sources_and_indexes_and_shows_what_they_share(published, gristmill):
    """`new` has 5 documents, 2 of them in web@1 and all in web@2; nothing of it stands in `old` alone but these two."""
    said = gristmill("overlap", published / "new.yaml", "new", "web@1", "web@2", "--json", "--csv", published / "o.csv")
    found = json.loads(said.out)
    cells = {(cell["of"], cell["in"]): (cell["exact"], cell["near"]) for cell in found["overlap"]}
    assert cells["new", "web@1"] == (2, 0)
    assert cells["new", "web@2"] == (5, 0)
    assert cells["web@1", "new"] == (2, 0)
    assert cells["web@1", "web@2"] == (6, 0)
    (shown, _) = [pair for pair in found["pairs"] if (pair["of"], pair["in"]) == ("new", "web@1")]
    assert shown["documents"][1]["index"] == "web@1"
    assert shown["documents"][1]["source"] == "old"
    assert shown["common"].startswith("das")
    shown = gristmill("overlap", published / "new.yaml", "new", "web@1", "web@2").out
    assert "2 of 5 documents of new in web@1, 40.0 % of its text: 2 exact, 0 near" in shown
    assert "~  " in shown.partition("2 of 5 documents of new in web@1")[2].partition("documents of new in web@2")[0]
    assert "new,web@1,5,2,0,0.4,0.4," in (published / "o.csv").read_text()


@pytest.mark.parametrize(
    ("name", "said"), [("nwe", "did you mean new"), ("web@9", "web has versions 1, 2"), ("wbe@1", "did you mean web@2")]
)
def test_overlap_answers_unknown_names(published, gristmill_here, name, said):
    error = gristmill_here("overlap", published / "new.yaml", name, code=None)
    assert error.code != 0
    assert said in error.err


def test_overlap_compares_sources_of_text_only(tmp_path):
    """Ready tokens beside text: all names mean the text, and a name that means tokens is told."""
    path = write(tmp_path, "new", range(3), "{publish: web}")
    tokens = 'sources:\n  ready: {path: "*.bin", format: megatron, language: de}'
    path.write_text(path.read_text().replace("sources:", tokens))
    run = SimpleNamespace(recipe=load_recipe(path), store=SimpleNamespace(workdir=tmp_path, reuse=()))
    assert resolve_names(run, []) == (("new",), ())
    assert resolve_names(run, ["*"]) == (("new",), ())
    with pytest.raises(RunError, match="'ready' is ready tokens, which have no text to compare"):
        resolve_names(run, ["ready"])


def test_index_in_a_read_only_store_is_not_continued_elsewhere(published, gristmill_here):
    """A version beside its parents' store would hide them: none of the chain could be read any more."""
    recipe = published / "reader.yaml"
    recipe.write_text((published / "new.yaml").read_text().replace("workdir: work", "workdir: own, reuse: [work]"))
    (document,) = json.loads(gristmill_here("index", recipe, "web@2", "--find", text_of(3), "--json").out)
    refused = gristmill_here("index", recipe, "web@2", "--remove", document["content_id"], code=None)
    assert "web@2 lies in the read-only store" in refused.err
    assert not (published / "own" / "indexes").exists()
    assert "web@2" in gristmill_here("index", recipe, "web@2").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--remove-source", "new", "--remove-source", "typo*"],
            "no document of a source typo*; nothing was",
        ),
        (["--remove-source", "new", "--check"], "one in each command"),
    ],
)
def test_removal_that_cannot_be_meant_publishes_nothing(published, gristmill_here, options, said):
    refused = gristmill_here("index", published / "new.yaml", "web@2", *options, code=None)
    assert refused.code != 0
    assert said in refused.err
    assert not (published / "work/indexes/web/000003.json").exists()


def test_index_verb_lists_finds_checks_and_takes_out(published, gristmill_here):
    recipe = published / "new.yaml"
    listed = json.loads(gristmill_here("index", recipe, "--json").out)
    assert [(one["name"], one["version"], one["documents"]) for one in listed] == [("web", 1, 6), ("web", 2, 9)]
    near = f"{text_of(3)} und noch etwas"
    (found,) = json.loads(gristmill_here("index", recipe, "web@2", "--find", near, "--json").out)
    assert (found["source"], found["row"]) == ("old", 3)
    assert 0.7 < found["similarity"] < 1
    (same,) = json.loads(gristmill_here("index", recipe, "web@2", "--find", found["content_id"][:10], "--json").out)
    assert same["content_id"] == found["content_id"]
    assert "as it was published" in gristmill_here("index", recipe, "web@2", "--check").out
    unknown = gristmill_here("index", recipe, "web@2", "--remove", "0" * 32, code=None)
    assert "has no document 0000" in unknown.err

    # On a copy, so that the other tests find the two versions alone.
    copy = published.parent / f"{published.name}-copy"
    shutil.copytree(published, copy)
    out = gristmill_here(
        "index", copy / "new.yaml", "web@2", "--remove", found["content_id"], "--remove-source", "new"
    ).out
    assert "web@3  5 documents (0 added, 4 removed) after web@2" in out
    assert "no such document" in gristmill_here("index", copy / "new.yaml", "web@3", "--find", near).out
    assert (
        "web@3"
        in gristmill_here(
            "index", copy / "new.yaml", "web@2", "--remove", found["content_id"], "--remove-source", "new"
        ).out
    )
