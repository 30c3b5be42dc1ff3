"""Bad input through the command line: each is a clear message with an exit code, or a row with a reason."""

import gzip
import json
import resource
import subprocess

import pytest

from curation.ledger import Ledger

RECIPE = """
sources:
  given: {path: given.jsonl, language: de}
steps:
  - rules: {name: short, drop: {short: "word_count < 3"}}
tokenizer: {algorithm: byte_bpe, vocabulary: 300}
execution: {raw: raw, workdir: work, workers: 1}
"""
GOOD = [json.dumps({"id": f"d{n}", "text": f"Dokument {n} hat einen kurzen Text. " * 4}) for n in range(12)]


@pytest.fixture
def write(tmp_path):
    """Write a recipe and raw files beside it; the recipe's path."""
    (tmp_path / "raw").mkdir()

    def written(recipe=RECIPE, **files):
        for name, content in files.items():
            path = tmp_path / "raw" / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else "".join(f"{x}\n" for x in content).encode())
        path = tmp_path / "bad.yaml"
        path.write_text(recipe)
        return path

    return written


@pytest.fixture
def ledger(tmp_path):
    def opened(name="bad"):
        (path,) = (tmp_path / "work" / "runs").glob(f"{name}/ledger.json")
        return Ledger.from_json(path.read_text()).scan().collect()

    return opened


def assert_clear(outcome, *wanted):
    """An error that says what, where and the fix, without a traceback."""
    assert "Traceback" not in outcome.err + outcome.out
    for words in wanted:
        assert words in outcome.err, outcome.err


# ---------------------------------------------------------------- records: a row with a reason

RECORDS = """
sources:
  bad: {path: bad.jsonl, language: de}
  copies: {path: copies.jsonl, language: de}
  cut: {path: cut.jsonl.gz, language: de}
  empty: {path: empty.jsonl, language: de}
  encoding: {path: encoding.jsonl, language: de}
  enormous: {path: enormous.jsonl, language: de}
steps:
  - rules: {name: short, drop: {short: "word_count < 3"}}
execution: {raw: raw, workdir: work, workers: 1}
"""
CUT = [json.dumps({"id": str(n), "text": f"Zeile {n} von vielen {n * 7919 % 1000}"}) for n in range(2000)]


