"""Questions to a finished run: the fate of documents, rules, other thresholds, two runs, the text of a train step."""

import json

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from mixing.tokenizer import load_tokenizer
from recipes.cli.main import gristmill as verbs
from recipes.cli.options import Flags
from recipes.ledger.queries import open_ledger
from recipes.ledger.tracing import documents_of_step, open_plan, steps_of_document, with_stretches, with_texts
from recipes.run import Run
from recipes.schema.recipe import load_recipe
from training.stream import open_stream


def ask(*arguments):
    """What a verb prints as JSON."""
    return json.loads(said(*arguments, "--json"))


def said(*arguments):
    """What a verb prints on standard output."""
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def run(finished):
    with Run.open(load_recipe(finished.recipe), silent=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(run):
    """All rows of the ledger."""
    return open_ledger(run).scan().collect().with_row_index("place")


# ---------------------------------------------------------------- why


def test_why_keeps_to_the_terminals_width_and_shows_the_whole_text_on_demand(
    finished, rows, gristmill_here, monkeypatch
):
    longest = rows.filter(pl.col("source") == "de").sort("num_characters").to_dicts()[-1]
    (fate,) = ask("why", finished.recipe, longest["origin_id"])
    set_in = pytest.MonkeyPatch.setenv
    monkeypatch.setattr(pytest.MonkeyPatch, "setenv", lambda patch, name, _: set_in(patch, name, "72"))  # COLUMNS
    folded = gristmill_here("why", finished.recipe, longest["origin_id"]).out
    assert max(map(len, folded.splitlines())) <= 72
    assert " ".join(fate["text"].split())[:300] in " ".join(folded.split())
    assert len(fate["text"]) > 500
    assert fate["text"] not in folded
    assert fate["text"] in gristmill_here("why", finished.recipe, longest["origin_id"], "--whole").out


def test_why_finds_a_document_by_id_content_id_and_text(finished, rows):
    row = rows.filter(pl.col("kept") & (pl.col("source") == "en")).to_dicts()[3]
    by_id = ask("why", finished.recipe, row["origin_id"])
    assert [(fate["shard"], fate["row"], fate["kept"]) for fate in by_id] == [(row["shard"], row["row"], True)]
    assert ask("why", finished.recipe, row["content_id"].hex()[:12])[0]["content_id"] == row["content_id"].hex()
    fragment = by_id[0]["text"][:60]
    assert row["origin_id"] in [fate["who"]["origin_id"] for fate in ask("why", finished.recipe, fragment)]


def test_why_tells_each_dropped_document_the_ledgers_reason(finished, rows):
    dropped = rows.filter(pl.col("reason").is_not_null() & pl.col("origin_id").is_not_null())
    for row in dropped.group_by("source", "reason", maintain_order=True).first().to_dicts():
        fates = ask("why", finished.recipe, row["origin_id"])
        fate = next(fate for fate in fates if (fate["shard"], fate["row"]) == (row["shard"], row["row"]))
        assert not fate["kept"]
        assert fate["reason"] == row["reason"]
        step, _, rule = row["reason"].partition(".")
        told = [one for one in fate["steps"] if one["step"] == step]
        if step == "minhash":
            assert told[0]["duplicate_of"][2] == row["duplicate_row@minhash"]
        elif step != "read":
            assert rule in told[0]["drops"]


def test_duplicates_point_at_documents_that_stay(rows):
    keepers = rows.select(
        pl.col("source").alias("duplicate_source@minhash"),
        pl.col("shard").alias("duplicate_shard@minhash"),
        pl.col("row").alias("duplicate_row@minhash"),
        pl.col("kept").alias("keeper_kept"),
    )
    dropped = rows.filter(pl.col("reason") == "minhash.duplicate")
    assert dropped.height > 3
    on = [name for name in keepers.columns if name != "keeper_kept"]
    assert (
        dropped.join(keepers, on=on, how="left", maintain_order="left")["keeper_kept"].to_list()
        == [True] * dropped.height
    )


def test_why_of_nothing_known_is_an_error(gristmill_here, finished):
    outcome = gristmill_here("why", finished.recipe, "no such document anywhere", code=1)
    assert "no document with this id, URL or text" in outcome.err


# ---------------------------------------------------------------- inspect


def test_inspect_shows_documents_on_both_sides_of_a_rule(finished, rows):
    found = ask("inspect", finished.recipe, "gopher", "--source", "en", "--number", 2)
    assert {"dropped", "kept", "borderline"} <= {one["kind"] for one in found}
    fates = {(row["shard"], row["row"]): row for row in rows.to_dicts()}
    for one in found:
        row = fates[one["shard"], one["row"]]
        assert one["values"] == {name: row[name] for name in one["values"]}
        if one["kind"] == "dropped":
            assert row["drop@gopher"]
        else:
            assert row["kept"]
        assert ask("why", finished.recipe, one["content_id"])[0]["text"] == one["text"]


def test_inspect_of_an_unknown_step_names_the_known(gristmill_here, finished):
    assert "gopher, language" in gristmill_here("inspect", finished.recipe, "gophr", code=1).err


# ---------------------------------------------------------------- whatif and diff


@pytest.fixture(scope="module")
def plain(finished, tmp_path_factory):
    """A finished run of the first two steps alone, which no global step follows; its signals are reused."""
    text = finished.recipe.read_text()
    steps = text[text.index("  - perplexity") : text.index("domains:")]
    folder = tmp_path_factory.mktemp("plain")
    recipe = folder / "plain.yaml"
    text = text.replace(steps, "").replace("split: {de: bucket}", "split: {}")
    text = text.replace("preset: gopher,", "preset: gopher, min_words: 150,")
    text = text.replace(f"workdir: {finished.workdir}, workers: 2", f"workdir: {folder / 'work'}, workers: 1")
    recipe.write_text(text.replace(", workers: 1", f", workers: 1, reuse: [{finished.workdir}]"))
    said("curate", recipe)
    return recipe


@pytest.mark.parametrize("change", ["steps.gopher.min_words=200", "steps.gopher.min_words=60"])
def test_whatif_equals_a_real_rerun(plain, change):
    """Tightened and loosened: numbers, reasons and characters of the rerun's ledger."""
    expected = {one["source"]: one for one in ask("whatif", plain, "--set", change)}
    other = plain.with_name("other.yaml")
    other.write_text(plain.read_text())
    said("curate", other, "--set", change)
    with Flags(other, (change,)).open_run(quiet=True) as rerun:
        after = open_ledger(rerun)
    with Run.open(load_recipe(plain), silent=True) as first:
        before = open_ledger(first)
    moved = 0
    for name, told in expected.items():
        old, new = before.scan([name]).collect(), after.scan([name]).collect()
        assert told["exact"]
        assert (told["kept_before"], told["kept_after"]) == (old["kept"].sum(), new["kept"].sum())
        assert told["characters_after"] == new.filter("kept")["num_characters"].sum()
        gained = old.filter(~old["kept"] & new["kept"])["reason"].to_list()
        lost = new.filter(old["kept"] & ~new["kept"])["reason"].to_list()
        assert told["newly_kept"] == {reason: gained.count(reason) for reason in set(gained)}
        assert told["newly_dropped"] == {reason: lost.count(reason) for reason in set(lost)}
        moved += len(gained) + len(lost)
    assert moved


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("words.han=jieba", "the change of words changes what is read or measured"),
        ("sources.en.language=de", "the change of sources.en.language changes what is read or measured"),
        ("sources.en.max_document=1 MiB", "the change of sources.en.max_document changes what is read or measured"),
        ("steps.language.excerpt={pieces: 2, characters: 40}", "de: the change measures language in another way"),
        ("steps.gopher.sources=[en]", "de: the change adds or removes a rule step"),
        ("steps.gopher.name=other", "the change adds or removes a rule step"),
    ],
)
def test_whatif_refuses_what_is_no_decision_and_says_what_does_it(plain, gristmill_here, change, told):
    refused = gristmill_here("whatif", plain, "--set", change, code=1).err
    assert told in refused
    assert "`gristmill curate` with the same --set" in refused or "`run` does the rest" in refused


