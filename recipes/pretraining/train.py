"""Training, evaluation and export as parts of a run: from the plan to what `training` takes, and where it lies.

A training's folder is keyed by what can never change in it (the model's shape, its initial weights, the tokenizer); its
checkpoints carry the whole prefix, so that a recipe with a longer budget or another later phase continues from those of
the shorter one.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixing.plan_diff import cut_windows
from mixing.plan_record import Plan as SequencePlan
from mixing.plan_record import PlannedPhase
from mixing.schedule import BySignal
from mixing.tokenizer import load_tokenizer
from recipes.artifacts import key_of, to_json, write_atomically
from recipes.curating.curate import ALL
from recipes.pipeline import content_key
from recipes.pretraining.amended import (
    Course,
    course_of,
    decays_of,
    rate_entries,
    read_rollbacks,
    roll_back,
    tokens_back,
    write_journal,
)
from recipes.pretraining.begun import TrainingFailed, refuse_lost, refuse_restart
from recipes.pretraining.clock import tokens_to_end
from recipes.pretraining.gpus import visible_gpus
from recipes.pretraining.pinned import finish, pin, refuse_other_text
from recipes.pretraining.several import owned, refuse_alone, spec_name, wait_for_rollback
from recipes.pretraining.shapes import batch_tokens_of, optimizer_of, shape_of, tokens_of
from recipes.pretraining.start_weights import keep_tokenizer, start_weights
from recipes.pretraining.training_log import log_folder, read_end, read_status
from recipes.pretraining.watching import Watching
from training import spec as specs
from training.exits import Exit
from training.launch import join, launch, place_under_torchrun
from training.models.shape import ModelShape, num_parameters

if TYPE_CHECKING:
    from recipes.pipeline import PlannedStage
    from recipes.run import Run
    from recipes.tokenizing.tokens import Tokens

# Windows of held-out text measured for each domain: 64 of 1,024 tokens give a mean within some hundredths of a nat, and
# are little beside what a target trains between two measurements.
TARGET_HELD_OUT = 64
# Of one command; a run that spikes oftener needs other values, not other text.
MOST_ROLLBACKS = 10
_TELLING = {
    Exit.STALLED: "no train step for `execution.training.stall`; the stacks of all processes are in its log",
    Exit.RANK_LOST: "a process was lost (killed, or out of memory)",
    Exit.DIVERGED: "loss or gradient is no number; lower the learning rate, or look at the text with `gristmill trace`",
    Exit.NO_SPACE: "no room for a checkpoint; free some (`gristmill clean`)",
    Exit.SPIKED: "the loss or the gradient norm jumped, and `training.spikes` asks to go back",
    Exit.UNFIT: "the processes do not fit together, or cannot read or write what they need; nothing was trained",
    Exit.ERROR: "a process failed",
}


@dataclass(frozen=True)
class Training:
    """A training that is planned.

    Attributes:
        spec: what is trained.
        folder: of all trainings of this model from these initial weights; their checkpoints lie together.
        log: its own folder in there, by the run's name: metrics, status, journal, the processes' output.
        key: of all that makes its result.
        plan: what it follows.
        course: when it does what.
    """

    spec: specs.TrainSpec
    folder: Path
    log: Path
    key: str
    plan: SequencePlan
    course: Course

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.folder / "checkpoints"


def plan_training(run: Run, tokens: Tokens, plan_stage: PlannedStage) -> Training:
    """The target model's training as `training` takes it. Needs the tokenizer and the plan on disk."""
    recipe: Any = run.recipe
    plan = read_plan(plan_stage)
    shape = shape_of(recipe.model, load_tokenizer(tokens.tokenizer).vocabulary)
    fixed = key_of(asdict(shape), recipe.seed, tokens.tokenizer_key, content_key(_start_of(recipe)))
    folder = run.store.workdir / f"training-{fixed}"
    log = log_folder(folder, run.name)
    followed = course_of(recipe, plan, read_rollbacks(log))
    prefix = _prefix(run, tokens, plan, shape, followed)
    spec = specs.TrainSpec(
        folder=str(log),
        checkpoints_folder=str(folder / "checkpoints"),
        shape=shape,
        stream=specs.Factory(
            "training.stream:open_stream",
            {
                "plan": plan_stage.file(ALL, ".plan.json"),
                "domains": str(tokens.domains_path),
                "context": recipe.model.context,
                "max_held_out": TARGET_HELD_OUT,
                **_values_of(run),
            },
        ),
        spans=followed.spans,
        num_steps=followed.num_steps,
        changes=followed.changes,
        learning_rate=followed.rates[0][1],
        seed=recipe.seed,
        precision=recipe.training.precision,
        optimizer=optimizer_of(recipe.training),
        spikes=specs.Spikes(recipe.training.spikes.action, recipe.training.spikes.sigma),
        checkpoints=_checkpoints(recipe, plan, followed),
        evaluation=specs.Evaluation(steps_of(recipe, recipe.evaluation.every), at_start=True),
        execution=execution_of(run),
        start_from=_start_of(recipe),
        separator=load_tokenizer(tokens.tokenizer).eos if recipe.sequences.document_masks else None,
        prefix=prefix,
    )
    return Training(spec, folder, log, key_of(prefix, followed.num_steps), plan, followed)


