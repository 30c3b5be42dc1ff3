"""Training and export of a fine-tuning: from prepared examples to a folder that others load.

The loop, the order, checkpoints and resume are those of pretraining; the folder is keyed by all that makes its result.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.artifacts import key_of, to_json, write_atomically
from recipes.finetuning.numbers import learning_rate_of_tuning, positions_of_tuning, steps_of, targets_of
from recipes.pipeline import held
from recipes.pretraining.shapes import tokens_of
from recipes.pretraining.start_weights import keep_tokenizer
from training import spec as specs
from training.exits import Exit
from training.huggingface import is_huggingface
from training.models.shape import ModelShape, num_parameters

if TYPE_CHECKING:
    from recipes.finetuning.finetune import Examples
    from recipes.finetuning.start import Start
    from recipes.run import Run
    from training.tuning.adapter import Tuned
    from training.tuning.cards import Card


def plan_tuning(run: Run, start: Start, examples: Examples) -> specs.TrainSpec:
    """The training; `start_from` is set when it is known that it has to run."""
    from recipes.pretraining.train import execution_of

    recipe: Any = run.recipe
    wanted, prepared = recipe.finetuning, examples.prepared
    batch, steps = steps_of(wanted, prepared)
    context = prepared.context
    shape = replace(start.shape, vocabulary=max(start.shape.vocabulary, examples.encoder.vocabulary))
    whole = (steps - 1) * batch
    total = positions_of_tuning(wanted, prepared)
    spans = [specs.Span(0, 0, 0, batch, context)]
    if total - whole < batch:  # the last train step takes what is left
        last = specs.Span(steps - 1, whole, whole * context, total - whole, context)
        spans = [last] if steps == 1 else [*spans, last]
    epoch = max(1, -(-sum(one.sequences for one in prepared.sets) // batch))
    optimizer = wanted.optimizer
    spec = specs.TrainSpec(
        folder="",
        shape=shape,
        stream=specs.Factory(
            "training.tuning.stream:open_tuning",
            {"prepared": str(examples.folder), "epochs": dict(wanted.epochs), "seed": recipe.seed},
        ),
        spans=tuple(spans),
        num_steps=steps,
        learning_rate=learning_rate_of_tuning(wanted, prepared),
        seed=recipe.seed,
        precision=wanted.precision,
        optimizer=specs.Optimizer(optimizer.betas, 1e-8, optimizer.weight_decay, optimizer.clip, optimizer.z_loss),
        checkpoints=specs.Checkpoints(min(epoch, _every(recipe.checkpoints.every, batch, context)), keep_last=2),
        evaluation=specs.Evaluation(min(epoch, _every(recipe.evaluation.every, batch, context)), at_start=True),
        execution=execution_of(run),
        start_from="",
        separator=prepared.separator,
        lora=_low_rank(wanted, shape, bool(examples.encoder.new)),
    )
    made_of = {name: value for name, value in asdict(spec).items() if name not in _NOT_IN_KEY}
    key = key_of(made_of, start.key, examples.folder.name, dict(wanted.epochs))
    return replace(spec, folder=str(run.store.workdir / f"tuning-{key}"), prefix={"tuning": key})


_NOT_IN_KEY = ("folder", "stream", "checkpoints", "evaluation", "execution", "start_from", "prefix")


def _every(size: Any, batch: int, context: int) -> int:
    return max(1, tokens_of(size, context, batch * context) // (batch * context))


def _low_rank(wanted: Any, shape: ModelShape, embeddings: bool) -> specs.LowRank | None:
    if wanted.lora is None:
        return None
    chosen = wanted.lora
    return specs.LowRank(chosen.rank, chosen.alpha, chosen.dropout, targets_of(wanted, shape), embeddings)


def train_tuning(run: Run, spec: specs.TrainSpec, tokenizer: Path) -> Path:
    """Train to the last step, or find that it was done; the last checkpoint."""
    from recipes.pretraining.several import owned
    from recipes.pretraining.train import asked_to_stop, failure_of, watch
    from training.batches import tokens_after

    folder = Path(spec.folder)
    title = f"tuning, {num_parameters(spec.shape) / 1e6:.1f}M parameters"
    run.use(folder.name, "finetune", "fine-tuning", {"tokens": tokens_after(spec.spans, spec.num_steps)})
    run.end_workers()
    with owned(folder, run):
        done = last_checkpoint(spec)
        if done is not None:
            run.narrator.reused(title, f"{spec.num_steps} train steps")
            return done
        started = time.monotonic()
        keep_tokenizer(folder, tokenizer)
        spec_path = folder / "training.spec.json"
        write_atomically(spec_path, specs.to_json(spec))
        result = watch(run, spec_path, folder, spec.num_steps, title)
        if result is Exit.REQUEUE:
            raise asked_to_stop(folder)
        done = last_checkpoint(spec)
        if result is not Exit.DONE or done is None:
            raise failure_of(folder, result)
    run.narrator.made(title, f"{spec.num_steps} train steps", time.monotonic() - started)
    for line in _losses(folder):
        run.narrator.say(f"  {line}")
    return done


def last_checkpoint(spec: specs.TrainSpec) -> Path | None:
    """The checkpoint of the last train step, or None before it is there."""
    found = sorted(spec.checkpoints_root.glob(f"step-{spec.num_steps:08d}-*/manifest.json"))
    return found[-1].parent if found else None


def _losses(folder: Path) -> list[str]:
    """Held-out loss of each set, first and last."""
    path = folder / "held_out.csv"
    if not path.exists():
        return []
    courses: dict[str, list[str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            courses.setdefault(row["domain"], []).append(row["loss"])
    shown = {name: [float(loss) for loss in losses if loss] for name, losses in courses.items()}
    return [
        f"{name}: held-out loss {losses[0]:.3f} → {losses[-1]:.3f}" + _best(losses)
        for name, losses in shown.items()
        if losses
    ]


def _best(losses: list[float]) -> str:
    best = min(losses)
    return f" (lowest on the way {best:.3f}: fewer epochs would do)" if best < losses[-1] - 0.01 else ""


# Of what the export's folders hold.
_VERSION = 2


def export_tuned(run: Run, start: Start, examples: Examples, spec: specs.TrainSpec, tuned: Tuned) -> Path:
    """The tuned model for others: merged, and as an adapter where it is one; a whole export is reused."""
    wanted = run.recipe.export
    precision = "bf16" if wanted is None else wanted.precision
    folder = run.store.workdir / f"tuned-{key_of(_VERSION, Path(spec.folder).name, precision)}"
    run.use(folder.name, "finetune", "Hugging Face export of the tuned model", {})
    title = "Hugging Face export"
    with held(run.narrator, folder, title):
        record = folder / "tuned.json"
        if not record.exists():
            started = time.monotonic()
            told = _write_tuned(run, start, examples, spec, tuned, folder, precision)
            write_atomically(record, to_json(told))
            run.narrator.made(title, f"logits differ {told['logit_difference']:.1e}", time.monotonic() - started)
            for line in told["notes"]:
                run.narrator.say(f"  {line}")
        else:
            run.narrator.reused(title, precision)
    run.remember("tuning", {"folder": folder.name, "training": Path(spec.folder).name})
    return folder / "huggingface"


def _write_tuned(
    run: Run, start: Start, examples: Examples, spec: specs.TrainSpec, tuned: Tuned, folder: Path, precision: str
) -> dict[str, Any]:
    from training.export import ExportOptions, export_huggingface
    from training.tuning.adapter import write_merged
    from training.tuning.cards import Card, finish_folder

    tokenizer = examples.folder / "tokenizer"
    for name in ("huggingface", "adapter", "base", "merged"):
        shutil.rmtree(folder / name, ignore_errors=True)
    whole = tuned.last if spec.lora is None else write_merged(tuned, folder / "merged")
    base = base_name(run, start)
    told = {"base": base, "weights of the base": start.key, **_told(run, examples, spec)}
    options = ExportOptions(precision, str(tokenizer), run.name, {"tuning": told, **_base_sheet(run, start)})
    check = export_huggingface([whole], folder / "huggingface", options)
    ends = [examples.prepared.stop, examples.encoder.ids["eos"]]
    stops = list(dict.fromkeys(one for one in ends if one is not None))
    card = Card(f"{run.name}, fine-tuned", base, spec.shape.family, told)
    finish_folder(folder / "huggingface", stops, card)
    found = {"logit_difference": check.logit_difference, "checkpoint": str(whole), "stops": stops, "notes": []}
    return found if spec.lora is None else {**found, **_write_adapter(run, start, tuned, folder, card)}


def _write_adapter(run: Run, start: Start, tuned: Tuned, folder: Path, card: Card) -> dict[str, Any]:
    """The adapter, over a Hugging Face folder of the base model: the one that was tuned, or one made of it."""
    from training.export import ExportOptions, export_huggingface
    from training.tuning.adapter import check_adapter, write_adapter
    from training.tuning.cards import finish_adapter

    base = folder / "base" if start.path is None or not is_huggingface(start.path) else start.path
    if base == folder / "base":
        plain = run.trained if start.path is None else start.path
        # In float32: over rounded weights the adapter's logits would be others.
        export_huggingface([plain], base, ExportOptions("fp32", str(start.tokenizer), f"{run.name}, base"))
    # Of the tuned tokenizer, which the merged model has.
    write_adapter(tuned, base, folder / "adapter", folder / "huggingface")
    finish_adapter(folder / "adapter", folder / "huggingface", card)
    difference = check_adapter(tuned, folder / "adapter", base)
    said = "peft is not installed: not loaded" if difference is None else f"through peft logits differ {difference:.1e}"
    return {"adapter_difference": difference, "notes": [f"adapter: {folder / 'adapter'} ({said})"]}


def _told(run: Run, examples: Examples, spec: specs.TrainSpec) -> dict[str, Any]:
    """What the model's card says of its tuning."""
    wanted: Any = run.recipe.finetuning
    sets = "; ".join(f"{one.name} ({one.kept:,} conversations)" for one in examples.prepared.sets)
    adapted = "all weights" if spec.lora is None else f"low-rank updates of rank {spec.lora.rank}"
    template = Path(wanted.template).name
    measured = "; ".join(_losses(Path(spec.folder))).replace(": held-out loss", "") or "not measured"
    system = {"system turn where a conversation brings none": wanted.system} if wanted.system else {}
    return {
        "examples": sets,
        "template": template,
        **system,
        "trained": adapted,
        "train steps": spec.num_steps,
        "learning rate": spec.learning_rate.peak,
        "loss on": wanted.loss,
        "held-out loss": measured,
    }


