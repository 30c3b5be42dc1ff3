"""Fine-tuning as a part of a run: start, examples, training, export.

Three artifacts, each keyed by what made it: `examples-<key>` (packed conversations, their ledger, the tokenizer),
`tuning-<key>` (checkpoints and log of the training), `tuned-<key>` (what others load). The loop, the order, checkpoints
and resume are those of pretraining.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.artifacts import key_of
from recipes.errors import RunError
from recipes.finetuning.finetuned import export_tuned, plan_tuning, train_tuning
from recipes.finetuning.numbers import steps_of, table
from recipes.finetuning.start import Start, start_of, weights_of
from recipes.pipeline import held
from training.models.shape import ModelShape

if TYPE_CHECKING:
    from recipes.run import Run
    from training.tuning.prepare import Choice, Conversations, Prepared
    from training.tuning.tokens import Encoder


@dataclass(frozen=True)
class Examples:
    """Prepared examples: their folder, what is in it, and the tokenizer that wrote them."""

    folder: Path
    prepared: Prepared
    encoder: Encoder


def finetune(run: Run) -> Path:
    """Tune the model as the recipe says; the exported folder. What was made before is reused."""
    from training.tuning.adapter import Tuned

    start = start_of(run)
    run.narrator.heading("Fine-tuning")
    with explained():
        examples = _examples(run, start)
        for line in table(run.recipe.finetuning, examples.prepared, examples.encoder, start.shape):
            run.narrator.say(f"  {line}")
        spec = plan_tuning(run, start, examples)
        weights = weights_of(run, start, examples.encoder)
        last = train_tuning(run, replace(spec, start_from=str(weights)), examples.folder / "tokenizer")
        return export_tuned(run, start, examples, spec, Tuned(weights, last, spec.lora))


def show_examples(run: Run, look: int = 0) -> dict[str, Any]:
    """What a fine-tuning would do, from the examples alone: counts of each set, train steps, parameters.

    Args:
        run: makes nothing.
        look: sequences of each set that are shown, with the rows that were dropped.
    """
    from recipes.finetuning.look import dropped_rows, shown_sequences

    wanted: Any = run.recipe.finetuning
    start = start_of(run, dry=True)
    with explained(), tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        prepared, encoder = prepared_dry(run, start, Path(folder))
        unselected = wanted.selection is not None
        return {
            "sequences": list(shown_sequences(Path(folder), prepared, encoder, look)) if look else [],
            "dropped": dropped_rows(Path(folder)) if look else [],
            "sets": [asdict(one) for one in prepared.sets],
            "train_steps": steps_of(wanted, prepared)[1],
            "lines": table(wanted, prepared, encoder, start.shape)
            + (["before the selection by entropy"] if unselected else []),
        }


def prepared_dry(run: Run, start: Start, folder: Path) -> tuple[Prepared, Encoder]:
    """Examples prepared into a folder of their own, before any selection, and the tokenizer that wrote them."""
    from training.tuning.prepare import prepare

    wanted: Any = run.recipe.finetuning
    template, encoder = _tokenizer(wanted, start, folder / "tokenizer")
    return prepare(_options(wanted, start.shape), template, encoder, folder), encoder


@contextmanager
def explained() -> Iterator[None]:
    """Errors that examples, templates, adapters and imports explain themselves are the user's to mend."""
    from mixing.tokenizer import TokenizerError
    from training.export import ExportError
    from training.tuning.examples import ExamplesError
    from training.tuning.lora import AdapterError
    from training.tuning.templates import TemplateError

    try:
        yield
    except (ExamplesError, TemplateError, AdapterError, TokenizerError, ExportError) as error:
        raise RunError(str(error)) from error


# ---------------------------------------------------------------- examples


def _options(wanted: Any, shape: ModelShape) -> Any:
    from training.tuning.prepare import Preparation

    context = wanted.context or shape.context
    if shape.family == "gpt_neo" and context > shape.context:
        raise RunError(f"finetuning.context: {context} is more than the {shape.context} positions that the model knows")
    return Preparation(
        sets={name: (tuple(one.path), dict(one.fields)) for name, one in wanted.examples.items()},
        context=context,
        system=wanted.system,
        loss=wanted.loss,
        too_long=wanted.too_long,
        broken=wanted.broken,
        held_out=wanted.held_out,
        packing=wanted.packing,
    )


def _tokenizer(wanted: Any, start: Start, folder: Path) -> tuple[Any, Encoder]:
    from training.tuning.tokens import template_of, write_tokenizer

    template = template_of(wanted.template, start.tokenizer)
    return template, write_tokenizer(start.tokenizer, folder, template, wanted.system)