def _values_of(run: Run) -> dict[str, str]:
    """What phases ordered by a signal sort by, where there are any."""
    return {} if run.sort_values is None else {"values": run.sort_values.file(ALL, ".values.json")}


def read_plan(stage: PlannedStage) -> SequencePlan:
    """The plan that a stage wrote."""
    return SequencePlan.from_json(Path(stage.file(ALL, ".plan.json")).read_text(encoding="utf-8"))


def _prefix(run: Run, tokens: Tokens, plan: SequencePlan, shape: ModelShape, followed: Course) -> dict[str, Any]:
    """What makes the weights at every position: what changes on the way is listed with where it begins."""
    recipe: Any = run.recipe
    spikes = recipe.training.spikes
    laws = [(span.start, [*_law_of(span, plan), phase.window, _order_of(phase, run)]) for phase, span in plan.spans]
    # A window that the end of its span cuts is mixed as it was cut: from there on the end matters too.
    ends = [(begins, ["ends", end]) for begins, end in cut_windows(plan)]
    order = [list(entry) for entry in sorted([*laws, *ends, *followed.passed_over], key=itemgetter(0))]
    batch = [[span.first_position, [span.sequences, span.context]] for span in followed.spans]
    return {
        "model": asdict(shape),
        "seed": recipe.seed,
        "domains": tokens.domains.folder.key,
        "start_from": content_key(_start_of(recipe)),
        "precision": recipe.training.precision,
        "optimizer": asdict(optimizer_of(recipe.training)),
        # Warnings and rollbacks change no update; what a rollback passes over stands in the order.
        "spikes": ["drop_update", spikes.sigma] if spikes.action == "drop_update" else None,
        # Positions start anew in each document since masks are made so.
        "document_masks": "positions" if recipe.sequences.document_masks else False,
        "learning_rate": {"from": rate_entries(plan, followed)},
        "order": {"from": order},
        "batch": {"from": batch},
    }


def _law_of(span: Any, plan: SequencePlan) -> list[Any]:
    """What decides the order inside a span, whatever its length."""
    names = [plan.domains[g].name for g in span.domains]
    return [names, list(span.weights), list(span.changes), span.ramp, list(span.remainders), list(span.draws_before)]


def _order_of(phase: PlannedPhase, run: Run) -> list[Any]:
    """How a phase orders what it draws. What stands in which block is told by the spans' domains."""
    order = phase.order
    if not isinstance(order, BySignal):
        stretch = run.recipe.sequences.stretch.number
        return ["keyed", stretch] if stretch else ["keyed"]
    assert run.sort_values is not None
    # A phase is sorted as a whole: which draws it has decides what comes first.
    return ["by", order.signal, order.descending, run.sort_values.folder.key, phase.num_positions]


def _start_of(recipe: Any) -> str | None:
    return None if recipe.training.from_ is None else str(recipe.training.from_)


