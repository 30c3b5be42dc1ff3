"""whatif against real reruns: on every preset of rules tightened and loosened, and beyond a deduplication."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from curation.rule_presets import FOLDER, load_preset
from curation.rules import preset_rules, signal_names
from curation.signals import SIGNALS
from recipes.cli.main import gristmill as verbs
from recipes.curating.compiling import compile_recipe
from recipes.ledger.queries import open_ledger, rule_steps
from recipes.ledger.whatif import sources_beyond
from recipes.run import Run
from recipes.schema.recipe import load_recipe

SOURCES = {"de": ("de_wiki", "de"), "law": ("de_law", "de"), "en": ("en_books", "en"), "zh": ("zh_law", "zh")}
DOCUMENTS, CHARACTERS, COPIES = 90, 3000, 9  # of each source; the most of a document; every 9th stands twice, nearly
RECIPE = """
seed: 1
sources:
  de: {path: de.parquet, language: de, sample: 0.9}
  law: {path: law.parquet, language: de, sample: 0.9}
  en: {path: en.parquet, language: en, sample: 0.9}
  zh: {path: zh.parquet, language: zh, sample: 0.9}
steps:
  - measure: {signals: [SIGNALS]}
  - language: {min_score: 0.5, max_drop: 1}
  - rules: {preset: PRESET, name: checked, max_drop: 1}
MORE
execution: {raw: RAW, workdir: WORK, workers: 1}
"""
PRESETS = sorted(
    path.stem for path in FOLDER.glob("*.yaml") if not load_preset(path.stem).unit and load_preset(path.stem).options
)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """Real documents, evenly spread over each source and cut to a few pages, and near-copies of some."""
    data, folder = Path(os.environ.get("GRISTMILL_TEST_DATA", "")) / "text", tmp_path_factory.mktemp("raw")
    if not (data / "de_wiki.parquet").is_file():
        pytest.skip("GRISTMILL_TEST_DATA names no folder with text/de_wiki.parquet")
    for name, (file, _) in SOURCES.items():
        texts = pl.read_parquet(data / f"{file}.parquet", columns=["text"])["text"]
        chosen = texts.gather_every(max(1, len(texts) // DOCUMENTS)).str.slice(0, CHARACTERS).to_list()
        copies = [text[: len(text) - len(text) // 20] for text in chosen[::COPIES]]
        pl.DataFrame({"text": chosen + copies}).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One work directory for all recipes: all presets' signals are measured at once, and cases decide only."""
    return tmp_path_factory.mktemp("work")


def all_signals():
    """Registry signals of all presets in all languages of the sources."""
    rules = [rule for name in PRESETS for code in ("de", "en", "zh") for rule in preset_rules(name, code, {})[0]]
    return sorted(set(signal_names(rules)) & set(SIGNALS))


def written(folder, raw, workdir, preset, more=""):
    text = RECIPE.replace("PRESET", preset).replace("MORE", more).replace("SIGNALS", ", ".join(all_signals()))
    path = folder / f"{preset}_{folder.name}.yaml"  # in one work directory a name belongs to one recipe
    path.write_text(text.replace("RAW", str(raw)).replace("WORK", str(workdir)))
    return path


