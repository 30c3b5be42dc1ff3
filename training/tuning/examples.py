"""Rows of instruction files as conversations, or the reason why one is none. No torch.

A row has a column of messages (`messages`, or ShareGPT's `conversations`), or a question and its answer in columns of
their own (`instruction`, `input`, `output`; `prompt`, `response`; ...). Nothing is guessed from values: the first known
columns of a file decide for all its rows that have them; `input` and `system` are looked up in each row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
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
_PAIR = {"instruction", "input", "output"}
# Parts that a row may lack.
OPTIONAL = {"input", "system"}
# Rows that no conversation can be read from: a broken file, not a choice. The others are dropped and counted.
MALFORMED = ("not_json", "no_columns", "not_text", "unknown_role", "roles_in_disorder", "template_refuses")


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


def read_examples(
    file: Path,
    label: str,
    fields: Mapping[str, str],
    system: str | None = None,
    unseen: set[str] | None = None,
) -> Iterator[Example]:
    """Read a file's rows as conversations, one at a time.

    Memory: one row (JSON: the whole file; Parquet: 1,024 rows).

    Args:
        file: JSONL, a JSON list, or Parquet; JSON also compressed.
        label: what examples call the file.
        fields: part of a conversation -> column, over what the columns' names tell.
        system: system turn of conversations that have none.
        unseen: columns, of which those that a row has are taken out.
    """
    chosen: dict[str, str] | None = None
    for row, record in enumerate(_records(file)):
        if not isinstance(record, Mapping):
            yield Example(label, row, reason="not_json", detail=str(record)[:80])
            continue
        if unseen:
            unseen.difference_update(record)
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
    """Part of a conversation -> column of a record, `fields` over what its columns' names tell; empty where none is.

    `input` and `system` are names that a row may lack: each row says itself whether it has them.
    """
    optional = {"system": fields.get("system", "system")}
    if not fields.keys() & _PAIR:
        for column in (fields["messages"],) if "messages" in fields else _MESSAGES:
            if column in record:
                return {"messages": column, **optional}
    if "messages" in fields:
        return {}
    for question, more, answer in _COLUMNS:
        found = {"instruction": fields.get("instruction", question), "output": fields.get("output", answer)}
        if all(column in record for column in found.values()):
            more = fields.get("input", more)
            return {**found, **optional, **({"input": more} if more else {})}
    return {}


def _fits(chosen: Mapping[str, str], record: Mapping[str, Any]) -> bool:
    return bool(chosen) and all(column in record for part, column in chosen.items() if part not in OPTIONAL)


class _UnreadableError(Exception):
    """Why a row is none: the reason, and the value that it is about."""


def _example(
    label: str, row: int, record: Mapping[str, Any], columns: Mapping[str, str], system: str | None
) -> Example:
    try:
        return _checked(label, row, _turns(record, columns, system))
    except _UnreadableError as found:
        reason, detail = found.args
        return Example(label, row, reason=reason, detail=detail)


def _turns(record: Mapping[str, Any], columns: Mapping[str, str], system: str | None) -> list[Turn]:
    """The turns of a row, not yet checked; `system` where it brings none."""
    if not columns:
        raise _UnreadableError("no_columns", ", ".join(map(str, record))[:80])
    if "messages" in columns:
        messages = record[columns["messages"]]
        if not isinstance(messages, list | tuple):
            raise _UnreadableError("no_columns", f"{columns['messages']}: {str(messages)[:60]}")
        turns = [_turn(message) for message in messages]
    else:
        turns = _asked(record, columns) + _said(record, columns["output"], "assistant")
    told = _text(record.get(columns["system"]), columns["system"]) or system
    if told and (not turns or turns[0].role != "system"):
        turns.insert(0, Turn("system", told))
    return turns


def _turn(message: Any) -> Turn:
    """A message with `role` and `content`, or ShareGPT's `from` and `value`."""
    if not isinstance(message, Mapping):
        raise _UnreadableError("unknown_role", "None")
    role = message.get("role") or message.get("from")
    if str(role).lower() not in ROLES:
        raise _UnreadableError("unknown_role", str(role))
    content = "content" if message.get("content") is not None else "value"
    return Turn(ROLES[str(role).lower()], _text(message.get(content), content))


def _asked(record: Mapping[str, Any], columns: Mapping[str, str]) -> list[Turn]:
    """The question of a row, with its input behind it where it has one."""
    turns = _said(record, columns["instruction"], "user")
    more = _text(record.get(columns["input"]), columns["input"]) if "input" in columns else ""
    if more:
        instruction = turns[-1].content
        turns[-1] = Turn(turns[-1].role, f"{instruction}\n\n{more}", (instruction, more))
    return turns


def _said(record: Mapping[str, Any], column: str, role: str) -> list[Turn]:
    """What a column says: a text by `role`, or messages, as TRL has them in `prompt` and `completion`."""
    value = record[column]
    if isinstance(value, list | tuple) and value and all(_is_message(one) for one in value):
        return [_turn(message) for message in value]
    return [Turn(role, _text(value, column))]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and bool({"role", "from"} & value.keys())


def _text(value: Any, column: str) -> str:
    """A text, a number's digits, or OpenAI's list of text parts joined; nothing for null and NaN (pandas' null)."""
    if isinstance(value, str):
        return _trimmed(value)
    if value is None or value != value:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple) and all(_is_text_part(one) for one in value):
        return _trimmed("".join(one["text"] for one in value))
    raise _UnreadableError("not_text", f"{column}: {str(value)[:60]}")


def _is_text_part(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "text" and isinstance(value.get("text"), str)


def _trimmed(text: str) -> str:
    """Text without blank lines around it; its first line keeps its indentation, which code needs.

    One single space is none: older files of prompts and completions begin each completion with it.
    """
    bare = text.strip()
    margin = text[: len(text) - len(text.lstrip())].rpartition("\n")[2]
    return bare if margin == " " or not bare else margin + bare


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
