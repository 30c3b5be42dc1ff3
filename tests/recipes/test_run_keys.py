"""Which keys of a recipe make which artifacts anew: execution and checkpoints none, the others only what follows."""

import pickle
import tempfile
from pathlib import Path

import pytest

from curation.stage import StageStep, Task
from recipes.curating.curate import plan_curation
from recipes.run import Run
from recipes.schema.recipe import Execution, Slurm, TrainingExecution, load_recipe
from recipes.tokenizing.tokens import plan_options, plan_plan, plan_tokens
from training.config import Checkpoints

# Another value for each key. A key that the schema gains must be added here.
EXECUTION = {
    "raw": None,  # moved below, as a copy of the raw files must lie there
    "workdir": str(Path(tempfile.gettempdir()) / "gristmill-elsewhere"),
    "reuse": "[/nowhere]",
    "engine": "slurm",
    "slurm": "{partition: p}",
    "workers": "7",
    "memory": "1 GiB",
    "disk": "9 GiB",
    "log_every": "3 train steps",
    "loggers": "[tensorboard]",
    "training": "{threads: 3}",
}
TRAINING_EXECUTION = {
    "nodes": "2", "devices": "2", "threads": "3", "sharding": "full", "micro_batch": "4", "recompute": "true",
    "compile": "false", "attention": "flex", "cache": "cached", "stall": "60 s", "restarts": "1", "stacked": "2",
    "slurm": "{partition: p}", "preflight": "off",
}  # fmt: skip
SLURM = {"partition": "p", "account": "a", "time": "1 h", "max_array": "9", "signal": "60 s"}
CHECKPOINTS = {"every": "7 train steps", "early": "true", "keep": "all", "async": "true"}
FLIPS = [
    *(f"execution.{key}={value}" for key, value in EXECUTION.items() if value),
    *(f"execution.training.{key}={value}" for key, value in TRAINING_EXECUTION.items()),
    *(f"execution.slurm.{key}={value}" for key, value in SLURM.items()),
    *(f"execution.training.slurm.{key}={value}" for key, value in SLURM.items()),
    *(f"checkpoints.{key}={value}" for key, value in CHECKPOINTS.items()),
]
AFTER_TOKENS = ["domains", "plan"]
ALL_TOKENS = ["code.tokens", "de.tokens", *AFTER_TOKENS, "en.tokens"]
AFTER_DEDUP = ["code.tokens", "de.tokens", *AFTER_TOKENS, "en.tokens", "minhash.duplicates", "tokenizer"]
FOLLOWS = {
    "seed=2": ["plan"],
    "schedule.main.tokens=16K": ["plan"],
    "schedule.main.weights=natural^0.5": ["plan"],
    "domains.max_epochs=10": ["plan"],
    "training.batch=8 sequences": ["plan"],
    "model.context=32": ["plan"],
    "domains.held_out.share=0.1": AFTER_TOKENS,
    "tokenizer.vocabulary=500": [*ALL_TOKENS, "tokenizer"],
    "sequences.bos=true": ALL_TOKENS,
    "sequences.packing=best_fit": AFTER_TOKENS,
    "sequences.stretch=1K": ["plan"],
    "schedule.main.order={by: {num_characters: asc}}": ["plan"],
    "sources.en.licence=MIT": ["domains", "en.tokens", "plan"],
    "steps.minhash.threshold=0.6": ["code.signatures", "de.signatures", "en.signatures", *AFTER_DEDUP],
    "steps.minhash.verify=0.9": AFTER_DEDUP,
    "sources.en.steps.gopher.min_words=60": ["en.decisions", *AFTER_DEDUP],
    "sources.en.max_document=1 MiB": ["en.decisions", "en.rows", "en.signals", "en.signatures", *AFTER_DEDUP],
    "sources.code.sample=0.5": ["code.rows", "code.signatures", *AFTER_DEDUP],
    "steps.gopher.max_drop=0.99": [],
    "sources.en.broken=0.5": [],
    "training.learning_rate.peak=1e-3": [],
    "evaluation.every=7 train steps": [],
}


def keys_of(recipe, *overrides):
    """Folder names of all stages that are known before anything runs, the plan's among them."""
    with Run.open(load_recipe(recipe, overrides), silent=True) as run:
        curation = plan_curation(run)
        tokens = plan_tokens(run, curation)
        stages = [*curation.stages, *tokens.stages, plan_plan(run, tokens, plan_options(run))]
    return {stage.folder.name for stage in stages}


@pytest.fixture(scope="module")
def keys(finished):
    return keys_of(finished.recipe)


def test_every_key_of_execution_and_checkpoints_is_flipped():
    assert EXECUTION.keys() == Execution.model_fields.keys()
    assert TRAINING_EXECUTION.keys() == TrainingExecution.model_fields.keys()
    assert SLURM.keys() == Slurm.model_fields.keys()
    assert CHECKPOINTS.keys() == {field.alias or name for name, field in Checkpoints.model_fields.items()}


@pytest.mark.parametrize("override", FLIPS)
def test_execution_and_checkpoints_enter_no_key(finished, keys, override):
    assert keys_of(finished.recipe, override) == keys


@pytest.mark.parametrize("override", FOLLOWS)
def test_other_key_changes_exactly_what_follows(finished, keys, override):
    made = {name.rpartition("-")[0] for name in keys_of(finished.recipe, override) - keys}
    assert sorted(made) == sorted(FOLLOWS[override])


def test_all_planned_stages_are_made(finished, keys):
    assert {path.name for path in finished.workdir.iterdir() if "-" in path.name} == keys


def test_every_stage_pickles_and_keeps_its_values(finished):
    with Run.open(load_recipe(finished.recipe), silent=True) as run:
        curation = plan_curation(run)
        planned = [*curation.stages, *plan_tokens(run, curation).stages]
    for stage in planned:
        tasks = [Task(task.name, task.inputs, stage.folder.output(task.name)) for task in stage.tasks]
        copy = pickle.loads(pickle.dumps(StageStep(stage.title, stage.work, stage.options, tasks)))
        assert (copy.work, copy.options, copy.tasks) == (stage.work, stage.options, tasks)
