"""Indexes of a work directory: found by name and version, checked before anything is made, published when it is.

An index lies in `WORKDIR/indexes/NAME/`, or below `indexes` of a store that `execution.reuse` names, which is only
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.compiled import Stage
from curation.config import Dedup
from curation.dedup.index import PublishedIndexError, Version, check_config, config_of, open_chain
from curation.dedup.publish import check_publishable, publish
from curation.fields import Problem
from curation.stages.dedup import match_options
from curation.stages.index import ENTRIES, REMOVALS, parent_of, read_facts
from recipes.errors import RunError
from recipes.progress import compact_bytes
from recipes.schema.located import RecipeErrors

if TYPE_CHECKING:
    from recipes.artifacts import Store
    from recipes.curating.curate import Plan
    from recipes.pipeline import PlannedStage
    from recipes.run import Run
    from recipes.schema.recipe import Recipe

_TASK = "all"


def index_folders(store: Store) -> list[Path]:
    """Where indexes lie: the work directory's own first, then those of read-only stores."""
    return [folder / "indexes" for folder in (store.workdir, *store.reuse)]


def chain_of(store: Store, label: str) -> list[Version]:
    """Versions of `name@3` from the first on.

    Raises:
        RunError: where it does not exist or is broken.
    """
    try:
        return open_chain(index_folders(store), label)
    except PublishedIndexError as error:
        raise RunError(str(error)) from None


def home_of(store: Store, parent: Version | None, instead: str) -> Path:
    """Where a version that follows `parent` is published.

    Raises:
        PublishedIndexError: where the parent lies in a read-only store: half a chain in each of two folders can be read
            in neither. `instead` says what can be done.
    """
    home = index_folders(store)[0]
    if parent is not None and parent.path.parent.parent != home:
        raise PublishedIndexError(
            f"index {parent.label} lies in the read-only store {parent.path.parent.parent}; {instead}"
        )
    return home


def check_indexes(run: Run) -> None:
    """Refuse a recipe whose indexes are not there, are broken, were made with another config, or are published twice.

    Raises:
        RecipeErrors: all of them, each with its line.
    """
    from recipes.schema.validation import located_problems

    problems = [problem for place, step in _dedup_steps(run.recipe) for problem in _problems(run.store, place, step)]
    problems += _published_twice(_dedup_steps(run.recipe))
    if problems:
        raise RecipeErrors(located_problems(run.recipe, problems))


def _dedup_steps(recipe: Recipe) -> list[tuple[int, Dedup]]:
    """Steps that name an index, with their places."""
    return [(p, s) for p, s in enumerate(recipe.steps) if isinstance(s, Dedup) and s.index is not None]


def _problems(store: Store, place: int, step: Dedup) -> list[Problem]:
    assert step.index is not None
    options = match_options(step)
    wanted = config_of(options.signatures, options.exact_column)
    found: list[Problem] = []
    for number, label in enumerate(step.index.against):
        path = ("steps", place, step.kind, "index", "against", number)
        try:
            check_config(open_chain(index_folders(store), label)[-1], wanted)
        except PublishedIndexError as error:
            found.append((path, label, str(error)))
    return found


def _published_twice(steps: Sequence[tuple[int, Dedup]]) -> list[Problem]:
    """Steps of one recipe that would publish the same version of an index."""
    by_name: dict[str, list[tuple[int, Dedup]]] = {}
    for place, step in steps:
        if step.index is not None and step.index.publish is not None:
            by_name.setdefault(step.index.publish, []).append((place, step))
    return [
        (
            ("steps", place, step.kind, "index", "publish"),
            name,
            f"{' and '.join(one.name for _, one in several if one is not step)} would publish the same version; "
            "a recipe adds one to an index, so give each step an index of its own",
        )
        for name, several in by_name.items()
        if len(several) > 1
        for place, step in several
    ]


def index_artifacts(store: Store, stages: Sequence[Stage]) -> dict[str, tuple[str, str]]:
    """`index.NAME@3` -> (its hash, its manifest) for every version that a stage needs."""
    labels = {need.removeprefix("index.") for stage in stages for need in stage.needs if need.startswith("index.")}
    chains = {label: chain_of(store, label)[-1] for label in sorted(labels)}
    return {f"index.{label}": (version.hash, str(version.path)) for label, version in chains.items()}


# ---------------------------------------------------------------- publishing


@dataclass(frozen=True)
class Publication:
    """A version that a run publishes once its files are made."""

    name: str
    parent: Version | None
    stage: PlannedStage
    matching: Mapping[str, Any]
    config: Mapping[str, Any]

    def publish(self, run: Run) -> None:
        """Give what the stage made its name and number, or say which version it is already.

        Raises:
            RunError: where another run published the version meanwhile.
        """
        if not run.publishes or not run.remembers:
            run.narrator.say(f"  index {self.name}: not published, since this run reads a sample")
            return
        folder = self.stage.folder.path
        removed = folder / f"{_TASK}{REMOVALS}"
        made = read_facts(folder, _TASK)
        facts = {
            **made,
            "config": dict(self.config),
            "matching": dict(self.matching),
            "made_by": self.stage.folder.name,
        }
        try:
            before = check_publishable(self._home(run), self.name, self.parent, self.stage.folder.name)
            version = before or publish(
                self._home(run), self.name, self.parent, folder / f"{_TASK}{ENTRIES}",
                removed if made["removed"] else None, facts,
            )  # fmt: skip
        except PublishedIndexError as error:
            raise RunError(f"{error}. What was made is kept") from None
        told = version.manifest
        change = f"{told['added']:,} added, {told['removed']:,} removed" if self.parent else "the first version"
        run.narrator.say(
            f"  index {version.label}: {told['documents']:,} documents ({change}), "
            f"{compact_bytes(told['bytes'])}{', published before' if before else ' published'}"
        )

    def check(self, run: Run) -> None:
        """Refuse to begin what could not be published at its end."""
        check_publishable(self._home(run), self.name, self.parent, self.stage.folder.name)

    def _home(self, run: Run) -> Path:
        return home_of(run.store, self.parent, "publish under a name of its own and match against both")


def plan_publications(run: Run, plan: Plan) -> dict[str, Publication]:
    """What a run publishes, by the folder of the stage that writes it.

    Raises:
        RecipeErrors: where an index has gone on without this recipe, each with its line.
    """
    from recipes.schema.validation import located_problems

    stages = {stage.folder.key: stage for stage in plan.stages}
    found: dict[str, Publication] = {}
    problems: list[Problem] = []
    for place, step in _dedup_steps(run.recipe):
        name = step.index.publish if step.index is not None else None
        if name is None or step.index is None or f"published.{step.name}" not in plan.artifacts:
            continue
        label = parent_of(step.index)
        parent = chain_of(run.store, label)[-1] if label else None
        publication = Publication(name, parent, stages[plan.artifacts[f"published.{step.name}"][0]], *_told(step))
        try:
            if run.publishes and run.remembers:
                publication.check(run)
        except PublishedIndexError as error:
            problems.append((("steps", place, step.kind, "index", "publish"), name, str(error)))
        found[publication.stage.folder.name] = publication
    if problems:
        raise RecipeErrors(located_problems(run.recipe, problems))
    return found


def _told(step: Dedup) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a manifest says of a step: how it matched, and the config that readers must share."""
    assert step.index is not None
    options = match_options(step)
    matching = {
        "step": step.name,
        "preset": step.preset,
        "cluster": options.cluster,
        "verify": options.verify,
        "keep": [rule.entry() for rule in step.keep],
        "against": list(step.index.against),
    }
    return matching, config_of(options.signatures, options.exact_column)
