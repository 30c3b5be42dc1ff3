"""The plan as an object and as JSON: which domains, phases and spans a run has. `mixing.plan` makes it.

Domains are sorted by name. The plan's id is the hash of its JSON without the id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mixing.schedule import Blocked, BySignal, OrderKind, Steps, Uniform
from mixing.spans import Span

FORMAT = 1
_BEFORE_ID, _AFTER_ID, _END = '{"id": "', '", "plan": ', "}\n"


class PlanError(ValueError):
    """A plan that cannot be made or read."""


@dataclass(frozen=True)
class DomainSupply:
    """What a domain can give, after held-out text.

    Attributes:
        name: the domain, such as `web_de/head`.
        num_tokens: distinct tokens.
        num_documents: documents.
        size_bytes: UTF-8 bytes of their text.
        num_characters: characters of their text.
        sequences: (context, number of sequences) where packing makes it differ from (tokens - 1) // context.
    """

    name: str
    num_tokens: int
    num_documents: int = 0
    size_bytes: int = 0
    num_characters: int = 0
    sequences: tuple[tuple[int, int], ...] = ()

    def num_sequences(self, context: int) -> int:
        """Return the sequences of `context` tokens; every token but the domain's first is predicted once."""
        return dict(self.sequences).get(context, max(0, (self.num_tokens - 1) // context))

    def tokens_of_pass(self, context: int) -> int:
        """Return the tokens of a pass; packed sequences hold padding, and tokens twice where a document was cut."""
        packed = dict(self.sequences).get(context)
        return self.num_tokens if packed is None else packed * context


@dataclass(frozen=True)
class PlannedPhase:
    """A phase in whole train steps, with integer weights.

    `weights` are nominal, by domain; under `shortage: spread` they differ from the recipe's. A ramp's span comes first.
    """

    name: str
    context: int
    start: int
    num_positions: int
    window: int
    order: OrderKind
    steps: tuple[Steps, ...]
    weights: Mapping[str, int]
    spans: tuple[Span, ...]

    @property
    def stop(self) -> int:
        """The first position after the phase."""
        return self.start + self.num_positions

    @property
    def num_steps(self) -> int:
        """Train steps of the phase."""
        return sum(run.num_steps for run in self.steps)

    @property
    def num_tokens(self) -> int:
        """Tokens trained in the phase."""
        return self.num_positions * self.context


@dataclass(frozen=True)
class Plan:
    """Schedule x sizes x seed, made explicit; see the module's docstring."""

    seed: int
    domains: tuple[DomainSupply, ...]
    max_epochs: Mapping[str, float]
    """Cap on passes over a domain, for those that have one."""
    phases: tuple[PlannedPhase, ...]
    warnings: tuple[str, ...] = field(default=())
    stretch_tokens: int = 0
    """Text that stays together when a domain is shuffled; 0: every sequence goes anywhere."""

    @cached_property
    def id(self) -> str:
        """Hash of the plan's JSON, 32 hexadecimal digits."""
        return hashlib.blake2b(self._json().encode(), digest_size=16).hexdigest()

    @property
    def num_positions(self) -> int:
        """Sequences of the run."""
        return self.phases[-1].stop

    @property
    def num_steps(self) -> int:
        """Train steps of the run."""
        return sum(phase.num_steps for phase in self.phases)

    @property
    def num_tokens(self) -> int:
        """Tokens of the run."""
        return sum(phase.num_tokens for phase in self.phases)

    @property
    def spans(self) -> list[tuple[PlannedPhase, Span]]:
        """All spans in order, each with its phase."""
        return [(phase, span) for phase in self.phases for span in phase.spans]

    def to_json(self) -> str:
        """Return the plan as JSON with its id, the same bytes for the same plan."""
        return f"{_BEFORE_ID}{self.id}{_AFTER_ID}{self._json()}{_END}"

    def _json(self) -> str:
        fields = {
            "format": FORMAT,
            **vars(self),
            "domains": [vars(domain) for domain in self.domains],
            "phases": [_phase_fields(phase) for phase in self.phases],
        }
        fields.pop("id", None)  # cached beside the fields
        if not self.stretch_tokens:  # plans made before there were stretches keep their ids
            fields.pop("stretch_tokens")
        return json.dumps(fields, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan as `to_json` wrote it, byte for byte.

        Raises:
            PlanError: if the text is no plan, is of another format, or does not match its id.
        """
        try:
            content = json.loads(text)
            fields = content["plan"]
            if fields["format"] != FORMAT:
                raise PlanError(f"plan format {fields['format']} is not {FORMAT}; make the plan again")
            plan, told = _plan_of(fields), str(content["id"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"not a plan: {type(error).__name__}: {error}") from error
        # the bytes as they stand are hashed: writing 10,000 domains out again would take longer than reading them
        body = text[len(_BEFORE_ID) + len(told) + len(_AFTER_ID) : -len(_END)]
        if hashlib.blake2b(body.encode(), digest_size=16).hexdigest() != told:
            raise PlanError(f"plan {told} was changed after it was written; make it again")
        return plan


def _phase_fields(phase: PlannedPhase) -> dict[str, Any]:
    order = phase.order
    words: dict[str, Any] = {"kind": "uniform"}
    if isinstance(order, Blocked):
        words = {"kind": "blocked", "blocks": order.blocks}
    elif isinstance(order, BySignal):
        words = {"kind": "by", "signal": order.signal, "descending": order.descending}
    return {
        **vars(phase),
        "order": words,
        "steps": [vars(run) for run in phase.steps],
        "spans": [vars(span) for span in phase.spans],
    }


def _order_of(words: Mapping[str, Any]) -> OrderKind:
    if words["kind"] == "blocked":
        return Blocked(tuple(tuple(block) for block in words["blocks"]))
    return BySignal(words["signal"], words["descending"]) if words["kind"] == "by" else Uniform()


def _span_of(fields: Mapping[str, Any]) -> Span:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return Span(**values)


def _plan_of(fields: Mapping[str, Any]) -> Plan:
    """Build a plan from its JSON fields."""
    domains = tuple(
        DomainSupply(**{**domain, "sequences": tuple((c, n) for c, n in domain["sequences"])})
        for domain in fields["domains"]
    )
    phases = tuple(
        PlannedPhase(
            **{
                **phase,
                "order": _order_of(phase["order"]),
                "steps": tuple(Steps(**run) for run in phase["steps"]),
                "spans": tuple(_span_of(span) for span in phase["spans"]),
            }
        )
        for phase in fields["phases"]
    )
    stretch = fields.get("stretch_tokens", 0)
    return Plan(fields["seed"], domains, fields["max_epochs"], phases, tuple(fields["warnings"]), stretch)
