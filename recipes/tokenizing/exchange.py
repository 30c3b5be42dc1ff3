"""A run's tokens in the formats of other tools: files for each domain's training text and for its held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mixing.domain_stage import file_word, read_domains
from mixing.exchange import export_datatrove, export_megatron
from mixing.exchange_rows import export_litdata, export_parquet
from mixing.tokenizer_files import copy_tokenizer
from recipes.errors import RunError

if TYPE_CHECKING:
    from recipes.run import Run

# Each with the suffix of what it writes; Megatron's and litdata's name several files themselves.
FORMATS: dict[str, tuple[str, Callable[[Path, Path], dict[str, int]]]] = {
    "ds": (".ds", export_datatrove),
    "megatron": ("", export_megatron),
    "litdata": ("", export_litdata),
    "parquet": (".parquet", export_parquet),
}


def export_tokens(run: Run, kind: str, folder: Path) -> list[tuple[str, dict[str, int]]]:
    """Write every domain's tokens into an empty folder; (name, counts) of each.

    Documents stand whole, in the order of the domain: other tools cut and shuffle sequences themselves. Held-out text
    has a folder of its own, `held_out`, so that a glob over training text never takes it; `tokenizer` is the tokenizer.

    Raises:
        RunError: if the folder holds something, or a domain is called as a folder of the export.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"--out {folder}: not empty; name a new folder")
    domains = read_domains(run.tokens.domains_path)
    _names_that_are_free(kind, (domain.name for domain in domains))
    folder.mkdir(parents=True, exist_ok=True)
    suffix, write = FORMATS[kind]
    indexes = run.tokens.domains_path.parent
    found = []
    for domain in domains:
        for part, index in (("training", domain.training), ("held_out", domain.held_out)):
            if index is not None:
                name = ("held_out/" if part == "held_out" else "") + file_word(domain.name) + suffix
                (folder / name).parent.mkdir(exist_ok=True)
                found.append((name, write(indexes / index, folder / name)))
    # Tokens say nothing without their tokenizer; `tokenizer: FOLDER` in another recipe reads it.
    copy_tokenizer(Path(run.tokens.tokenizer), folder / "tokenizer")
    return found


def _names_that_are_free(kind: str, domains: Iterable[str]) -> None:
    """Litdata's domains are folders of their names."""
    taken = sorted(set(map(file_word, domains)) & {"tokenizer", "held_out"}) if kind == "litdata" else []
    if taken:
        raise RunError(
            f"tokenize --to litdata: a domain is called {taken[0]}, which is the name of a folder of the export; give "
            "its source another name, or write another format"
        )