def base_name(run: Run, start: Start) -> str:
    """What the model that was tuned is called: the recipe, a training's checkpoint, or what a folder says of itself."""
    from training.tuning.cards import hub_origin

    if start.path is None:
        return run.name
    if not is_huggingface(start.path):
        training, _, step = start.path.absolute().parts[-3:]
        return f"checkpoint {step} of {training}"
    if found := hub_origin(start.path):
        return found[0]
    config = json.loads((start.path / "config.json").read_text(encoding="utf-8"))
    return str(config.get("_name_or_path") or start.path.name)


def _base_sheet(run: Run, start: Start) -> dict[str, Any]:
    """What is known of the text that the base was trained on: this run's, or what came with its folder."""
    from recipes.pretraining.export import data_sheet

    if start.path is None:
        return data_sheet(run)
    brought = start.path / "data_sheet.json"
    return {"base": json.loads(brought.read_text(encoding="utf-8"))} if brought.exists() else {}


def tuned_model(run: Run) -> tuple[Path, Path, list[int]] | None:
    """The newest tuned model of a run: its checkpoint, its tokenizer's folder and where answers stop; None before."""
    remembered = run.recall("tuning")
    record = run.store.workdir / str((remembered or {}).get("folder")) / "tuned.json"
    if not remembered or not record.exists():
        return None
    told = json.loads(record.read_text(encoding="utf-8"))
    return Path(told["checkpoint"]), record.parent / "huggingface", list(told["stops"])