def steps_of(recipe: Any, size: Any) -> int:
    """Train steps of an amount, at least one."""
    batch = batch_tokens_of(recipe.training, recipe.model.context)
    return max(1, tokens_of(size, recipe.model.context, batch) // batch)


def _checkpoints(recipe: Any, plan: SequencePlan, followed: Course) -> specs.Checkpoints:
    wanted, spikes = recipe.checkpoints, recipe.training.spikes
    going_back = spikes.action == "rollback"
    starts = [phase.start for phase in plan.phases[1:]]
    # From where a decay begins a longer run goes on, and another decay begins.
    starts += [position for position, rate in decays_of(plan, followed) if rate.decay_tokens]
    borders = [followed.step_from(position) for position in starts if position < followed.runs[-1].stop]
    return specs.Checkpoints(
        every=steps_of(recipe, wanted.every),
        early=wanted.early,
        at=tuple(step for step in borders if step),
        keep_last=None if wanted.keep.all else wanted.keep.last,
        keep_every=None if wanted.keep.every is None else steps_of(recipe, wanted.keep.every),
        back=tokens_to_end(plan, followed.unrolled, spikes.back, recipe.model.context) if going_back else None,
        background=wanted.background,
    )


def execution_of(run: Run) -> specs.Execution:
    """How training is carried out here."""
    wanted = run.recipe.execution.training
    processes = num_processes(run)
    return specs.Execution(
        threads=wanted.threads or max(1, run.recipe.execution.num_workers() // processes),
        sharding=wanted.sharding,
        micro_batch=wanted.micro_batch,
        recompute=wanted.recompute,
        compile=wanted.compile and len(visible_gpus()) > 0,  # on a CPU it takes longer than small models train
        attention=wanted.attention,
        log_every=max(1, run.recipe.execution.log_every.number),
        preflight=wanted.preflight,
        stall_s=float(wanted.stall.number),
        loggers=run.recipe.execution.loggers,
    )


def num_processes(run: Run) -> int:
    """Processes that train on this machine: the recipe's devices, else its GPUs, else two where there are two cores."""
    place = place_under_torchrun()
    wanted = run.recipe.execution.training.devices if place is None else place.per_node
    if wanted is not None:
        return int(wanted)
    return len(visible_gpus()) or min(2, run.recipe.execution.num_workers())


# ---------------------------------------------------------------- running it


def train(run: Run, training: Training) -> Path:
    """Train until the last step, or find that it was trained; return the last checkpoint's folder."""
    done = finished_training(run, training)
    run.use(training.folder.name, "train", "training", {"tokens": training.spec.learning_rate.total_tokens})
    model: Any = run.recipe.model
    title = f"{model.preset}, {num_parameters(training.spec.shape) / 1e6:.1f}M parameters"
    if done is not None:
        run.narrator.reused(title, f"{training.spec.num_steps} train steps")
        return done
    refuse_other_text(run)
    refuse_restart(run, training)
    refuse_alone(run)
    if run.remembers:
        pin(run, training)
    started = time.monotonic()
    run.end_workers()  # what they hold in memory is the model's now
    with owned(training.folder, run):
        training, result = _follow(run, training, title)
    if result is Exit.REQUEUE:
        raise asked_to_stop(training.log)
    if result is not Exit.DONE:
        raise failure_of(training.log, result)
    last = _last_checkpoint(training)
    if not run.remembers:
        return last
    run.remember("training", {"key": training.key, "checkpoint": last.name, "folder": training.folder.name})
    finish(run)
    run.narrator.made(title, f"{training.spec.num_steps} train steps", time.monotonic() - started)
    return last


def _follow(run: Run, training: Training, title: str) -> tuple[Training, Exit]:
    """Train to an end; after a spike that asks for it go back, pass its text over, and train on."""
    rollbacks, known = 0, len(read_rollbacks(training.log))
    while True:
        result = launch_watched(run, training, title)
        if result is not Exit.SPIKED or rollbacks >= MOST_ROLLBACKS:
            return training, result
        rollbacks += 1
        if run.remembers:
            _roll_back(run, training)
        else:
            wait_for_rollback(training.log, known + rollbacks)
        run.__dict__["training"] = training = plan_training(run, run.tokens, run.plan)
        if run.remembers:
            pin(run, training)


def launch_watched(run: Run, training: Training, title: str) -> Exit:
    """Write what a training is, start its processes, show what they do, and tell how they ended."""
    spec_path = run.folder / spec_name(place_under_torchrun())
    write_atomically(spec_path, specs.to_json(replace(training.spec, start_from=start_weights(run, training))))
    keep_tokenizer(training.folder, Path(run.tokens.tokenizer))
    training.log.mkdir(parents=True, exist_ok=True)
    if run.remembers:
        write_journal(training.log, training.course.journal)
    return watch(run, spec_path, training.log, training.spec.num_steps, title)


def watch(run: Run, spec_path: Path, log: Path, num_steps: int, title: str) -> Exit:
    """Start the processes of a written specification and show what they say in `log`, until they end."""
    wanted = run.recipe.execution.training
    with run.narrator.bar(title, num_steps) as advance:
        watching = Watching(log, advance, run.narrator.say)
        place = place_under_torchrun()
        if place is not None:
            return join(spec_path, place, progress=None if place.rank else watching.see)
        result = launch(
            spec_path,
            num_processes(run),
            progress=watching.see,
            stall_s=float(wanted.stall.number),
            restarts=wanted.restarts,
            say=watching.say,
        )
        watching.show_preflight()
        return result


def _roll_back(run: Run, training: Training) -> None:
    """Note a rollback, and the documents of the train step that spiked."""
    from recipes.ledger.tracing import documents_of_step, open_plan

    status = read_status(training.log) or {}
    step, why = int(status["spike"]["step"]), str(status["spike"].get("why", "spike"))
    documents = [vars(one) for one in documents_of_step(open_plan(run), step - 1)]
    listed = training.log / f"spike-{step:08d}.json"
    write_atomically(listed, to_json({"train_step": step, "why": why, "documents": documents}))
    recipe: Any = run.recipe
    back = tokens_back(training.plan, training.course, step, recipe.training.spikes.back, recipe.model.context)
    refuse_lost(training, step, back, why)
    found = roll_back(training.log, training.plan, training.course, step, back, why)
    run.narrator.say(
        f"  {why}; going back: the text of positions {found.start:,} to {found.stop:,} is passed over. "
        f"What the spiked train step read: {listed}"
    )


def finished_training(run: Run, training: Training) -> Path | None:
    """The last checkpoint, where this very training was finished before."""
    remembered = run.recall("training")
    if not remembered or remembered["key"] != training.key:
        return None
    folder = training.checkpoints / str(remembered["checkpoint"])
    return folder if (folder / "manifest.json").exists() else None


def _last_checkpoint(training: Training) -> Path:
    """The whole checkpoint of the last train step. Runs of the same model lie in one folder: theirs are passed over."""
    found = [folder for folder in own_checkpoints(training) if step_of(folder) == training.spec.num_steps]
    if not found:
        raise TrainingFailed(
            f"{training.folder}: trained, but no checkpoint of step {training.spec.num_steps} is there"
        )
    return found[-1]


def own_checkpoints(training: Training) -> list[Path]:
    """Folders of the whole checkpoints that this training made, oldest first."""
    from training.resume import cut_prefix
    from training.resume import own_checkpoints as own

    return [found.folder for found in own(training.checkpoints, partial(cut_prefix, training.spec.prefix))]


def step_of(checkpoint: Path) -> int:
    """The train step of a checkpoint's folder."""
    return int(checkpoint.name.split("-")[1])


def asked_to_stop(log: Path) -> TrainingFailed:
    """The end of a training that was told to stop, and has saved."""
    step = (read_status(log) or {}).get("step")
    error = TrainingFailed(f"asked to stop: saved at train step {step}; the same command continues from there")
    error.exit_code = int(Exit.REQUEUE)
    return error


def failure_of(log: Path, result: Exit) -> TrainingFailed:
    """The error of a training that ended badly, with its cause."""
    cause = str((read_end(log) or {}).get("cause") or "")
    error = TrainingFailed(
        f"training ended: {_TELLING.get(result, result.name)}.\n{cause}\n"
        f"logs: {log}/rank-*.log; the same command continues from the last whole checkpoint"
    )
    error.exit_code = int(result)
    return error
