"""From the recipe's steps to stages: which layers each source gets, in which order, and what reads what.

The steps are walked in order. What they measure and decide on one text is gathered; a step that edits text, or that
must see all sources at once, closes what was gathered before it: a signals layer and a decisions layer for each
source. So measures fuse into one pass over the text and rules into one pass over the signals.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation import config
from curation.bare_names import brought_names, last_measured, text_column
from curation.compiled import LocalStage, Program, ProgramError, Stage, matches
from curation.decisions import BucketStep, DecisionOptions, RuleStep, make_decisions
from curation.passes import RAW_TEXT, GivenSignal, SignalOptions, make_signals

# Columns of the rows layer that rules may name beside signals.
ROW_COLUMNS = ("origin_id", "url", "date", "licence", "size_bytes", "num_characters", "repaired")
# Steps that edit text; sources that are only validated on pass these alone, and are never dropped.
_TEXT_STEPS = ("extract", "clean", "lines")
# Steps that look at all their sources at once.
_SHARED_STEPS = ("dedup", "perplexity")
# Signals of the text as the source brings it, whatever edited it since.
_ORIGINAL = ("ccnet_original_length", "ccnet_original_nlines")
LANGUAGE_COLUMNS = ("language", "language_score")

Resolve = Callable[[Any, str], Any]


@dataclass
class _Open:
    """What has been gathered for one source and not yet become layers."""

    text: str = RAW_TEXT
    measured: set[str] = field(default_factory=set)  # layer columns that exist already
    names: set[str] = field(default_factory=set)  # registry signals to measure on the current text
    given: dict[str, str] = field(default_factory=dict)  # signals to measure that need a file -> the file
    files: dict[str, str] = field(default_factory=dict)  # layer column of each signal that needed one -> the file
    per_line: set[str] = field(default_factory=set)  # signals of which lines' values are kept
    language_model: str | None = None
    excerpt: tuple[int, int] | None = None
    identified: dict[str, tuple[str, Any]] = field(default_factory=dict)  # text -> model and excerpt of its language
    steps: list[RuleStep | BucketStep] = field(default_factory=list)
    max_drop: list[tuple[str, float]] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    columns: dict[str, str] = field(default_factory=dict)  # bare name -> layer column that a step made
    brought: dict[str, str] = field(default_factory=dict)  # bare name -> column that the source brings


class Compiler:
    """Walks the steps of a recipe and collects its stages. Use `compile_program`."""

    def __init__(
        self,
        sources: Mapping[str, config.Source],
        steps: Sequence[config.Step],
        resolve: Resolve,
        exempt: Sequence[str] = (),
        tokenizer: str | None = None,
        han: str = "characters",
    ) -> None:
        self.sources = dict(sorted(sources.items()))
        self.steps = steps
        self.resolve = resolve
        self.exempt = frozenset(exempt)
        self.tokenizer = tokenizer
        self.dictionary = _dictionary(han)
        self.stages: list[Stage] = []
        self.open = {name: _Open(brought=brought_names(source)) for name, source in self.sources.items()}

    def compile(self) -> list[Stage]:
        """All stages in order of work, after the rows layers that every source has."""
        for index, step in enumerate(self.steps):
            chosen = [name for name in self.sources if matches(name, step.sources)]
            if step.kind not in _TEXT_STEPS:
                chosen = [name for name in chosen if name not in self.exempt]
            path = f"steps[{index}] ({step.name})"
            if step.kind in _SHARED_STEPS:
                self._refuse_own_values(path, step, chosen)
            getattr(self, f"_{step.kind}")(path, step, chosen)
        self.close(list(self.sources))
        return self.stages

    def _refuse_own_values(self, path: str, step: config.Step, names: Sequence[str]) -> None:
        """A step that sees its sources at once has one set of values."""
        for name in names:
            if self.resolve(step, name) != step:
                raise ProgramError(
                    path,
                    f"it looks at all its sources at once, so sources.{name}.steps.{step.name} cannot change it; "
                    f"use a second {step.kind} step for {name} (`sources:` says which sources a step is for)",
                )

    # ------------------------------------------------------------ closing

    def close(self, names: Sequence[str]) -> None:
        """Turn what was gathered for some sources into a signals and a decisions layer each."""
        for name in names:
            self._close_signals(name)
            self._close_decisions(name)

    def _close_signals(self, name: str) -> None:
        state = self.open[name]
        if not (state.names or state.language_model or state.given or state.per_line):
            return
        from curation.language import LANGUAGE_VERSION
        from curation.signals import SIGNALS
        from curation.signals.given import GIVEN_SIGNALS
        from curation.signals.per_line import LINE_COLUMNS
        from curation.text.dictionary import SEGMENTATION as DICTIONARY_WORDS
        from curation.text.properties import with_tables

        names = tuple(sorted(state.names))
        dictionary = self._dictionary_for(names, state.per_line)
        options = SignalOptions(
            names=names,
            suffix=_suffix(state.text),
            versions=tuple(with_tables(SIGNALS[signal].version) for signal in names),
            language_model=state.language_model,
            language_version=LANGUAGE_VERSION if state.language_model else 0,
            excerpt=state.excerpt,
            given=tuple(
                GivenSignal(x, state.given[x], with_tables(GIVEN_SIGNALS[x].version)) for x in sorted(state.given)
            ),
            per_line=tuple(sorted(state.per_line)),
            dictionary=dictionary,
            words=DICTIONARY_WORDS if dictionary else "",
        )
        number = len(names) + len(state.given) or len(state.per_line)
        label = f"{number} signals" + (", language" if state.language_model else "")
        self.stages.append(LocalStage(name, "signals", label, make_signals, options))
        state.measured |= {f"{signal}{options.suffix}" for signal in (*names, *state.given)}
        if state.language_model:
            state.measured |= {f"{column}{options.suffix}" for column in LANGUAGE_COLUMNS}
        state.names, state.language_model, state.excerpt = set(), None, None
        state.measured |= {f"{LINE_COLUMNS[signal]}{options.suffix}" for signal in state.per_line}
        state.given, state.per_line = {}, set()

    def _dictionary_for(self, names: Sequence[str], per_line: Iterable[str]) -> str | None:
        """The dictionary where a signal of words is among those measured: the others do not change with it."""
        from curation.signals import SIGNALS

        of_words = per_line or any("words" in SIGNALS[name].needs for name in names)
        return self.dictionary if of_words else None

    def _close_decisions(self, name: str) -> None:
        state = self.open[name]
        if not state.steps:
            return
        label = ", ".join(step.step for step in state.steps)
        options = DecisionOptions(tuple(state.steps))
        stage = LocalStage(
            name, "decisions", label, make_decisions, options,
            tuple(sorted(state.needs)), reads_layers=True, steps=tuple(state.max_drop),
        )  # fmt: skip
        self.stages.append(stage)
        state.steps, state.max_drop, state.needs = [], [], set()

    # ------------------------------------------------------------ steps that gather

    def _language(self, path: str, step: config.Language, names: list[str]) -> None:
        from curation.language import resolve_model

        for name in names:
            mine = self.resolve(step, name)
            languages = self.sources[name].language
            if languages == ("code",):
                continue  # nothing to identify in program text
            self._measure_language(path, name, str(resolve_model(str(mine.model))), mine)
            declared = ", ".join(f"'{code}'" for code in languages)
            scores = [mine.min_score.get(code, mine.min_score["*"]) for code in languages]
            low = " OR ".join(f"(language = '{c}' AND language_score < {s!r})" for c, s in zip(languages, scores))
            rules = (("low_score", low), ("other_language", f"language NOT IN ({declared})"))
            self._add_rules(path, name, mine, rules)

    def _measure_language(self, path: str, name: str, model: str, step: config.Language) -> None:
        state = self.open[name]
        suffix = _suffix(state.text)
        excerpt = None if step.excerpt is None else (step.excerpt.pieces, step.excerpt.characters)
        if state.identified.setdefault(state.text, (model, excerpt)) != (model, excerpt):
            raise ProgramError(path, f"another step identifies the language of {name} by other values; use one of them")
        if f"language{suffix}" in state.measured or state.language_model is not None:
            return
        state.language_model, state.excerpt = model, excerpt
        state.columns |= {column: f"{column}{suffix}" for column in LANGUAGE_COLUMNS}

    def _rules(self, path: str, step: config.Rules, names: list[str]) -> None:
        from curation.rules import preset_rules

        for name in names:
            mine = self.resolve(step, name)
            rules = []
            if mine.preset is not None:
                language, cut = self.sources[name].language[0], self.dictionary is not None
                try:
                    rules += [(r.reason, r.sql) for r in preset_rules(mine.preset, language, mine.thresholds(), cut)[0]]
                except (KeyError, ValueError) as error:
                    raise ProgramError(path, str(error.args[0])) from None
            rules += sorted(mine.drop.items())
            self._add_rules(path, name, mine, tuple(rules))

    def _measure(self, path: str, step: config.Measure, names: list[str]) -> None:
        from curation.signals.given import GIVEN_SIGNALS
        from curation.signals.per_line import LINE_COLUMNS

        for name in names:
            mine, state = self.resolve(step, name), self.open[name]
            for signal, file in sorted(mine.files.items()):
                if signal not in GIVEN_SIGNALS:
                    raise ProgramError(f"{path}.files", f"{signal} takes no file; {', '.join(GIVEN_SIGNALS)} do")
                column = f"{signal}{_suffix(state.text)}"
                if (known := state.files.setdefault(column, str(file))) != str(file):
                    raise ProgramError(
                        f"{path}.files",
                        f"{signal} of {name} is measured on this text with {known} already; use one file",
                    )
                if column not in state.measured:
                    state.given[signal] = known
                state.columns[signal] = column
            columns = self.columns_for(path, name, mine.signals)
            if mine.per_line:
                lines = {signal for signal in columns if signal in LINE_COLUMNS}
                if not lines:
                    raise ProgramError(
                        f"{path}.per_line", f"none of its signals is of lines; {', '.join(LINE_COLUMNS)} are"
                    )
                suffix = _suffix(state.text)
                state.per_line |= {x for x in lines if f"{LINE_COLUMNS[x]}{suffix}" not in state.measured}

    def _add_rules(self, path: str, name: str, step: config.Step, rules: tuple[tuple[str, str], ...]) -> None:
        from curation.rules import Rule, signal_names

        if not rules:
            return
        wanted = signal_names([Rule(reason, sql) for reason, sql in rules])
        columns = self.columns_for(path, name, wanted)
        state = self.open[name]
        state.steps.append(RuleStep(step.name, rules, tuple(sorted(columns.items()))))
        state.max_drop.append((step.name, step.max_drop))

    def columns_for(self, path: str, name: str, wanted: Sequence[str]) -> dict[str, str]:
        """Layer column of each bare name, measured on the text as it stands at this step.

        A name that no step measures is what the source brings; an unknown one is answered with the nearest.
        """
        from curation.signals import SIGNALS

        state, found = self.open[name], {}
        for bare in wanted:
            if bare in state.columns:
                found[bare] = state.columns[bare]
            elif bare in _ORIGINAL and state.text:
                found[bare] = self._original(path, name, bare)
            elif bare in SIGNALS:
                column = f"{bare}{_suffix(state.text)}"
                if column not in state.measured:
                    state.names.add(bare)
                found[bare] = column
            elif bare in state.brought:
                found[bare] = state.brought[bare]
            elif bare in ROW_COLUMNS:
                found[bare] = bare
            else:
                raise ProgramError(path, self._unknown(name, bare))
        return found

    def _unknown(self, name: str, bare: str) -> str:
        """Why a name means nothing for a source, and which one may be meant."""
        from curation.signals import SIGNALS
        from curation.signals.given import GIVEN_SIGNALS

        if bare in GIVEN_SIGNALS:
            return f"{bare} needs a file: `- measure: {{files: {{{bare}: PATH}}}}` before this step"
        if bare == text_column(self.sources[name]):
            return f"{bare} holds the text of {name}; rules ask for signals of it, such as num_characters"
        state = self.open[name]
        near = difflib.get_close_matches(bare, [*SIGNALS, *state.columns, *state.brought, *ROW_COLUMNS], n=1)
        hint = f"did you mean {near[0]}?" if near else "a column of its files is read where its `where` names it"
        return f"no signal or column {bare!r} for source {name}; {hint}"

    def _original(self, path: str, name: str, bare: str) -> str:
        """Column of a signal of the source's own text, after a step has edited it."""
        if bare in self.open[name].measured:
            return bare
        if bare in self.open[name].brought:
            return self.open[name].brought[bare]
        raise ProgramError(
            path,
            f"{bare} is of the text as {name} brings it, and {self.open[name].text} has edited that; "
            f"measure it before: `- measure: {{signals: [{bare}]}}`",
        )

    # ------------------------------------------------------------ steps that close

    def _perplexity(self, path: str, step: config.Perplexity, names: list[str]) -> None:
        from curation.stages.perplexity import add_perplexity

        add_perplexity(self, path, step, names)

    def _dedup(self, path: str, step: config.Dedup, names: list[str]) -> None:
        from curation.stages.dedup import add_dedup

        add_dedup(self, path, step, names)

    def _lines(self, path: str, step: config.Lines, names: list[str]) -> None:
        from curation.stages.text import add_lines

        add_lines(self, path, step, names)

    def _clean(self, path: str, step: config.Clean, names: list[str]) -> None:
        from curation.stages.text import add_clean

        add_clean(self, path, step, names)

    def edited(self, name: str, step: str) -> None:
        """From here on, a source's text is what a step made of it, and bare signals are measured on that.

        What the source brings under the name of a signal that was measured before stands for it again.
        """
        state = self.open[name]
        state.text = step
        from curation.signals.given import GIVEN_SIGNALS

        for column in (*LANGUAGE_COLUMNS, *GIVEN_SIGNALS):
            state.columns.pop(column, None)

    def add_measured(self, stage: LocalStage, columns: Mapping[str, str]) -> None:
        """Add a signals stage whose columns later steps may name."""
        self.stages.append(stage)
        state = self.open[stage.source]
        state.columns |= columns
        state.measured |= set(columns.values())