def said(*arguments):
    result = CliRunner().invoke(verbs, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def changes(preset, factor):
    """Every numeric option of a preset moved: by `factor` towards dropping more where it is above 1.

    Options that a language of the sources switches off stay off: their signals were not measured.
    """
    found, loaded = [], load_preset(preset)
    off = {name for code in ("de", "en", "zh") for name, v in loaded.languages.get(code, {}).items() if v is None}
    for name, value in loaded.options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or name in off:
            continue
        moved = value * factor if name.startswith("min_") else value / factor
        found.append(f"steps.checked.{name}={math.ceil(moved) if isinstance(value, int) else round(moved, 6)}")
    return [word for change in found for word in ("--set", change)]


def ledger_of(recipe):
    with Run.open(load_recipe(recipe), silent=True) as run:
        return {s.name: open_ledger(run).scan([s.name]).collect() for s in open_ledger(run).sources}


def rerun(recipe, change):
    """Ledger of a recipe in which the changes are written."""
    values = [setting.removeprefix("steps.checked.").replace("=", ": ") for setting in change[1::2]]
    other = recipe.with_name(f"other_{recipe.name}")
    other.write_text(recipe.read_text().replace("name: checked,", f"name: checked, {', '.join(values)},"))
    said("curate", other)
    return ledger_of(other)


def check_exact(told, before, after):
    """Numbers, characters and reasons of `whatif` against the two ledgers; rows that changed sides."""
    moved = 0
    for one in told:
        old, new = before[one["source"]], after[one["source"]]
        gained = old.filter(~old["kept"] & new["kept"])["reason"].to_list()
        lost = new.filter(old["kept"] & ~new["kept"])["reason"].to_list()
        assert one["exact"]
        assert one["kept_low"] == one["kept_after"] == one["kept_high"] == new["kept"].sum()
        assert one["kept_before"] == old["kept"].sum()
        assert one["characters_after"] == new.filter("kept")["num_characters"].sum()
        assert one["newly_kept"] == {reason: gained.count(reason) for reason in set(gained)}
        assert one["newly_dropped"] == {reason: lost.count(reason) for reason in set(lost)}
        assert len(one["border"]) == min(5, len(gained) + len(lost))
        moved += len(gained) + len(lost)
    return moved


# Nothing that these presets drop here is near enough to their borders to come back.
STILL = {("ccnet", "loosened"), ("chinese_web", "loosened")}


@pytest.mark.slow
@pytest.mark.parametrize(("way", "factor"), [("tightened", 1.5), ("loosened", 1 / 1.5)])
@pytest.mark.parametrize("preset", PRESETS)
def test_whatif_equals_a_rerun_on_every_preset(preset, way, factor, text_folder, workdir, tmp_path):
    recipe = written(tmp_path, text_folder, workdir, preset)
    said("curate", recipe)
    before, change = ledger_of(recipe), changes(preset, factor)
    told = json.loads(said("whatif", recipe, *change, "--json"))
    moved = check_exact(told, before, rerun(recipe, change))
    kept = [sum(one[key] for one in told) for key in ("kept_before", "kept_after")]
    print(f"{preset} {way}: {kept[0]} -> {kept[1]} kept, {moved} changed sides")
    assert moved or (preset, way) in STILL


@pytest.mark.slow
@pytest.mark.parametrize("change", ["min_words=120", "min_words=10", "max_duplicate_10gram=0.03"])
def test_whatif_beyond_deduplication_holds_the_rerun_in_its_interval(change, text_folder, workdir, tmp_path):
    more = "  - dedup: {preset: minhash, keep: [longest], max_drop: 1}\n  - rules: {preset: c4, max_drop: 1}"
    recipe = written(tmp_path, text_folder, workdir, "gopher", more)
    said("curate", recipe)
    changed = ("--set", f"steps.checked.{change}")
    told = json.loads(said("whatif", recipe, *changed, "--json"))
    after = rerun(recipe, changed)
    assert not any(one["exact"] for one in told)
    for one in told:
        assert one["kept_low"] <= after[one["source"]]["kept"].sum() <= one["kept_high"]
    frames = [frame.filter(pl.col("reason") == "minhash.duplicate") for frame in after.values()]
    duplicates = pl.concat(frames, how="diagonal_relaxed")
    assert duplicates.height
    named = set(zip(duplicates["duplicate_source@minhash"], duplicates["duplicate_row@minhash"]))
    # named by their place in the shard, though the sources are sampled; the step itself dropped none of them
    stayed = {
        (name, row)
        for name, frame in after.items()
        for row in frame.filter(pl.col("reason").is_null() | (pl.col("reason") != "minhash.duplicate"))["row"].to_list()
    }
    assert named <= stayed


STEPS_BETWEEN = {
    "": {},
    "  - lines: {preset: c4_lines, sources: [de]}": {"de": "text"},
    "  - dedup: {preset: minhash, sources: [de, law]}": {"de": "duplicates", "law": "duplicates"},
    "  - dedup: {preset: minhash, sources: [law, zh]}": {},
}


@pytest.mark.parametrize("between", STEPS_BETWEEN)
def test_beyond_are_the_sources_of_steps_that_look_at_a_changed_rules_survivors(between, tmp_path):
    """The rules change for `de` alone: sources deduplicated with it are estimates too, the others stay exact."""
    recipe = load_recipe(written(tmp_path, tmp_path, tmp_path, "gopher", between))
    changed = load_recipe(recipe.path, ("sources.de.steps.checked.min_words=77",))
    before, after = rule_steps(recipe), rule_steps(changed)
    moved = {name for name, steps in after.items() if steps != before[name]}
    assert moved == {"de"}
    assert sources_beyond(compile_recipe(changed), moved, before) == STEPS_BETWEEN[between]


def test_a_measure_of_survivors_is_beyond_rules_before_it_and_not_beyond_rules_behind_it(tmp_path):
    (tmp_path / "de.arpa").write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<unk>\n-1\t<s>\n-1\t</s>\n\n\\end\\\n")
    path = tmp_path / "r.yaml"
    path.write_text(
        "sources: {web: {path: in.jsonl, language: de}, law: {path: law.jsonl, language: de}}\nsteps:\n"
        "  - rules: {name: first, drop: {short: num_characters < 200}}\n"
        "  - perplexity: {model: de.arpa, pieces: words, on: survivors, sources: [web]}\n"
        "  - rules: {name: second, drop: {odd: num_characters > 9000}}\n"
    )
    before = rule_steps(load_recipe(path))
    for change, beyond in (("first.drop.short=num_characters < 50", {"web": "signals"}),
                           ("second.drop.odd=num_characters > 8000", {})):  # fmt: skip
        changed = load_recipe(path, (f"steps.{change}",))
        assert sources_beyond(compile_recipe(changed), {"web", "law"}, before) == beyond


def test_a_step_before_the_changed_rule_leaves_it_exact(tmp_path):
    text = written(tmp_path, tmp_path, tmp_path, "gopher").read_text()
    path = tmp_path / "before.yaml"
    path.write_text(text.replace("  - rules:", "  - dedup: {preset: minhash}\n  - rules:"))
    recipe, changed = load_recipe(path), load_recipe(path, ("steps.checked.min_words=77",))
    before = rule_steps(recipe)
    assert sources_beyond(compile_recipe(changed), set(before), before) == {}