def lines_of(lines):
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(scope="module")
def records(gristmill, tmp_path_factory):
    """The ledger of a run over records of every bad kind."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "raw").mkdir()
    whole = gzip.compress(lines_of(CUT))
    enormous = (json.dumps({"text": "Wort " * (size // 5)}) for size in (50_000_000, 80_000_000))
    bad = ['{"text": "abgebro', '{"text": 7}', "[1, 2]", '{"id": "x"}', '{"text": null}', "3"]
    contents = {
        "bad.jsonl": lines_of([*GOOD[:3], *bad, *GOOD[3:5]]),
        "copies.jsonl": lines_of([GOOD[0], GOOD[0], GOOD[1]]),
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "empty.jsonl": b"",
        "encoding.jsonl": b'{"text": "Gr\xfc\xdfe aus der Ferne und noch mehr"}\n' + lines_of(GOOD[:1]),
        "enormous.jsonl": lines_of([*enormous, GOOD[0]]),
    }
    for name, content in contents.items():
        (folder / "raw" / name).write_bytes(content)
    (folder / "records.yaml").write_text(RECORDS)
    gristmill("curate", folder / "records.yaml")
    ledger = Ledger.from_json((folder / "work" / "runs" / "records" / "ledger.json").read_text())
    return {source.name: ledger.scan([source.name]).collect() for source in ledger.sources}


def test_every_bad_record_is_a_row_with_a_reason(records):
    reasons = ["bad_json", "non_string_text", "not_a_record", "missing_text", "missing_text", "not_a_record"]
    rows = records["bad"]
    assert rows["read_reason"].to_list() == [None] * 3 + reasons + [None] * 2
    assert rows["kept"].to_list() == [reason is None for reason in rows["read_reason"].to_list()]
    assert rows["reason"].to_list()[3] == "read.bad_json"


def test_invalid_utf8_is_repaired_and_counted(records):
    assert records["encoding"].select("repaired", "kept").rows() == [(2, True), (0, True)]


def test_duplicate_ids_stay_rows_of_their_own(records):
    rows = records["copies"]
    assert rows.select("row", "origin_id").rows() == [(0, "d0"), (1, "d0"), (2, "d1")]
    assert rows["content_id"].n_unique() == 2


def test_empty_file_is_a_source_without_rows(records):
    assert records["empty"].height == 0


def test_truncated_gzip_keeps_what_can_be_read_and_records_the_rest(records):
    rows = records["cut"]
    assert 100 < rows.height < 2000
    assert rows["origin_id"].to_list()[:-1] == [str(n) for n in range(rows.height - 1)]
    assert rows["read_reason"].to_list() == [None] * (rows.height - 1) + ["truncated"]


def test_enormous_line_is_read_or_recorded_as_too_large(records):
    rows = records["enormous"]
    assert rows["read_reason"].to_list() == [None, "too_large", None]
    assert rows["kept"].to_list() == [True, False, True]
    assert rows["size_bytes"].to_list()[0] == 50_000_000


@pytest.mark.slow
def test_enormous_document_becomes_tokens(gristmill, write):
    line = json.dumps({"text": "Wort " * 10_000_000})
    said = gristmill("run", write(given__jsonl=[line, *GOOD]), "--until", "tokenize").err
    assert "13 documents" in said


# ---------------------------------------------------------------- files


def test_missing_file_is_named_with_where_it_was_looked_for(gristmill_here, write, tmp_path):
    outcome = gristmill_here("run", write(), code=1)
    assert_clear(outcome, "source given", "given.jsonl", str(tmp_path / "raw"))


def test_folder_in_place_of_a_file_is_no_file(gristmill_here, write, tmp_path):
    (tmp_path / "raw" / "given.jsonl").mkdir()
    assert_clear(gristmill_here("run", write(), code=1), "source given", "given.jsonl")


def test_file_that_is_no_gzip_is_named_and_may_be_set_aside(gristmill, write, tmp_path, ledger):
    recipe = RECIPE.replace("given.jsonl", '"*.jsonl*"')
    path = write(recipe, a__jsonl=GOOD[:6], b__jsonl__gz=b"this is no gzip", c__jsonl=GOOD[6:])
    outcome = gristmill("curate", path, code=1)
    assert_clear(outcome, "b.jsonl.gz", "sources.given.broken=0.3334")
    said = gristmill("curate", path, "--set", "sources.given.broken=0.3334").err
    assert "b.jsonl.gz set aside" in said
    assert ledger("bad@*").height == 12
    (stored,) = (tmp_path / "work" / "runs").glob("bad@*/ledger.json")
    stored = Ledger.from_json(stored.read_text())
    assert [name for name, _ in stored.sources[0].broken] == ["b.jsonl.gz"]


def test_suffix_that_tells_no_format_asks_for_it(gristmill_here, write):
    recipe = write(RECIPE.replace("given.jsonl", "given.bin"), given__bin=b"\x00\x01")
    assert_clear(gristmill_here("run", recipe, code=2), "given.bin", "format:")


# ---------------------------------------------------------------- sources that lose everything


def test_source_of_which_all_is_dropped_stops_until_it_is_allowed(gristmill, write, tmp_path):
    recipe = RECIPE.replace("word_count < 3", "word_count >= 0")
    path = write(recipe, given__jsonl=GOOD)
    outcome = gristmill("run", path, "--until", "tokenize", code=1)
    assert_clear(outcome, "step short drops 12 of 12 rows", "--set sources.given.steps.short.max_drop=1")
    outcome = gristmill("run", path, "--until", "tokenize", "--set", "sources.given.steps.short.max_drop=1", code=1)
    assert_clear(outcome, "no text to train a tokenizer on")


def test_wrong_column_of_text_stops_and_is_told_with_its_line_and_the_columns(gristmill_here, write):
    recipe = RECIPE.replace("given.jsonl,", "given.jsonl, fields: {text: txet},")
    assert "txet" in recipe
    path = write(recipe, given__jsonl=GOOD)
    outcome = gristmill_here("validate", path, "--data", code=2)
    assert_clear(outcome, "sources.given.fields.text: value 'txet'", "did you mean text?", "its columns are ")
    outcome = gristmill_here("curate", path, code=1)
    assert_clear(outcome, "12 of 12 rows cannot be read (missing_text 12)", "--set sources.given.broken=1")
    gristmill_here("curate", path, "--set", "sources.given.broken=1")


def test_run_goes_on_with_the_sources_that_have_text(gristmill, write, ledger):
    recipe = """
    sources:
      gone: {path: gone.jsonl, language: de}
      kept: {path: kept.jsonl, language: de}
    steps:
      - rules: {name: all, drop: {all: "word_count > 0"}, sources: [gone], max_drop: 1}
      - dedup: {preset: exact}
    tokenizer: {algorithm: byte_bpe, vocabulary: 300}
    domains: {max_epochs: 100, held_out: {tokens: 50 tokens, share: 0.1}}
    schedule: [{name: main, tokens: 1K, weights: natural}]
    model: {preset: llama_tiny, context: 16}
    training: {batch: 4 sequences}
    execution: {raw: raw, workdir: work, workers: 1}
    """
    path = write(recipe, gone__jsonl=GOOD[:4], kept__jsonl=GOOD)
    gristmill("run", path, "--until", "plan")
    assert ledger().group_by("source", maintain_order=True).agg("kept")["kept"].to_list() == [[False] * 4, [True] * 12]


# ---------------------------------------------------------------- disks and folders


def limited_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_full_disk_is_said_and_the_run_goes_on_afterwards(gristmill, write, tmp_path, ledger):
    lines = [json.dumps({"id": str(n), "text": f"Zeile {n} hat {n * n} Zeichen und mehr"}) for n in range(3000)]
    recipe = write(given__jsonl=lines)
    outcome = gristmill("curate", recipe, code=23, preexec_fn=limited_files)
    assert_clear(outcome, "no space left", "gristmill clean")
    assert list((tmp_path / "work").glob("*-*/*.tmp")) == []
    gristmill("curate", recipe)
    assert ledger()["origin_id"].to_list() == [str(n) for n in range(3000)]


@pytest.mark.slow
def test_full_file_system_is_said(gristmill, write, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        lines = [json.dumps({"id": str(n), "text": f"Zeile {n} hat {n * n} Zeichen und mehr"}) for n in range(3000)]
        recipe = write(given__jsonl=lines)
        outcome = gristmill("curate", recipe, "--set", f"execution.workdir={small / 'work'}", code=23)
        assert_clear(outcome, "no space left")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("workdir", ["/proc/gristmill", "raw/given.jsonl/work"])
def test_workdir_that_cannot_be_made_is_named(gristmill_here, write, tmp_path, monkeypatch, workdir):
    recipe = write(given__jsonl=GOOD)
    monkeypatch.chdir(tmp_path)
    outcome = gristmill_here("run", recipe, "--set", f"execution.workdir={workdir}", code=1)
    assert_clear(outcome, "execution.workdir", workdir)


# ---------------------------------------------------------------- recipes


MISTAKES = """
sources:
  a: {path: a.jsonl, langauge: de}
  b: {path: b.jsonl, language: german}
  c: {language: de}
