"""Steps that edit text as stages: each writes a new text layer, and a row that loses all its text gets a reason.

An edit sees survivors only; what a row lost is counted, and where the new text stands the layers after it are named by
the step: `word_count@soup` is measured on what `soup` left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation import config
from curation.compiled import LocalStage, ProgramError
from curation.layers import with_reasons, write_layer
from curation.passes import ShardInputs, kept_text
from curation.stage import Counts, Output

if TYPE_CHECKING:
    from curation.program import Compiler

EMPTIED = "emptied"
CLEAN_VERSION = 2  # raise when a text may be cleaned otherwise by the same options


@dataclass(frozen=True)
class LineOptions:
    """Lines or paragraphs to drop: (reason, SQL) pairs, and how kept lines are joined."""

    step: str
    rules: tuple[tuple[str, str], ...]
    unit: str
    clean: bool
    version: int
    tokenizer: str | None = field(default=None, metadata={"content": True})
    language_model: str | None = field(default=None, metadata={"content": True})
    language_version: int = 0
    tokenizer_version: int = 0


@dataclass(frozen=True)
class CleanOptions:
    """Characters to edit: undo wrongly decoded UTF-8, a Unicode normal form, white space."""

    step: str
    repair: bool
    unicode: Literal["NFC", "NFKC"] | None
    whitespace: bool
    version: int = 1  # another than this default, so that it counts in the stage's key


def add_lines(compiler: Compiler, path: str, step: config.Lines, names: list[str]) -> None:
    """Add the stages of a `lines` step to a program."""
    from curation.lines import LINES_VERSION
    from curation.rule_presets import load_preset
    from curation.rules import RuleError, preset_rules
    from curation.text.properties import with_tables

    compiler.close(names)
    for name in names:
        mine = compiler.resolve(step, name)
        rules, clean, unit = [], False, mine.unit or "line"
        if mine.preset is not None:
            try:
                found = preset_rules(mine.preset, compiler.sources[name].language[0], mine.thresholds())[0]
                preset = load_preset(mine.preset)
            except (KeyError, ValueError) as error:
                raise ProgramError(path, str(error.args[0])) from None
            rules += [(rule.reason, rule.sql) for rule in found]
            clean, unit = preset.clean, mine.unit or preset.unit or unit
            if clean and unit != preset.unit:
                raise ProgramError(
                    f"{path}.unit", f"{mine.preset} strips {preset.unit}s and joins them; leave `unit` out"
                )
        rules += sorted(mine.drop.items())
        tokenizer = None if mine.tokenizer is None else str(mine.tokenizer)
        try:
            model, version = _identified_by(mine, rules)
        except RuleError as error:
            raise ProgramError(path, str(error)) from None
        made_by = with_tables(LINES_VERSION)
        options = LineOptions(
            step.name, tuple(rules), unit, clean, made_by, tokenizer, model, version, _counted_by(tokenizer)
        )
        add_text(compiler, name, mine, edit_lines_of_shard, options)


def _counted_by(tokenizer: str | None) -> int:
    """The version of what is done with a tokenizer: before 1, a tokenizer.json could cut or pad a line."""
    return 1 if tokenizer is not None and tokenizer.endswith(".json") else 0


def _identified_by(step: config.Lines, rules: Sequence[tuple[str, str]]) -> tuple[str | None, int]:
    """The language model of rules that ask for a line's language, and the version of what is done with it."""
    from curation.language import LANGUAGE_VERSION, resolve_model
    from curation.rules import Rule, signal_names

    asked = signal_names([Rule(reason, sql) for reason, sql in rules])
    if not {"language", "language_score"} & set(asked):
        return None, 0
    return str(resolve_model(str(step.model))), LANGUAGE_VERSION


def add_clean(compiler: Compiler, path: str, step: config.Clean, names: list[str]) -> None:
    """Add the stages of a `clean` step to a program."""
    compiler.close(names)
    for name in names:
        mine = compiler.resolve(step, name)
        options = CleanOptions(step.name, mine.repair, mine.unicode, mine.whitespace, CLEAN_VERSION)
        add_text(compiler, name, mine, clean_shard, options)


def add_text(
    compiler: Compiler, name: str, step: Any, work: Callable[..., Any], options: Any, needs: tuple[str, ...] = ()
) -> None:
    """Add a stage that writes a source's new text layer; what follows is measured on it."""
    compiler.stages.append(
        LocalStage(
            name, "text", step.name, work, options, needs, reads_layers=True, steps=((step.name, step.max_drop),)
        )
    )
    compiler.edited(name, step.name)


# ---------------------------------------------------------------- what the stages do


