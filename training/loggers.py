"""Loggers beside the tables: TensorBoard and Weights & Biases, which follow metrics.csv and held_out.csv.

The tables are the truth: they are cut back to the checkpoint that a run continues from. A logger begins where its own
record ends, or with the whole table, so that a resumed run's curve goes on in the same place without doubled points.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, Trainer

from training.module import TrainingModule
from training.spec import TrainSpec, missing_packages

Point = tuple[int, dict[str, float]]


class LoggerError(ValueError):
    """A logger whose package is not installed."""


class Logger(Protocol):
    """What takes points; `first_step` is the first train step that it wants."""

    first_step: int

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log values at a train step; steps never fall."""

    def close(self) -> None:
        """Write what is not written yet."""


class Following(Callback):
    """Hands each new line of the tables to the loggers that the specification names. The first process's only."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.loggers: list[Logger] = []
        self.tables: list[Appended] = []

    def on_train_start(self, trainer: Trainer, module: TrainingModule) -> None:
        """Open the loggers; the tables have been cut back before."""
        if not trainer.is_global_zero:
            return
        folder = Path(module.spec.folder)
        self.loggers = open_loggers(module.spec, module.done, self.say)
        self.tables = [Appended(folder / "metrics.csv"), Appended(folder / "held_out.csv")]
        self.follow()

    def on_train_batch_end(self, trainer: Trainer, module: TrainingModule, outputs: Any, batch: Any, _: int) -> None:
        """Hand on what this train step has added."""
        self.follow()

    def on_train_end(self, trainer: Trainer, module: TrainingModule) -> None:
        """Close the loggers."""
        self.follow()
        for logger in self.loggers:
            logger.close()

    def on_exception(self, trainer: Trainer, module: TrainingModule, exception: BaseException) -> None:
        """Close them also when it ends badly: the last points are what is wanted then."""
        self.on_train_end(trainer, module)

    def follow(self) -> None:
        """Read the tables' new lines and log them, in order of train steps."""
        if not self.loggers:
            return
        metrics, held_out = (table.rows() for table in self.tables)
        points = [*map(of_metrics, metrics), *map(of_held_out, held_out)]
        for step, values in sorted(points, key=lambda point: point[0]):
            for logger in self.loggers:
                if step >= logger.first_step:
                    logger.add(step, values)


class Appended:
    """Reads the lines of a CSV file that were added since the last time; only whole ones."""

    def __init__(self, path: Path) -> None:
        self.path, self.read, self.columns = path, 0, None

    def rows(self) -> Iterator[dict[str, str]]:
        """The new lines as mappings."""
        if not self.path.exists() or self.path.stat().st_size == self.read:
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        self.read += len(content)
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
        if self.columns is None and lines:
            self.columns = lines.pop(0)
        for line in lines:
            yield dict(zip(self.columns, line))


def of_metrics(row: Mapping[str, str]) -> Point:
    """The point of a line of metrics.csv: `train/loss`, `train/loss by domain/web` and so on."""
    known = {key: float(value) for key, value in row.items() if value and key not in ("step", "position")}
    named = {
        f"train/loss by domain/{key.removeprefix('loss/')}" if key.startswith("loss/") else f"train/{key}": value
        for key, value in known.items()
    }
    return int(row["step"]), named


def of_held_out(row: Mapping[str, str]) -> Point:
    """The point of a line of held_out.csv: `held out/loss/web`, `held out/bits per byte/web`."""
    columns = {"loss": "loss", "bits_per_byte": "bits per byte"}
    return int(row["step"]), {
        f"held out/{name}/{row['domain']}": float(row[c]) for c, name in columns.items() if row[c]
    }


def open_loggers(spec: TrainSpec, done: int, say: Callable[[str], None]) -> list[Logger]:
    """Open what the specification names besides the tables.

    Args:
        spec: the training.
        done: train steps done; what a logger has of later ones is trained again.
        say: told where a curve goes.

    Raises:
        LoggerError: if a package is missing.
    """
    if missing := missing_packages(spec.execution.loggers):
        raise LoggerError("; ".join(missing))
    openers = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [openers[name](spec, done, say) for name in spec.execution.loggers if name in openers]


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder; `tensorboard --logdir` on the folder above shows all runs."""

    def __init__(self, spec: TrainSpec, done: int, say: Callable[[str], None]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(spec.folder) / "tensorboard"
        continues = any(folder.glob("events.*"))
        # Its own record ends at the checkpoint: what was written behind it is purged by readers.
        self.first_step = done + 1 if continues and done else 0
        self.writer = SummaryWriter(str(folder), purge_step=self.first_step if continues else None)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        self.writer.close()


class WeightsAndBiases:
    """A run whose id is kept in `wandb.id` of the run's folder, online or, without a network or a key, offline.

    Online, a resumed run goes on behind the last point that the server has (it cannot take points back: those of a
    rollback keep their first values). Offline, the whole curve is written anew into one folder and the folders before,
    unless they were uploaded, are removed: `wandb sync` then uploads each point once.
    """

    def __init__(self, spec: TrainSpec, done: int, say: Callable[[str], None]) -> None:
        import wandb

        self.folder = Path(spec.folder)
        options = {
            "project": os.environ.get("WANDB_PROJECT", "gristmill"),
            "id": _kept_id(self.folder / "wandb.id"),
            "name": self.folder.name,
            "dir": str(self.folder),
            "resume": "allow",
            "config": _configuration(spec),
            "settings": wandb.Settings(console="off", silent=True, init_timeout=30),
        }
        mode = os.environ.get("WANDB_MODE")
        try:
            self.run = wandb.init(mode=mode, **options)
        except wandb.Error as error:
            say(f"wandb: {error}; logging offline into {self.folder / 'wandb'}, `wandb sync` uploads it")
            mode = "offline"
            self.run = wandb.init(mode=mode, **options)
        self.first_step = 0 if mode == "offline" else self.run.step
        if mode == "offline":
            self._remove_replaced(str(options["id"]))

    def _remove_replaced(self, run_id: str) -> None:
        for older in self.folder.glob(f"wandb/offline-run-*-{run_id}"):
            uploaded = (older / f"run-{run_id}.wandb.synced").exists()
            if not uploaded and older.resolve() != Path(self.run.dir).resolve().parent:
                shutil.rmtree(older)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log values; those of one step are one point."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until all is written or sent."""
        self.run.finish()


def _kept_id(path: Path) -> str:
    """The run's id: drawn once, then read."""
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()


def _configuration(spec: TrainSpec) -> dict[str, Any]:
    """What a person compares runs by."""
    names = ("shape", "learning_rate", "optimizer", "precision", "seed", "num_steps")
    found = dataclasses.asdict(spec)
    return {name: found[name] for name in names} | {"sequences": spec.spans[0].sequences}
