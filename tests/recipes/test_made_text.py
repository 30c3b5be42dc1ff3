"""Text made by code."""

import hashlib
import itertools
import json

import pytest

from curation.source import Reader, read_shard
from recipes.texts import made_words
from recipes.texts.made_text import Chance, made_lines

NAMES = ("made_de", "made_en", "made_zh", "made_code")

# Change these together with MADE_VERSION only: other bytes are other texts for everybody.
HASHES = {
    "made_de": "73de2db61cd3f6b7",
    "made_en": "9f4a4d7d1ad87536",
    "made_zh": "a7b476f2ae2445a2",
    "made_code": "9c2b465f93dc0dc8",
}


def texts(name, **options):
    found = []
    for line in made_lines(name, **options):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("text"), str):
            found.append(record["text"])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_made_text_is_the_same_bytes_everywhere(name):
    assert hashlib.sha256(b"".join(made_lines(name))).hexdigest()[:16] == HASHES[name]


@pytest.mark.parametrize("name", NAMES)
def test_made_text_of_another_seed_is_another(name):
    assert not set(texts(name)[:10]) & set(texts(name, seed=2)[:10])


@pytest.mark.parametrize("name", NAMES)
def test_made_text_is_read_with_every_planted_fault(name, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(made_lines(name)))
    rows = [row for batch in read_shard(str(path), Reader("jsonl")) for row in batch.to_pylist()]
    reasons = [row["read_reason"] for row in rows if row["read_reason"]]
    assert sorted(reasons) == ["bad_json", "missing_text", "non_string_text", "not_a_record"]
    assert sum(row["repaired"] for row in rows) > 0 if name == "made_de" else True
    assert 300_000 < path.stat().st_size < 600_000


@pytest.mark.parametrize("name", NAMES)
def test_made_text_holds_copies_junk_and_boilerplate(name):
    language = name.removeprefix("made_")
    made = texts(name)
    assert 5 <= len(made) - len(set(made)) <= 30
    assert 5 <= sum(text in made_words.JUNK[language] for text in made) <= 30
    assert 20 <= sum(made_words.BOILERPLATE[language] in text for text in made) <= 90


@pytest.mark.parametrize("name", ["made_de", "made_en"])
def test_made_documents_share_few_shingles_but_near_copies_most(name):
    shingles = []
    for text in dict.fromkeys(text for text in texts(name) if len(text) > 300):
        words = text.replace(made_words.BOILERPLATE[name[5:]], "").split()
        shingles.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    similar = [len(a & b) / len(a | b) for a, b in itertools.combinations(shingles[:150], 2)]
    assert 3 <= sum(value > 0.5 for value in similar) <= 40
    assert sum(0.1 < value <= 0.5 for value in similar) <= 20


def test_made_code_compiles():
    whole = [text for text in texts("made_code") if text.startswith(("def ", "#")) and not text.endswith(")")]
    assert len(whole) > 200
    for text in whole:
        compile(text, "made", "exec")


def test_chance_several_are_different_and_all_come():
    chance = Chance(1)
    assert sorted(chance.several(list("abcd"), 4)) == list("abcd")
    assert {chance.one(list("ab")) for _ in range(20)} == {"a", "b"}


def test_made_text_of_an_unknown_name_lists_the_names():
    with pytest.raises(KeyError, match="made_zh"):
        next(made_lines("made_fr"))
