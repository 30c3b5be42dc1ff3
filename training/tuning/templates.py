"""Chat templates: a conversation as text, and where its answers stand in it. No torch.

Templates are Jinja as Hugging Face's tokenizers have them (`chat_template`): they see `messages`, `bos_token`,
`eos_token` and `add_generation_prompt`. An answer's place is found exactly, in one of two ways: by the template's own
`{% generation %}` marks, else as what the text grows by when the answer joins the conversation that asks for it. White
space behind an answer's end mark is not learnt: generation has stopped by then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training.tuning.examples import Turn

# Noncharacters of Unicode: no text has them, and a text that does is dropped.
MARKS = ("\ufdd0", "\ufdd1")

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# The instruction and its input stand apart where the file had them apart.
_ALPACA = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'user' -%}
{{- '### Instruction:\\n' + (message['instruction'] or message['content']) + '\\n\\n' -}}
{%- if message['input'] -%}{{- '### Input:\\n' + message['input'] + '\\n\\n' -}}{%- endif -%}
{%- else -%}{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""
# As MindLLM-1.3B-chat is asked.
_MINDLLM = """\
{{- eos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{- '<assistant>\\n' + message['content'] + eos_token + '\\n' -}}
{%- else -%}{{- '<' + message['role'] + '>\\n' + message['content'] + '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<assistant>\\n' -}}{%- endif -%}
"""
# A question, a line break and its answer: no new token, little to learn.
_PLAIN = """\
{%- for message in messages -%}
{{- message['content'] + (eos_token + '\\n' if message['role'] == 'assistant' else '\\n') -}}
{%- endfor -%}
"""
SOURCES = {"chatml": _CHATML, "alpaca": _ALPACA, "mindllm": _MINDLLM, "plain": _PLAIN}
# Tokens that a template needs and that tokenizers often lack.
NEW_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>")}


def with_system(source: str, system: str | None) -> str:
    """A template that writes a system turn of its own where a conversation brings none; the same one without.

    So whoever asks with the exported template, a chat server too, asks as the examples did.
    """
    if not system:
        return source
    text = json.dumps(system, ensure_ascii=False)  # escapes that Jinja's texts have too
    # The line break is the block's own (`trim_blocks`): what follows begins a line, as it did before.
    return (
        "{% if not messages or messages[0]['role'] != 'system' %}"
        f"{{% set messages = [{{'role': 'system', 'content': {text}}}] + messages %}}{{% endif %}}\n{source}"
    )


class TemplateError(ValueError):
    """A template that cannot write a conversation as it should."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text: `spans` are (start, end) of its answers in characters, end marks included."""

    text: str
    spans: tuple[tuple[int, int], ...]


class _Generation(Extension):
    """The tag `{% generation %}`: puts MARKS around what an assistant says."""

    tags = {"generation"}  # noqa: RUF012  jinja2 reads it from the class

    def parse(self, parser: Any) -> nodes.Node:
        """Wrap the block's body in a call of `_marked`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{MARKS[0]}{caller()}{MARKS[1]}"


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


@dataclass(frozen=True)
class Template:
    """A chat template.

    Attributes:
        name: a word of the recipe, or the file's path.
        source: Jinja.
        special: what `bos_token` and such are; a name that is missing is an empty text.
        new_tokens: special tokens that the tokenizer must have.
    """

    name: str
    source: str
    special: Mapping[str, str] = field(default_factory=dict)
    new_tokens: tuple[str, ...] = ()

    @cached_property
    def _compiled(self) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _refuse
        try:
            return environment.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"finetuning.template: {self.name}, line {error.lineno}: {error.message}") from error

    @property
    def marks_answers(self) -> bool:
        """Whether the template says itself what an assistant says."""
        return "generation" in self.source and "endgeneration" in self.source

    def text_of(self, turns: Sequence[Turn], ask: bool = False) -> str:
        """The text of a conversation, with the marks of answers if there are; `ask`: up to where an answer begins.

        Raises:
            jinja2.TemplateError: what the template itself refuses.
        """
        special = {f"{kind}_token": self.special.get(kind, "") for kind in ("bos", "eos", "pad", "unk")}
        messages = [_message(turn) for turn in turns]
        return self._compiled.render(
            messages=messages, add_generation_prompt=ask, tools=None, documents=None, **special
        )

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """Write a conversation and find its answers.

        Raises:
            jinja2.TemplateError: what the template itself refuses.
            TemplateError: if it leaves a turn out, or its answers cannot be told from the rest.
        """
        whole = self.text_of(turns)
        text, spans = _unmarked(whole) if self.marks_answers else (whole, self._grown(turns, whole))
        place = 0
        for turn in turns:
            for part in turn.parts if turn.parts and turn.content.strip() not in text else (turn.content,):
                found = text.find(part.strip(), place)  # many a template trims
                if found < 0:
                    raise TemplateError(
                        f"finetuning.template: {self.name} leaves out the {turn.role}'s turn {part[:60]!r} "
                        f"of a conversation of {len(turns)} turns; mend the template, or drop such turns from the file"
                    )
                place = found + len(part.strip())
        answers = sum(turn.role == "assistant" for turn in turns)
        if len(spans) != answers:
            raise TemplateError(f"finetuning.template: {self.name} marks {len(spans)} answers of {answers}")
        return Rendered(text, tuple(spans))

    def _grown(self, turns: Sequence[Turn], whole: str) -> list[tuple[int, int]]:
        """Places of answers, by what the text grows by with each."""
        spans = []
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            before, after = self.text_of(turns[:number], ask=True), self.text_of(turns[: number + 1])
            if not after.startswith(before) or not whole.startswith(after.rstrip()):
                raise TemplateError(
                    f"finetuning.template: {self.name} writes turn {number + 1} of {len(turns)} differently once "
                    "others follow, so its answers cannot be found; mark them: {% generation %}...{% endgeneration %}"
                )
            spans.append((len(before), len(after.rstrip())))
        return spans


def _message(turn: Turn) -> dict[str, str]:
    instruction, more = turn.parts if turn.parts else ("", "")
    return {"role": turn.role, "content": turn.content, "instruction": instruction, "input": more}


def _unmarked(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """Text without its marks, and the places that they enclosed, trailing white space left out."""
    pieces, spans, length = [], [], 0
    outside, *inside = marked.split(MARKS[0])
    pieces.append(outside)
    length += len(outside)
    for piece in inside:
        answer, _, rest = piece.partition(MARKS[1])
        spans.append((length, length + len(answer.rstrip())))
        pieces += [answer, rest]
        length += len(answer) + len(rest)
    return "".join(pieces), spans
