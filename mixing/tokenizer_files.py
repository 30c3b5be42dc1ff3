"""The files of a Hugging Face tokenizer, and copies of them that transformers opens as the same tokenizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

# Special tokens, and how a conversation is written; a folder holds templates beyond the default one.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")
# What classes without tokenizer.json read; some take it for their check of it, or refuse to open without.
SLOW = ("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "*.model")


def files_beside(source: Path, patterns: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """A tokenizer's files of these patterns, each with its name in a copy of the folder.

    Args:
        source: its folder, or its tokenizer.json.
        patterns: of paths below that folder. `*.model` counts only beside a tokenizer_config.json: a tokenizer.json
            alone may lie among anything.
    """
    folder = source if source.is_dir() else source.parent
    whole = (folder / "tokenizer_config.json").exists()
    for pattern in patterns:
        if pattern != "*.model" or whole:
            yield from ((path, path.relative_to(folder).as_posix()) for path in sorted(folder.glob(pattern)))


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a whole tokenizer; tokenizer.json, which makes it one, comes last. Files that are there already stay.

    Args:
        source: its folder, or its tokenizer.json, whatever that is called.
        folder: to write, made if missing.
    """
    encoder = source / "tokenizer.json" if source.is_dir() else source
    for path, name in [*files_beside(source, (*SETTINGS, *TEMPLATES, *SLOW)), (encoder, "tokenizer.json")]:
        if not (folder / name).exists():
            copy_whole(path, folder / name)


def copy_whole(path: Path, copy: Path) -> None:
    """Copy a file so that its copy is never seen half written."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
    shutil.copyfile(path, unfinished)
    unfinished.replace(copy)