def edit_lines_of_shard(inputs: ShardInputs, options: LineOptions, output: Output) -> Counts:
    """Drop lines of a shard's kept rows by rules over single lines."""
    from curation.language import LanguageModel
    from curation.lines import edit_lines, token_counter
    from curation.rules import Rule

    rules = [Rule(reason, sql) for reason, sql in options.rules]
    tokens = None if options.tokenizer is None else token_counter(options.tokenizer)
    identify = None if options.language_model is None else LanguageModel(options.language_model).identify
    counts: Counter[str] = Counter()

    def edit(text: pa.Array) -> pa.Array:
        edited = edit_lines(text, rules, options.unit, clean=options.clean, tokens=tokens, identify=identify)
        counts["lines"] += int(edited.num_lines.sum())
        counts["lines_dropped"] += int(edited.num_dropped.sum())
        for reason, number in edited.by_reason.items():
            counts[f"line.{options.step}.{reason}"] += number
        return edited.text

    return write_text(inputs, options.step, edit, output) | counts


def clean_shard(inputs: ShardInputs, options: CleanOptions, output: Output) -> Counts:
    """Edit the characters of a shard's kept rows."""
    return write_text(inputs, options.step, lambda text: cleaned(text, options), output)


def write_text(
    inputs: ShardInputs,
    step: str,
    edit: Callable[[pa.Array], Any],
    output: Output,
    columns: Mapping[str, pa.DataType] | None = None,
) -> dict[str, Any]:
    """Write a text layer: `row, text, drop@step`; bit 0 of the last says that nothing was left of a kept row's text.

    White space is nothing: a text of blank lines is dropped, not counted as kept.

    With `columns` (name -> type) the edit returns the new text and an array for each of these, for the ledger.
    """
    counts: Counter[str] = Counter()
    schema = pa.schema([("row", pa.int64()), ("text", pa.large_string()), (f"drop@{step}", pa.uint64())])
    for name, kind in (columns or {}).items():
        schema = schema.append(pa.field(f"{name}@{step}", kind))

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in kept_text(inputs):
            before = batch.column("text")
            after, more = (edit(before), []) if columns is None else edit(before)
            blank = pc.or_(pc.equal(pc.binary_length(after), 0), pc.utf8_is_space(after))
            left = pc.fill_null(pc.invert(blank), False)
            had = pc.fill_null(pc.greater(pc.binary_length(before), 0), False)
            emptied = pc.and_(had, pc.invert(left))
            counts["rows"] += batch.num_rows
            counts[f"reached.{step}"] += int(pc.sum(batch.column("kept")).as_py() or 0)
            counts[f"drop.{step}.{EMPTIED}"] += int(pc.sum(emptied).as_py() or 0)
            counts["bytes_before"] += pc.sum(pc.binary_length(before)).as_py() or 0
            counts["bytes"] += pc.sum(pc.binary_length(after)).as_py() or 0
            arrays = [batch.column("row"), after, emptied.cast(pa.uint64()), *more]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    write_layer(output.path(".parquet"), rows(), with_reasons(schema, {step: [EMPTIED]}))
    counts["kept"] = counts[f"reached.{step}"] - counts[f"drop.{step}.{EMPTIED}"]
    return dict(counts)


# Vertical tab, form feed and separators part lines, as str.splitlines has it and our signals of lines count them.
_BREAKS = "[\x0b\x0c\x1c-\x1e]"
_CONTROL = "[\x00-\x08\x0e-\x1b\x1f\x7f]"
_BLANKS = "[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+"
# What UTF-8 read as Windows-1252 or Latin-1 looks like: a lead byte's letter followed by a continuation byte's.
_CONTINUATION = "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
_MOJIBAKE = f"[\u00c2-\u00f4][{_CONTINUATION}]"


def cleaned(text: pa.Array, options: CleanOptions) -> pa.Array:
    """Texts with characters edited as the options say.

    Wrongly decoded UTF-8 is undone by ftfy, on texts that show its signs; the rest is one pass of a regular expression
    each.
    """
    if options.repair:
        text = _repaired(text)
        text = pc.replace_substring_regex(text, _BREAKS, "\n")
        text = pc.replace_substring_regex(text, _CONTROL, "")
    if options.unicode is not None:
        text = pc.utf8_normalize(text, form=options.unicode)
    if options.whitespace:
        for pattern, replacement in (("\r\n?", "\n"), (_BLANKS, " "), (" ?\n ?", "\n"), ("\n{3,}", "\n\n")):
            text = pc.replace_substring_regex(text, pattern, replacement)
        text = pc.utf8_trim_whitespace(text)
    return text


def _repaired(text: pa.Array) -> pa.Array:
    import ftfy

    suspicious: Sequence[bool] = pc.fill_null(pc.match_substring_regex(text, _MOJIBAKE), False).to_pylist()
    if not any(suspicious):
        return text
    texts = text.to_pylist()
    fixed = [ftfy.fix_encoding(one) if bad else one for one, bad in zip(texts, suspicious)]
    return pa.array(fixed, pa.large_string())