def test_whatif_refuses_another_option_of_a_step_that_edits_text(finished, gristmill_here):
    refused = gristmill_here("whatif", finished.recipe, "--set", "steps.minhash.threshold=0.7", code=1).err
    assert "whatif cannot say what a change of step minhash (dedup) does" in refused


def test_whatif_before_a_global_step_is_an_estimate(finished):
    told = {one["source"]: one for one in ask("whatif", finished.recipe, "--set", "steps.gopher.min_words=200")}
    assert not told["en"]["exact"]
    assert told["en"]["kept_after"] < told["en"]["kept_before"]
    assert told["code"]["kept_after"] == told["code"]["kept_before"]  # gopher does not look at code


def test_diff_tells_what_whatif_foretold(plain):
    other = plain.with_name("other.yaml")
    other.write_text(plain.read_text().replace("min_words: 150", "min_words: 200"))
    said("curate", other)
    found = ask("diff", plain, other)
    assert found["config"] == {"steps.gopher.min_words": ["150", "200"]}
    foretold = {one["source"]: one for one in ask("whatif", plain, "--set", "steps.gopher.min_words=200")}
    for name, source in found["sources"].items():
        assert source["kept"] == [foretold[name]["kept_before"], foretold[name]["kept_after"]]
        assert source["newly_dropped"] == foretold[name]["newly_dropped"]
        assert source["newly_kept"] == {}


