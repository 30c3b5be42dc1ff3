"""Rows of instruction files as conversations, or the reason why one is none. No torch.

A row has a column of messages (`messages`, or ShareGPT's `conversations`), or a question and its answer in columns of
their own (`instruction`, `input`, `output`; `prompt`, `response`; ...). Nothing is guessed from values: the first known
columns of a file decide for all its rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = {
    "system": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_MESSAGES = ("messages", "conversations", "conversation")
# Names of question, more of the question, and answer, in the order in which they are looked for.
_COLUMNS = (
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("prompt", None, "response"),
    ("prompt", None, "completion"),
    ("question", None, "answer"),
)
# Rows that no conversation can be read from: a broken file, not a choice. The others are dropped and counted.
MALFORMED = ("not_json", "no_columns", "unknown_role", "roles_in_disorder", "template_refuses")


class ExamplesError(ValueError):
    """Instruction files that cannot be used as asked."""


@dataclass(frozen=True)
class Turn:
    """One message. `parts` are an instruction and its input where they stood apart in the file."""

    role: str
    content: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One row of a file.

    Attributes:
        file: as the recipe's set names it.
        row: its number in the file, from 0; blank lines do not count.
        turns: the conversation, ending with an answer; empty where there is none.
        reason: why there is none; None where there is one.
        detail: the value that `reason` is about.
    """

    file: str
    row: int
    turns: tuple[Turn, ...] = ()
    reason: str | None = None
    detail: str = ""


def find_files(paths: Sequence[str], name: str) -> list[Path]:
    """Files of a set in order of their paths: files, folders and globs.

    Raises:
        ExamplesError: for a path that names no file, or one of another format.
    """
    found: list[Path] = []
    for path in paths:
        place = Path(path)
        here = sorted(place.rglob("*")) if place.is_dir() else _globbed(place)
        files = [one for one in here if one.is_file() and (_format(one) or not place.is_dir())]
        if not files:
            raise ExamplesError(f"finetuning.examples.{name}: no JSONL, JSON or Parquet file at {path}")
        found += files
    for file in found:
        if _format(file) is None:
            raise ExamplesError(f"finetuning.examples.{name}: {file}: not one of {', '.join(SUFFIXES)}")
    return list(dict.fromkeys(found))


def _globbed(place: Path) -> list[Path]:
    """The file, or those that a pattern means."""
    return [place] if place.exists() else sorted(Path(place.anchor).glob(str(place.relative_to(place.anchor))))


def _format(path: Path) -> str | None:
    suffixes = path.suffixes[-2:]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def read_examples(file: Path, label: str, fields: Mapping[str, str], system: str | None = None) -> Iterator[Example]:
    """Read a file's rows as conversations, one at a time.

    Memory: one row (JSON: the whole file; Parquet: 1,024 rows).

    Args:
        file: JSONL, a JSON list, or Parquet; JSON also compressed.
        label: what examples call the file.
        fields: part of a conversation -> column, over what the columns' names tell.
        system: system turn of conversations that have none.
    """
    chosen: dict[str, str] | None = None
    for row, record in enumerate(_records(file)):
        if not isinstance(record, Mapping):
            yield Example(label, row, reason="not_json", detail=str(record)[:80])
            continue
        if chosen is None or not _fits(chosen, record):
            chosen = _columns(record, fields)
        yield _example(label, row, record, chosen, system)


def _records(file: Path) -> Iterator[Any]:
    kind = _format(file)
    if kind == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(1024):
                yield from batch.to_pylist()
        return
    import fsspec

    with fsspec.open(str(file), "rb", compression="infer") as stream:
        if kind == ".json":
            whole = stream.read()
            try:
                rows = json.loads(whole)
            except ValueError:
                rows = None  # many a .json is JSONL
            if isinstance(rows, list):
                yield from rows
                return
            lines: Any = whole.splitlines()
        else:
            lines = stream
        for line in lines:
            if line.strip():
                yield _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line[:80].decode(errors="replace")


def _columns(record: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """Part of a conversation -> column of a record; empty where none is known."""
    if fields:
        return dict(fields)
    extra = {"system": "system"} if isinstance(record.get("system"), str) else {}
    for column in _MESSAGES:
        if column in record:
            return {"messages": column, **extra}
    for question, more, answer in _COLUMNS:
        if question in record and answer in record:
            found = {"instruction": question, "output": answer, **extra}
            return {**found, "input": more} if more in record else found
    return {}


def _fits(chosen: Mapping[str, str], record: Mapping[str, Any]) -> bool:
    return bool(chosen) and all(column in record for column in chosen.values())


def _example(
    label: str, row: int, record: Mapping[str, Any], columns: Mapping[str, str], system: str | None
) -> Example:
    if not columns or not all(columns[key] in record for key in columns if key not in ("system", "input")):
        return Example(label, row, reason="no_columns", detail=", ".join(map(str, record))[:80])
    turns: list[Turn] = []
    told = _text(record.get(columns.get("system", ""))) or system
    if "messages" in columns:
        messages = record[columns["messages"]]
        if not isinstance(messages, list | tuple):
            return Example(label, row, reason="no_columns", detail=f"{columns['messages']}: {str(messages)[:60]}")
        for message in messages:
            role = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
            if str(role).lower() not in ROLES:
                return Example(label, row, reason="unknown_role", detail=str(role))
            turns.append(Turn(ROLES[str(role).lower()], _text(message.get("content", message.get("value")))))
    else:
        instruction = _text(record[columns["instruction"]])
        more = _text(record.get(columns.get("input", "")))
        question = Turn("user", f"{instruction}\n\n{more}", (instruction, more)) if more else Turn("user", instruction)
        turns = [question, Turn("assistant", _text(record[columns["output"]]))]
    if told and (not turns or turns[0].role != "system"):
        turns.insert(0, Turn("system", told))
    return _checked(label, row, turns)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def _checked(label: str, row: int, turns: list[Turn]) -> Example:
    """The conversation up to its last answer, if its turns are in order and none is empty."""
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        return Example(label, row, reason="no_answer")
    spoken = turns[1:] if turns[0].role == "system" else turns
    wanted = ("user", "assistant") * len(spoken)
    for turn, role in zip(spoken, wanted):
        if turn.role != role:
            return Example(label, row, reason="roles_in_disorder", detail=f"{turn.role} where {role} is due")
    for turn in spoken:
        if not turn.content:
            return Example(label, row, reason="empty_answer" if turn.role == "assistant" else "empty_prompt")
    return Example(label, row, tuple(turns))