def examples_folder(run: Run, start: Start) -> Path:
    """Where prepared examples lie, by all that makes them; they need not be there."""
    from mixing.tokenizer import load_tokenizer
    from training.tuning.examples import find_files
    from training.tuning.prepare import VERSION
    from training.tuning.tokens import template_of

    wanted: Any = run.recipe.finetuning
    sums = run.checksums()
    files = {name: [sums.of(file) for file in find_files(one.path, name)] for name, one in wanted.examples.items()}
    sums.save()
    selection = None if wanted.selection is None else [wanted.selection.options_that_count(), start.key]
    source = template_of(wanted.template, start.tokenizer).source
    identity = load_tokenizer(start.tokenizer).identity
    plain = {key: value for key, value in asdict(_options(wanted, start.shape)).items() if key != "sets"}
    fields = {name: dict(one.fields) for name, one in wanted.examples.items()}
    key = key_of(VERSION, files, fields, plain, source, identity, selection, start.shape.context)
    return run.store.workdir / f"examples-{key}"


def finished_tuning(run: Run, start: Start) -> bool:
    """Whether this very fine-tuning was finished before; its start is there. Makes nothing."""
    from recipes.finetuning.finetuned import last_checkpoint

    folder = examples_folder(run, start)
    if not (folder / "prepared.json").exists():
        return False
    return last_checkpoint(plan_tuning(run, start, _opened(folder, start))) is not None


def _examples(run: Run, start: Start) -> Examples:
    """Prepared examples; made where they are missing."""
    from training.tuning.prepare import Prepared, prepare

    wanted: Any = run.recipe.finetuning
    options, folder = _options(wanted, start.shape), examples_folder(run, start)
    run.use(folder.name, "finetune", "instruction examples", {})
    with held(run.narrator, folder, "instruction examples"):
        if (folder / "prepared.json").exists():
            run.narrator.reused("instruction examples", _amount(Prepared.read(folder)))
            return _opened(folder, start)
        started = time.monotonic()
        temporary = folder / "making.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        template, encoder = _tokenizer(wanted, start, temporary / "tokenizer")
        choose = None if wanted.selection is None else lambda found: _choose(run, start, encoder, found)
        prepared = prepare(options, template, encoder, temporary, choose)
        for made in sorted(temporary.iterdir(), key=lambda path: path.name == "prepared.json"):
            shutil.rmtree(folder / made.name, ignore_errors=True)
            made.rename(folder / made.name)
        temporary.rmdir()
        run.narrator.made("instruction examples", _amount(prepared), time.monotonic() - started)
    return _opened(folder, start)


def _opened(folder: Path, start: Start) -> Examples:
    from mixing.tokenizer import load_tokenizer
    from training.tuning.prepare import Prepared
    from training.tuning.tokens import open_encoder

    old = load_tokenizer(start.tokenizer)
    known = old.encoder.get_vocab(with_added_tokens=True)
    tuned = load_tokenizer(folder / "tokenizer").encoder.get_vocab(with_added_tokens=True)
    new = sorted(set(tuned) - set(known))
    spelt = {token: old.encoder.encode(token, add_special_tokens=False).ids for token in new}
    return Examples(folder, Prepared.read(folder), open_encoder(folder / "tokenizer", spelt))


def _choose(run: Run, start: Start, encoder: Encoder, found: Conversations) -> Choice:
    """Examples whose entropy under the start's model lies in the recipe's band."""
    from training.tuning.selection import choose, entropies

    wanted: Any = run.recipe.finetuning.selection  # type: ignore[union-attr]
    own = wanted.model_entropy or _held_out_loss(run)
    # With rows for the template's tokens, as training begins.
    checkpoint = weights_of(run, start, encoder)
    run.narrator.say(f"  the model's own entropy: {own:.3f} nats a token; scoring {len(found.rows):,} examples")
    longest = int(found.lengths.max()) - 1
    scores = entropies(checkpoint, found, wanted.of, max(1, longest), run.recipe.execution.training.micro_batch)
    return choose(scores, own, wanted.entropy, wanted.clusters)


def _held_out_loss(run: Run) -> float:
    """The trained model's entropy: its mean loss on held-out text, nats a token."""
    from recipes.pretraining.evaluate import evaluate

    found = [one for one in evaluate(run) if one["loss_nats"] is not None]
    if not found:
        raise RunError(
            "finetuning.selection: the model's own entropy is not known, for no text was held out; say model_entropy"
        )
    return float(sum(one["loss_nats"] * one["num_tokens"] for one in found) / sum(one["num_tokens"] for one in found))


def _amount(prepared: Prepared) -> str:
    kept, rows = sum(one.kept for one in prepared.sets), sum(one.rows for one in prepared.sets)
    return f"{kept:,} kept of {rows:,}"
