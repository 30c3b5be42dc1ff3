"""Logits of exported models by a Python's own transformers, compared with those beside them.

    PYTHON benchmarks/export_parity_peer.py FOLDER...

Each FOLDER holds `export`, and `ours.npz` with tokens (B, T) and logits (B, T, V). Prints one line of JSON. Needs
torch, transformers and numpy, nothing of gristmill.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers


def compared(folder: Path) -> dict[str, object]:
    """Largest difference of logits in float32, the largest logit, and the class that loaded the export.

    The second half is computed again from cached keys and values, as in generation.
    """
    trust = "auto_map" in json.loads((folder / "export" / "config.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "export", dtype=torch.float32, trust_remote_code=trust, local_files_only=True
    ).eval()
    ours = np.load(folder / "ours.npz")
    tokens_BT, expected_BTV = torch.from_numpy(ours["tokens"]), torch.from_numpy(ours["logits"])
    with torch.no_grad():
        found_BTV = model(tokens_BT).logits
        differences = [found_BTV - expected_BTV]
        half = tokens_BT.shape[1] // 2
        cache = getattr(model(tokens_BT[:, :half], use_cache=True), "past_key_values", None)
        if cache is not None:  # MindLLM's own code keeps none
            later_BTV = model(tokens_BT[:, half:], past_key_values=cache, use_cache=True).logits
            differences.append(later_BTV - expected_BTV[:, half:])
    return {
        "difference": float(torch.cat([one.abs().flatten() for one in differences]).max()),
        "scale": float(expected_BTV.abs().max()),
        "loaded": type(model).__name__,
    }


def main() -> None:
    """Compare each folder."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    models = [compared(Path(folder)) for folder in sys.argv[1:]]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(json.dumps({**versions, "models": models}))


if __name__ == "__main__":
    main()