steps:
  - rules: {preset: gophre}
  - langauge: {min_score: 0.5}
  - dedup: {preset: minhash, treshold: 0.8}
tokenizer: {algorithm: byte_bpe, vocabulary: many}
schedule:
  - {name: main, tokens: 64000, weights: natural}
model: llama_tinny
training: {batch: 16 sequnces}
checkpoints: {every: yes}
execution: {workdir: work, workers: -1}
"""


def test_all_mistakes_of_a_recipe_are_shown_at_once(gristmill_here, write, tmp_path):
    outcome = gristmill_here("run", write(MISTAKES), code=2)
    lines = [line for line in outcome.err.splitlines() if line.startswith("bad.yaml:") or "bad.yaml:" in line]
    places = {int(line.split("bad.yaml:")[1].split(":")[0]) for line in lines}
    assert places >= {3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 16}
    assert "mistakes in the recipe; nothing was run" in outcome.err
    assert not (tmp_path / "work").exists()


def test_unknown_signal_in_a_rule_is_told_with_its_line_before_anything_is_read(gristmill_here, write, tmp_path):
    outcome = gristmill_here("run", write(RECIPE.replace("word_count", "word_cuont"), given__jsonl=GOOD), code=2)
    assert_clear(outcome, "bad.yaml:5: steps.short: no signal or column 'word_cuont'", "did you mean word_count?")
    assert not list((tmp_path / "work").glob("given.rows-*"))


def test_until_an_unknown_step_names_the_known(gristmill_here, write):
    outcome = gristmill_here("run", write(given__jsonl=GOOD), "--until", "gopher", code=1)
    assert_clear(outcome, "--until gopher", "short")


def test_set_of_an_unknown_step_is_refused(gristmill_here, write):
    outcome = gristmill_here("run", write(given__jsonl=GOOD), "--set", "steps.shrot.max_drop=1", code=2)
    assert_clear(outcome, "shrot", "short")


def test_what_comes_later_is_said_with_its_line(gristmill_here, write, tmp_path):
    recipe = RECIPE.replace('rules: {name: short, drop: {short: "word_count < 3"}}', "pii: {}")
    outcome = gristmill_here("run", write(recipe, given__jsonl=GOOD), code=3)
    assert_clear(outcome, "bad.yaml:5", "not there yet")
    assert not list((tmp_path / "work").glob("given.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["runn", "bad.yaml"], 2, "did you mean 'run'?"),
        (["run", "nothere.yaml"], 2, "nothere.yaml"),
        (["run", "bad.yaml", "--sample", "2"], 2, "--sample"),
        (["why", "bad.yaml", "d0"], 1, "not curated yet"),
        (["whatif", "bad.yaml"], 1, "whatif needs a change"),
        (["trace", "bad.yaml"], 1, "--train-step"),
        (["train", "bad.yaml"], 1, "train"),
    ],
)
def test_wrong_command_is_answered(gristmill_here, write, tmp_path, monkeypatch, arguments, code, words):
    write(given__jsonl=GOOD)
    monkeypatch.chdir(tmp_path)
    assert_clear(gristmill_here(*arguments, code=code), words)
