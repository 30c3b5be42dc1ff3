"""The stage that makes weights of finished runs: reads them, fits surrogates, writes the analysis and the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.stage import Counts, Output
from mixing.ablation.analysis import AnalysisOptions, analyse
from mixing.ablation.lineage import Evidence, read_evidence, with_evidence
from mixing.ablation.mixmin import mixmin
from mixing.ablation.runs import RunsTable, table_of, write_csv
from recipes.ablation.one_pass import written
from training.swarm import read_run


@dataclass(frozen=True)
class AnalysisInputs:
    """Run files by name, in the design's order, with the kind of each; stopped runs and earlier swarms apart."""

    runs: tuple[tuple[str, str, str], ...]  # (name, kind, path)
    stopped: tuple[tuple[str, str, str], ...] = ()
    earlier: tuple[Evidence, ...] = ()
    one_pass: tuple[tuple[str, str], ...] = ()  # (domain, path)


def make_weights(inputs: AnalysisInputs, options: AnalysisOptions, output: Output) -> Counts:
    """Read the runs, fit, choose; write the analysis and the table of runs."""
    rows = [read_run(path) for _, _, path in inputs.runs]
    table = table_of(rows, {name: kind for name, kind, _ in inputs.runs})
    write_csv(table, output.path(".runs.csv"))  # without earlier ones: who takes this as evidence gets each run once
    natural = options.natural
    analysis = analyse(with_evidence(table, read_evidence(inputs.earlier, natural), natural), options)
    analysis["mixmin"] = _mixmin(inputs, table, analysis["objective"]["shares"])
    if inputs.one_pass:
        analysis["one_pass"] = written(inputs.one_pass)
    if inputs.stopped:
        analysis["notes"].append(_write_stopped(inputs, output))
        analysis["stopped"] = [name for name, _, _ in inputs.stopped]
    output.path(".analysis.json").write_text(json.dumps(analysis, indent=1, sort_keys=True), encoding="utf-8")
    return {"runs": len(rows), "surrogate": str(analysis.get("surrogate"))}


def _mixmin(inputs: AnalysisInputs, table: RunsTable, shares: dict[str, float]) -> dict[str, float] | None:
    """MixMin's weights from the first proxy of each domain alone; None where one is missing or kept no sequences."""
    proxies: dict[str, Any] = {}
    for name, kind, path in inputs.runs:
        row = table.names.index(name)
        domain = table.domains[int(table.weights[row].argmax())]
        kept = Path(path.removesuffix(".run.json") + ".sequences.json")
        if kind == "one_domain" and domain not in proxies and kept.exists() and not table.diverged[row]:
            proxies[domain] = json.loads(kept.read_text(encoding="utf-8"))
    return mixmin(proxies, shares) if set(proxies) == set(table.domains) else None


def _write_stopped(inputs: AnalysisInputs, output: Output) -> str:
    """Write the rows of stopped runs as far as they came, and say how many there are."""
    rows = [{**read_run(path), "name": name} for name, _, path in inputs.stopped]
    table = table_of(rows, {name: kind for name, kind, _ in inputs.stopped})
    write_csv(table, output.path(".stopped.csv"))
    total = len(inputs.stopped) + len(inputs.runs)
    return f"{len(rows)} of {total} runs were behind and were stopped early; no surrogate is fitted to them."
