"""Logits of exported models in another installation of transformers, beside our own: the largest difference a family.

    python -m benchmarks.export_parity [--peers PYTHON] [--json FILE]

Each family is made with random weights at a toy size, exported in float32 (which this installation's transformers
checks by itself), and loaded by PYTHON's transformers, of whatever version; that one needs torch, transformers and
numpy, nothing of gristmill. Exit 1 where a logit differs by more than 1e-4. Weights are twice as large as at the
beginning of a training, and norms and biases are drawn too, so that nothing which is left out goes unseen.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.export import MAX_LOGIT_DIFFERENCE, ExportOptions, export_huggingface
from training.importing import write_weights
from training.models import ModelShape, build
from training.models.initial import initialise

# vocabulary, width, layers, heads, feedforward, context
SIZE = (320, 64, 3, 4, 160, 96)
SHAPES = {
    "Llama": ModelShape("llama", *SIZE),
    "Llama, tied": ModelShape("llama", *SIZE, tied=True),
    "Llama, 2 heads of keys": ModelShape("llama", *SIZE, kv_heads=2, rope_base=5e5),
    "GPT-Neo, window of 16": ModelShape("gpt_neo", *SIZE, tied=True, window=16),
    "MindLLM": ModelShape("mindllm", *SIZE),
}


def main(arguments: list[str] | None = None) -> int:
    """Export, compare, print the table; 1 where a family differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="whose transformers loads the exports"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gristmill-parity-") as folder:
        os.environ["HF_HOME"] = f"{folder}/huggingface"  # MindLLM's own code is copied there
        places = {name: Path(folder) / str(place) for place, name in enumerate(SHAPES)}
        for seed, (name, place) in enumerate(places.items()):
            make(SHAPES[name], seed, place)
        found = compare(options.peers, list(places.values()))
    families = dict(zip(places, found["models"], strict=True))
    print(f"transformers {found['transformers']}, torch {found['torch']}\n")
    print(f"{'':<26}{'largest difference':>20}{'largest logit':>15}  loaded as")
    for name, one in families.items():
        print(f"{name:<26}{one['difference']:>20.1e}{one['scale']:>15.1f}  {one['loaded']}")
    if options.json:
        options.json.write_text(json.dumps({**found, "models": families}, indent=1) + "\n", encoding="utf-8")
    return int(not all(one["difference"] <= MAX_LOGIT_DIFFERENCE for one in families.values()))


def make(shape: ModelShape, seed: int, place: Path) -> None:
    """Export a random model into `place`, with tokens and our logits beside it."""
    with torch.device("meta"):
        model = build(shape)
    model.to_empty(device="cpu")
    initialise(model, shape, seed)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=drawn)
            parameter.copy_(2 * parameter if parameter.ndim > 1 else parameter + 0.2 * noise)
    saved = write_weights(model.state_dict(), shape, place / "checkpoints", {})
    export_huggingface([saved], place / "export", ExportOptions("fp32"))
    tokens_BT = torch.randint(0, shape.vocabulary, (2, shape.context), generator=drawn)
    with torch.no_grad():
        np.savez(place / "ours.npz", tokens=tokens_BT.numpy(), logits=model(tokens_BT).numpy())


def compare(python: str, places: list[Path]) -> dict[str, Any]:
    """What PYTHON's transformers makes of the exports: versions, and each model's difference, scale and class."""
    peer = Path(__file__).with_name("export_parity_peer.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-P", str(peer), *map(str, places)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