def _dictionary(han: str) -> str | None:
    """The file of the words of Han text; None where each letter is a word.

    Raises:
        ProgramError: for a file that is not there or no dictionary, or a package that is not installed.
    """
    if han == "characters":
        return None
    from curation.text.dictionary import DictionaryError, load_dictionary, named_dictionary

    try:
        path = named_dictionary(han)
        assert path is not None
        load_dictionary(path)
    except (DictionaryError, OSError) as error:
        raise ProgramError("words.han", str(error)) from None
    return str(path)


def _suffix(text: str) -> str:
    return f"@{text}" if text else ""


def compile_program(
    sources: Mapping[str, config.Source],
    steps: Sequence[config.Step],
    resolve: Resolve,
    exempt: Sequence[str] = (),
    tokenizer: str | None = None,
    han: str = "characters",
) -> Program:
    """Stages of a recipe's curation, in order of work, after the rows layer of each source.

    Args:
        sources: the recipe's sources by name.
        steps: its steps, in order.
        resolve: (step, source name) -> the step with that source's own values.
        exempt: sources that are validated on and never trained on.
        tokenizer: the recipe's tokenizer where it is ready, for `pieces: tokenizer`.
        han: words of Han text: `characters`, `jieba` or the path of a dictionary.

    Raises:
        ProgramError: a rule names a signal that nobody measures, or a preset or option does not exist.
    """
    compiler = Compiler(sources, steps, resolve, exempt, tokenizer, han)
    stages = compiler.compile()
    texts = {step.name: place for place, step in enumerate(steps)}
    return Program(stages, {name: _last_columns(state, texts) for name, state in compiler.open.items()})


def _last_columns(state: _Open, texts: Mapping[str, int]) -> dict[str, str]:
    """Layer column of each bare name at the end: what a step made, else measured last, else what the source brings."""
    return state.brought | last_measured(state.measured, texts) | state.columns