# ---------------------------------------------------------------- trace


def stream_of(run):
    domains = run.tokens.domains_path
    return open_stream(run.plan.file("all", ".plan.json"), str(domains), run.recipe.model.context)


def test_trace_lists_the_documents_whose_tokens_the_batch_holds(run):
    opened, stream = open_plan(run), stream_of(run)
    tokenizer = load_tokenizer(run.tokens.tokenizer)
    for step in (0, 1, opened.plan.num_steps // 2, opened.plan.num_steps - 1):
        span = next(span for span in reversed(opened.spans) if span.first_step <= step)
        positions = np.arange(span.sequences) + span.first_position + (step - span.first_step) * span.sequences
        domains, _, _, sequences = stream.order.locate(positions)
        tokens = stream.reader.read(domains, sequences, span.context)
        covered = np.zeros(tokens.shape, bool)
        for one in with_texts(run, list(documents_of_step(opened, step))):
            window = slice(one["first_token"], one["first_token"] + one["num_tokens"])
            assert not covered[one["sequence_of_step"], window].any()
            covered[one["sequence_of_step"], window] = True
            piece = tokens[one["sequence_of_step"], window].tolist()
            document = [*tokenizer.encoder.encode(one["text"], add_special_tokens=False).ids, tokenizer.eos]
            assert any(document[n : n + len(piece)] == piece for n in range(len(document) - len(piece) + 1))
            assert one["domain"] == opened.order.names[domains[one["sequence_of_step"]]]
        assert covered.all()


def test_trace_of_a_document_is_the_inverse(run, rows):
    """A document that stands in a step is listed with that step, and all of its steps hold it."""
    opened = open_plan(run)
    ids = {(row["source"], row["shard"], row["row"]): row["origin_id"] for row in rows.to_dicts()}
    for traced in list(documents_of_step(opened, 3))[::7]:
        found = steps_of_document(run, opened, ids[traced.source, traced.shard, traced.row])
        assert (3, traced.position) in {(one["train_step"], one["position"]) for one in found}
        for one in found[:: max(1, len(found) // 4)]:
            listed = documents_of_step(opened, one["train_step"])
            at = {(t.source, t.shard, t.row) for t in listed if t.position == one["position"]}
            assert (traced.source, traced.shard, traced.row) in at


def test_trace_by_the_command_line_prints_what_the_functions_give(run, finished):
    opened = open_plan(run)
    found = ask("trace", finished.recipe, "--train-step", 2, "--signals")
    assert [one["row"] for one in found] == [one.row for one in documents_of_step(opened, 2)]
    assert all("word_count" in one["signals"] for one in found if one["source"] == "en")


def test_trace_shows_the_stretch_that_is_trained_on(run, finished):
    """Its text, cut from the tokens, is in the document; its content id is the ledger's."""
    opened = open_plan(run)
    whole = with_texts(run, list(documents_of_step(opened, 5)))
    found = ask("trace", finished.recipe, "--train-step", 5, "--characters", 60)
    ids = {
        (row["source"], row["shard"], row["row"]): row["content_id"].hex()
        for row in open_ledger(run).scan().collect().to_dicts()
    }
    assert len(found) == len(whole) > 16
    for stretch, document in zip(found, whole):
        assert stretch["text"].strip("\ufffd") in document["text"]
        assert len(stretch["text"]) == 60 or stretch["num_tokens"] <= 68
        assert stretch["content_id"] == ids[stretch["source"], stretch["shard"], stretch["row"]]
    one = ask("trace", finished.recipe, "--train-step", 5, "--sequence", 3, "--characters", 60)
    assert one == [stretch for stretch in found if stretch["sequence_of_step"] == 3]
    told = said("trace", finished.recipe, "--train-step", 5)
    assert told.startswith(
        f"train step 5 of {opened.plan.num_steps} (phase main): positions 80 to 95, 16 sequences of 64"
    )
    assert told.count("sequence ") >= 16


def test_trace_of_a_content_id_is_found_beside_the_token_shards_and_is_the_inverse(run, finished, monkeypatch):
    monkeypatch.setattr("recipes.ledger.tracing.fates", None)  # the ledger is not asked
    opened = open_plan(run)
    for traced in with_stretches(run, opened, list(documents_of_step(opened, 7))[::9], 20):
        found = steps_of_document(run, opened, traced["content_id"][:16])
        assert [one["position"] for one in found] == sorted(one["position"] for one in found)
        mine = next(one for one in found if one["position"] == traced["position"])
        assert mine["num_tokens"] == traced["num_tokens"]
        assert (mine["train_step"], mine["epoch"], mine["sequence"]) == (7, traced["epoch"], traced["sequence"])
    told = said("trace", finished.recipe, "--document", traced["content_id"])
    assert f"{len({one['train_step'] for one in found}):,} train steps of" in told


def test_trace_of_a_step_or_document_that_is_not_there_is_an_error(gristmill_here, finished, rows):
    assert "train steps" in gristmill_here("trace", finished.recipe, "--train-step", 10_000, code=1).err
    assert "--sequence 16" in gristmill_here("trace", finished.recipe, "--train-step", 1, "--sequence", 16, code=1).err
    dropped = rows.filter(pl.col("reason").str.starts_with("gopher")).to_dicts()[0]
    assert "gristmill why" in gristmill_here("trace", finished.recipe, "--document", dropped["origin_id"], code=1).err


# ---------------------------------------------------------------- show, status, plan, forecast, clean


def test_show_and_status_say_that_all_is_there(finished):
    shown = ask("show", finished.recipe)
    assert {stage["missing"] for stage in shown["stages"]} == {0}
    assert [line.split()[0] for line in shown["domains"] if not line.startswith(" ")] == ["code", "de", "en"]
    status = ask("status", finished.recipe)
    assert status["missing"] == []
    assert status["stages"] == len(shown["stages"])


def test_status_of_a_run_that_never_began_names_what_is_missing(small):
    status = ask("status", small())
    assert len(status["missing"]) == status["stages"]


def test_show_resolved_tells_where_values_come_from(finished):
    values = ask("show", finished.recipe, "--resolved", "--set", "steps.minhash.threshold=0.7")
    assert values["steps.minhash.threshold"] == {"value": 0.7, "from": "--set steps.minhash.threshold=0.7"}
    assert values["seed"]["value"] == 1
    assert values["seed"]["from"].endswith("small.yaml:2")
    assert values["domains.shortage"] == {"value": "error", "from": "default"}


def test_plan_counts_the_tokens_of_the_schedule(finished, run):
    found = ask("plan", finished.recipe)
    whole = {row["phase"]: row for row in found["rows"] if row["domain"] == "all"}
    steps = run.plan.counts()["steps"]
    assert sum(row["num_tokens"] for phase, row in whole.items() if phase != "all") == steps * 16 * 64
    assert said("plan", finished.recipe, "--diff", found["file"]).count(found["plan"]) >= 1


def test_forecast_from_all_rows_is_what_was_kept(copy_of_finished, rows):
    found = {one["source"]: one for one in ask("forecast", copy_of_finished.recipe, "--sample", 1)["sources"]}
    for name, source in found.items():
        mine = rows.filter(pl.col("source") == name)
        assert (source["rows"], source["kept"]) == (mine.height, mine["kept"].sum())
        assert source["kept_low"] <= source["kept"] <= source["kept_high"]
        assert sum(source["drops"].values()) == mine.height - mine["kept"].sum()


def test_clean_lists_what_no_run_reaches_and_nothing_else(copy_of_finished, stages):
    recipe, workdir = copy_of_finished.recipe, copy_of_finished.workdir
    before = stages(workdir).keys()
    assert ask("clean", recipe) == []
    said("curate", recipe, "--set", "steps.gopher.min_words=200", "--until", "gopher")
    assert ask("clean", recipe) == []  # a run that was cut short may be taken up again, and so may the one before it
    said("curate", recipe, "--set", "steps.gopher.min_words=200")
    assert ask("clean", recipe) == []  # a run with flags of its own takes no other's place
    (variant,) = (workdir / "runs").glob("small@*")
    again = ask("clean", recipe, "--variants")
    assert again[-1]["folder"] == variant.name
    assert {one["folder"].rpartition("-")[0] for one in again[:-1]} == {
        "de.decisions", "de.signals", "en.decisions", "minhash.duplicates", "sound.cutoffs", "sound.de.model",
    }  # fmt: skip
    recipe.write_text(recipe.read_text().replace("{preset: gopher, s", "{preset: gopher, min_words: 200, s"))
    said("curate", recipe)
    unreached = {one["folder"] for one in ask("clean", recipe)}
    assert {name.rpartition("-")[0] for name in unreached} == {
        "de.decisions", "de.signals", "en.decisions", "minhash.duplicates", "sound.cutoffs", "sound.de.model",
    }  # fmt: skip
    assert unreached < before
    said("clean", recipe, "--delete")
    assert stages(workdir).keys() & unreached == set()
    assert ask("clean", recipe) == []
    assert not variant.exists() or ask("clean", recipe, "--variants", "--delete")
    assert not variant.exists()
    status = ask("status", recipe)
    assert [
        title for title in status["missing"] if "tokens" not in title and title not in ("tokenizer", "domains")
    ] == []


def test_until_a_step_stops_after_the_last_stage_that_serves_it(gristmill_here, finished, small, tmp_path):
    recipe, store = small(), f"execution.reuse=[{finished.workdir}]"
    after = gristmill_here("run", recipe, "--set", store, "--until", "language").err
    assert "stopped after en: language, gopher" in after  # code is not asked for its language
    assert "minhash" not in after
    after = gristmill_here("run", recipe, "--set", store, "--until", "minhash").err
    assert "stopped after minhash duplicates" in after
    assert "tokenizer" not in after
