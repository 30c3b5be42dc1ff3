"""Learning rates: pure functions of the token clock. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("cosine", "linear", "wsd")


@dataclass(frozen=True)
class LearningRate:
    """A course of the learning rate over tokens.

    Attributes:
        peak: highest value.
        total_tokens: tokens at which `final` is reached.
        warmup_tokens: tokens of the linear rise from 0.
        final: value at the end.
        shape: cosine or linear fall from the end of the warm-up, or wsd (stays at the peak, then falls linearly).
        decay_tokens: length of wsd's fall; the others fall all the way.
    """

    peak: float
    total_tokens: int
    warmup_tokens: int = 0
    final: float = 0.0
    shape: str = "cosine"
    decay_tokens: int = 0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"learning rate shape '{self.shape}' is unknown; choose one of {', '.join(SHAPES)}")
        falling = self.decay_tokens if self.shape == "wsd" else 0
        if self.warmup_tokens + falling > self.total_tokens:
            raise ValueError(
                f"learning_rate.warmup of {self.warmup_tokens:,} tokens"
                f"{f' and learning_rate.decay of {falling:,}' if falling else ''} are longer than the run's "
                f"{self.total_tokens:,} tokens; shorten {'one of them' if falling else 'it'}"
            )


def learning_rate_at(course: LearningRate, tokens: int) -> float:
    """The learning rate of the train step that ends at `tokens`.

    Counting to the step's end gives the first step a rate above 0 and the last one exactly `final`.
    """
    if tokens < course.warmup_tokens:
        return course.peak * tokens / course.warmup_tokens
    start = course.total_tokens - course.decay_tokens if course.shape == "wsd" else course.warmup_tokens
    if tokens >= course.total_tokens:
        return course.final if course.total_tokens > start else course.peak
    if tokens <= start:
        return course.peak
    fallen = (tokens - start) / (course.total_tokens - start)
    if course.shape == "cosine":
        fallen = (1 - math.cos(math.pi * fallen)) / 2
    return course.peak + (course.final - course.peak) * fallen
