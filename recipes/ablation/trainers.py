"""Weights as other trainers take them. Paths are those that `gristmill tokenize --to … --out FOLDER` writes.

Every trainer here but Hugging Face draws sequences of one length, so shares of tokens are shares of draws. Hugging Face
draws rows, which are documents: its probabilities are shares of tokens over mean tokens of a document, normalised.
Formats as documented or read by Megatron-LM, TinyLlama, litdata, nanotron, OLMo-core, llm-foundry and datasets (2026).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from mixing.domain_stage import file_word
from mixing.targets import DENOMINATOR
from mixing.weights import to_integers, whole_units


@dataclass(frozen=True)
class Share:
    """One domain: its share of tokens (> 0), distinct training tokens and documents, and passes over it if known."""

    domain: str
    weight: float
    num_tokens: int
    num_documents: int
    epochs: float | None = None


_SMALL = 1e-3  # below it, six decimals leave fewer than three digits


class TrainersError(ValueError):
    """Weights that cannot be written for a trainer."""


def written_for(trainer: str, shares: Sequence[Share], folder: str) -> str:
    """Weights in a trainer's own words.

    Args:
        trainer: one of `TRAINERS`.
        shares: domains with weight, summing to 1.
        folder: where the tokens of each domain lie.
    """
    weights = _rounded({share.domain: share.weight for share in shares})
    if trainer != "huggingface":  # its own numbers are chances of rows, made of the weights as they are
        shares = [replace(share, weight=weights[share.domain]) for share in shares]
    return TRAINERS[trainer](shares, folder.rstrip("/"))


def _place(share: Share, folder: str, suffix: str = "") -> str:
    return f"{folder}/{file_word(share.domain)}{suffix}"


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights with six decimals that sum to 1, by largest remainder; numpy and our own reader refuse any other sum.

    With the twelve decimals that a plan counts in where a weight is small, so that none becomes nothing.
    """
    units = to_integers(weights)
    grain = DENOMINATOR // 10**6 if min(weights.values()) >= _SMALL else 1
    rounded = whole_units({name: Fraction(count, grain) for name, count in units.items()}, DENOMINATOR // grain)
    return {name: count * grain / DENOMINATOR for name, count in rounded.items()}


def _number(value: float) -> str:
    """A number without an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _megatron(shares: Sequence[Share], folder: str) -> str:
    pairs = " ".join(f"{_number(share.weight)} {shlex.quote(_place(share, folder))}" for share in shares)
    return f"--data-path {pairs}\n"


def _tinyllama(shares: Sequence[Share], _: str) -> str:
    """(prefix, weight) pairs of `train_data_config`; prefixes are names of files in its data folder."""
    lines = "".join(f"    ({json.dumps(file_word(share.domain))}, {_number(share.weight)}),\n" for share in shares)
    return f"train_data_config = [\n{lines}]\n"


def _litdata(shares: Sequence[Share], folder: str) -> str:
    """Litgpt's data modules combine streaming datasets in this way. With `iterate_over_all` weights are refused."""
    lines = "".join(
        f"    StreamingDataset({_place(share, folder)!r}, item_loader=TokensLoader(block_size=context + 1), "
        "shuffle=True, drop_last=True),\n"
        for share in shares
    )
    weights = ", ".join(_number(share.weight) for share in shares)
    return (
        "from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader\n\n"
        f"datasets = [\n{lines}]\n"
        f"train = CombinedStreamingDataset(datasets, seed=42, weights=[{weights}], iterate_over_all=False)\n"
    )


def _nanotron(shares: Sequence[Share], folder: str) -> str:
    """A stage's dataset; nanotron reads the folders of datatrove's token files."""
    folders = "".join(f"      - {json.dumps(_place(share, folder))}\n" for share in shares)
    weights = "".join(f"      - {_number(share.weight)}\n" for share in shares)
    return f"- data:\n    dataset:\n      dataset_folder:\n{folders}      dataset_weights:\n{weights}"


def _olmo_core(shares: Sequence[Share], folder: str) -> str:
    """A `SourceMixtureList`; more than one pass must be allowed in so many words."""
    lines = []
    for share in shares:
        lines += [
            f"  - source_name: {json.dumps(share.domain)}",
            f"    target_ratio: {_number(share.weight)}",
            f"    paths: [{json.dumps(_place(share, folder, '/*.npy'))}]",
        ]
        if share.epochs is not None and share.epochs > 1:
            lines.append(f"    max_repetition_ratio: {_number(round(1.02 * share.epochs, 6))}")
    return "sources:\n" + "\n".join(lines) + "\n"


def _llm_foundry(shares: Sequence[Share], folder: str) -> str:
    lines = []
    for share in shares:
        place = json.dumps(_place(share, folder))
        lines += [f"    {json.dumps(share.domain)}:", f"      local: {place}", "      split: null"]
        lines.append(f"      proportion: {_number(share.weight)}")
    return "dataset:\n  streams:\n" + "\n".join(lines) + "\n"


def _huggingface(shares: Sequence[Share], folder: str) -> str:
    rows = _rounded(row_probabilities(shares))
    files = "".join(f"    {_place(share, folder, '.parquet')!r},\n" for share in shares)
    chances = "".join(f"    {_number(rows[share.domain])},  # {share.domain}\n" for share in shares)
    return (
        "from datasets import interleave_datasets, load_dataset\n\n"
        f"files = [\n{files}]\n"
        f"probabilities = [  # of rows, so that shares of tokens come out\n{chances}]\n"
        'parts = [load_dataset("parquet", data_files=file, split="train", streaming=True) for file in files]\n'
        "train = interleave_datasets(\n"
        '    parts, probabilities=probabilities, seed=42, stopping_strategy="all_exhausted"\n)\n'
    )


def row_probabilities(shares: Sequence[Share]) -> dict[str, float]:
    """Chances of drawing a document of each domain so that domains have their shares of tokens.

    Raises:
        TrainersError: for a domain without documents, whose mean length is unknown.
    """
    empty = [share.domain for share in shares if not share.num_documents or not share.num_tokens]
    if empty:
        raise TrainersError(f"rows of {', '.join(empty)}: its documents are not counted, so their length is unknown")
    drawn = {share.domain: share.weight * share.num_documents / share.num_tokens for share in shares}
    total = sum(drawn.values())
    return {name: value / total for name, value in drawn.items()}


def _json(shares: Sequence[Share], _: str) -> str:
    return json.dumps({share.domain: share.weight for share in shares}, indent=1) + "\n"


TRAINERS: Mapping[str, Callable[[Sequence[Share], str], str]] = {
    "json": _json,
    "megatron": _megatron,
    "tinyllama": _tinyllama,
    "litdata": _litdata,
    "nanotron": _nanotron,
    "olmo-core": _olmo_core,
    "llm-foundry": _llm_foundry,
    "huggingface": _huggingface,
}
WITHOUT_COMMENTS = frozenset({"json", "megatron"})  # formats in which a line with # would be read
