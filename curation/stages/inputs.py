"""What a stage over several sources reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curation.passes import ShardInputs


@dataclass(frozen=True)
class GlobalInputs:
    """Shards of all the sources a global stage sees, in canonical order, and paths of what earlier stages made.

    `tasks` names each shard's files, in the same order. `memory` is what the stage may use, bytes: it sets how often
    something is split or read again and never enters a key.
    """

    shards: tuple[ShardInputs, ...]
    tasks: tuple[str, ...]
    artifacts: tuple[tuple[str, str], ...] = ()
    memory: int = 2 << 30

    def artifact(self, name: str) -> Path:
        """Path of what an earlier stage made."""
        return Path(dict(self.artifacts)[name])
