"""Evaluation as a part of a run: held-out loss per domain of the trained model."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recipes.artifacts import key_of
from recipes.pretraining.train import TARGET_HELD_OUT

if TYPE_CHECKING:
    from recipes.run import Run

VERSION = 2
MICRO_BATCH = 8


def evaluate(run: Run) -> list[dict[str, Any]]:
    """Held-out loss of every domain at the last checkpoint, measured as on the way: its windows up to a cap.

    Precision and document masks are those of the training, so the last measurement of a training that ends there is the
    same. On a GPU where there is one.
    """
    checkpoint = run.trained
    key = key_of(VERSION, run.training.key, checkpoint.name, run.tokens.domains.folder.key, TARGET_HELD_OUT)
    known = run.recall("evaluation")
    title = "held-out loss"
    if known and known["key"] == key:
        run.narrator.reused(title, f"{len(known['domains'])} domains")
        return list(known["domains"])
    import torch

    from training.evaluate import evaluate_checkpoint
    from training.step import StepOptions
    from training.stream import open_held_out

    run.narrator.heading("Evaluation")
    started = time.monotonic()
    assert run.recipe.model is not None
    held_out = open_held_out(str(run.tokens.domains_path), run.recipe.model.context, TARGET_HELD_OUT)
    spec = run.training.spec
    options = StepOptions(MICRO_BATCH, precision=spec.precision, separator=spec.separator)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = [asdict(domain) for domain in evaluate_checkpoint(checkpoint, held_out, options=options, device=device)]
    run.remember("evaluation", {"key": key, "checkpoint": checkpoint.name, "domains": found})
    run.narrator.made(title, f"{len(found)} domains", time.monotonic() - started)
    return found
