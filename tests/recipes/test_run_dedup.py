"""All kinds of dedup in one recipe, run whole: what the ledger tells, any number of workers, a kill in each stage."""

import json
import re
import signal
import time

import pytest

from recipes.texts.made_text import made_lines

RECIPE = """
seed: 1
sources:
  web: {path: "web/*.jsonl", language: de}
  wiki: {path: "wiki/*.jsonl", language: de}
steps:
  - dedup: {preset: exact, normalize: words}
  - dedup: {preset: paragraphs_keep_first, name: lines, normalize: raw, min_words: 3, keep: [{source: wiki}]}
  - dedup: {preset: substring, name: spans, shingle: {words: 20}}
  - dedup: {preset: minhash, name: near, shingle: {words: 3}, bands: 20, rows: 4, verify: 0.6, keep: [{source: wiki}]}
tokenizer: {algorithm: byte_bpe, vocabulary: 600}
schedule: [{name: main, tokens: 16K, weights: natural}]
model: {preset: llama_tiny, context: 64}
training: {batch: 16 sequences}
"""
NOTICE = " ".join(f"Hinweis{number}" for number in range(25))
IMPRINT = "Alle Rechte bei der Redaktion dieser Zeitung"
NEAR = " ".join(f"wort{number}" for number in range(18))
PLANTED = {
    "web": [
        ("copy", "Ein kurzer Satz, der zweimal im Netz steht."),
        ("imprint", f"Was nur hier steht, und sonst nirgends.\n{IMPRINT}"),
        ("notice", f"Davor steht dies hier allein im Text. {NOTICE} Und danach steht noch etwas ganz anderes da."),
        ("near", f"{NEAR} ende"),
    ],
    "wiki": [
        ("first", "EIN KURZER SATZ der zweimal im Netz steht"),
        ("kept imprint", f"{IMPRINT}\nEin anderer Anfang, der bleibt."),
        ("kept notice", f"Am Anfang des Artikels steht ein Satz für sich. {NOTICE} Am Ende."),
        ("best", f"{NEAR} schluss"),
    ],
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    lines = list(made_lines("made_de", num_documents=120))
    for name, start in (("web", 0), ("wiki", 60)):
        (folder / name).mkdir()
        planted = [json.dumps({"id": f"{name} {who}", "text": text}).encode() + b"\n" for who, text in PLANTED[name]]
        for shard in (0, 1):
            some = lines[start + shard : start + 60 : 2]
            (folder / name / f"{shard}.jsonl").write_bytes(b"".join([*planted[shard::2], *some]))
    return folder


@pytest.fixture(scope="module")
def curated(raw, tmp_path_factory, gristmill):
    folder = tmp_path_factory.mktemp("curated")
    recipe = write_recipe(folder, raw, workers=1)
    gristmill("curate", recipe)
    return recipe


def write_recipe(folder, raw, workers):
    path = folder / "dedup.yaml"
    path.write_text(f"{RECIPE}execution: {{raw: {raw}, workdir: {folder / 'work'}, workers: {workers}}}\n")
    return path


@pytest.mark.parametrize(
    ("document", "verdict", "said"),
    [
        ("wiki first", "dropped: exact.duplicate", r"exact: duplicate of web web/0.jsonl row 0.*by first"),
        ("web imprint", "kept", "lines: lost 1 paragraph that stand"),
        ("wiki kept imprint", "kept", "lines: lost no paragraph"),
        ("web notice", "kept", "spans: lost no span"),
        ("wiki kept notice", "kept", r"spans: lost 240 characters; the longest piece stays in web web/0.jsonl row 1"),
        ("web near", "dropped: near.duplicate", r"of wiki wiki/1.jsonl row 1, similarity 0.\d\d; 2 .*source"),
        ("wiki best", "kept", "near: stays of a cluster of 2, by source: wiki"),
    ],
)  # fmt: skip
def test_why_tells_what_each_dedup_did(gristmill_here, curated, document, verdict, said):
    shown = gristmill_here("why", curated, document).out
    assert shown.splitlines()[0].endswith(verdict)
    assert re.search(said, shown), shown


def test_inspect_of_a_step_that_cuts_text_shows_the_most_cut_documents(gristmill_here, curated):
    shown = gristmill_here("inspect", curated, "spans").out
    assert "wiki  spans  240 characters cut; documents it cut: 1" in shown
    found = json.loads(gristmill_here("inspect", curated, "lines", "--source", "web", "--number", "99", "--json").out)
    paragraphs = [one for one in found if one["kind"] == "cut"]
    assert {(one["source"], one["unit"]) for one in paragraphs} == {("web", "paragraphs")}
    removed = [one["removed"] for one in paragraphs]
    assert removed == sorted(removed, reverse=True)
    assert sum(removed) == paragraphs[0]["removed_in_all"]
    # all lines of this one stand elsewhere, and the blank lines between them are no text
    assert "wiki  lines.emptied  dropped" in gristmill_here("inspect", curated, "lines.emptied").out
    assert gristmill_here("inspect", curated, "spans.emptied").out == "spans.emptied: dropped no row\n"


def test_curate_says_how_many_documents_each_dedup_dropped(gristmill_here, curated):
    said = gristmill_here("curate", curated).err
    dropped = json.loads(gristmill_here("inspect", curated, "exact", "--number", "500", "--json").out)
    assert re.search(rf"exact duplicates +128 rows, {len(dropped)} dropped +reused", said), said
    assert re.search(r"wiki: spans +\d+ documents, text -\d+\.\d % +reused", said), said


EDITED = """
sources:
  x: {path: "x/*.jsonl", language: de}
  y: {path: "y/*.jsonl", language: de}
steps:
  - clean: {preset: web, sources: [x]}
  - dedup: {preset: exact, max_drop: 1}
  - dedup: {preset: paragraphs_keep_first, name: lines}
  - dedup: {preset: minhash, name: near, shingle: {words: 2}, bands: 30, rows: 2, max_drop: 1, keep: [newest, longest]}
execution: {raw: raw, workdir: work, workers: 1}
"""


def test_steps_behind_an_edit_look_at_the_edited_text(tmp_path, gristmill, gristmill_here):
    """Blanks that `clean` takes off neither part exact copies nor make the longest; dates are compared as dates."""
    some = " ".join(f"anders{number}" for number in range(12))
    texts = {
        "x": {
            "copy": (f"   {NEAR} " + " " * 90, None), "blanks": (" " * 900 + some, "gestern"),
            "old": (f"{NOTICE} eins", "31.12.2018"), "line": ("Zwei Zeilen ohne alles.", None),
        },
        "y": {
            "first": (NEAR, None), "longer": (f"{some} und noch mehr", None),
            "new": (f"{NOTICE} zwei", "2024-01-02"), "frame": ("\n \nZwei Zeilen ohne alles.\n\n", None),
        },
    }  # fmt: skip
    for source, rows in texts.items():
        (tmp_path / "raw" / source).mkdir(parents=True)
        lines = [json.dumps({"id": name, "text": text, "date": date}) for name, (text, date) in rows.items()]
        (tmp_path / "raw" / source / "a.jsonl").write_text("\n".join(lines))
    recipe = tmp_path / "edited.yaml"
    recipe.write_text(EDITED)
    assert "1 unreadable date taken for missing" in gristmill("curate", recipe).err
    verdicts = {
        name: gristmill_here("why", recipe, name).out.splitlines()[0].split("  ")[-1]
        for name in ("copy", "first", "blanks", "longer", "old", "new", "line", "frame")
    }
    assert verdicts == {
        "copy": "kept", "first": "dropped: exact.duplicate", "blanks": "dropped: near.duplicate", "longer": "kept",
        "old": "dropped: near.duplicate", "new": "kept", "line": "kept", "frame": "dropped: lines.emptied",
    }  # fmt: skip


def test_keep_by_text_beside_numbers_is_refused_before_anything_is_read(tmp_path, gristmill_here):
    for source, score in (("a", 9), ("b", "10"), ("c", 1.5)):
        (tmp_path / "raw" / source).mkdir(parents=True)
        (tmp_path / "raw" / source / "a.jsonl").write_text(json.dumps({"text": "Ein Satz.", "score": score}))
    recipe = tmp_path / "keep.yaml"
    lines = [f'  {source}: {{path: "{source}/*.jsonl", language: de, where: "score IS NOT NULL"}}' for source in "abc"]
    steps = "steps:\n  - dedup: {preset: exact, keep: [{score: desc}]}\nexecution: {raw: raw, workdir: work}\n"
    recipe.write_text("\n".join(["sources:", *lines, steps]))
    said = gristmill_here("curate", recipe, code=None)
    assert said.code not in (None, 0)
    assert "score, which is number in a, text in b, number in c" in " ".join(said.err.split())
    assert not list((tmp_path / "work").glob("*rows*"))


@pytest.mark.slow
def test_dedup_by_two_workers_and_killed_in_each_stage_leaves_the_same_bytes(
    gristmill, start, curated, raw, tmp_path, contents
):
    wanted = contents(curated.parent / "work")
    recipe, workdir = write_recipe(tmp_path, raw, workers=2), tmp_path / "work"
    stages = sorted(
        (folder for folder in (curated.parent / "work").glob("*-*") if folder.is_dir()),
        key=lambda folder: min(path.stat().st_mtime_ns for path in folder.iterdir()),
    )
    dedup = [folder.name for folder in stages if re.search("signatures|copies|duplicates|text", folder.name)]
    assert len(dedup) == 16
    for name in dedup:
        process = start("curate", recipe)
        while process.poll() is None and not (workdir / name).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{name} was made before it could be killed"
    gristmill("curate", recipe)
    assert contents(workdir) == wanted
