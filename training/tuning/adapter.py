"""Export of a tuned model's weights: merged into the whole model, and as peft's adapter.

    huggingface/    the whole model, updates merged
    adapter/        adapter_config.json, adapter_model.safetensors, tokenizer: peft loads it over the base model

The adapter's maths and names are peft's (`LoraConfig`, version 0.17 and later). Both are checked: logits of the merged
model, and where peft is installed those of the base model with the adapter, against ours.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from training import checkpoint as checkpoints
from training.export import MAX_LOGIT_DIFFERENCE, ExportError, exported_name
from training.models import ModelShape, build
from training.spec import LowRank
from training.tuning import lora
from training.tuning.cards import hub_origin

_PREFIX = "base_model.model."
_WHOLE = {"embedding.weight", "output.weight"}


@dataclass(frozen=True)
class Tuned:
    """A tuned model's weights: `start` and, with `options`, the adapters that `last` holds."""

    start: Path
    last: Path
    options: LowRank | None


def load_tuned(tuned: Tuned) -> nn.Module:
    """The tuned model as it was trained, updates beside their layers, on the CPU."""
    last = checkpoints.open_checkpoint(tuned.last)
    if tuned.options is None:
        return checkpoints.load_model(last)
    with torch.device("meta"):
        model = lora.adapt(build(ModelShape(**last.manifest["shape"])), tuned.options)
    model.to_empty(device="cpu")
    lora.fill(model, tuned.start, last, 0)
    return model.eval()


def write_adapter(tuned: Tuned, base: Path, folder: Path, tokenizer: Path) -> None:
    """Write peft's adapter folder.

    Args:
        tuned: with `options`.
        base: the Hugging Face folder of the model that was tuned; one in the hub's cache is named as the hub does.
        folder: to write, made if missing.
        tokenizer: folder of the tuned tokenizer; peft makes the base model's vocabulary as large.
    """
    assert tuned.options is not None
    model = load_tuned(tuned)
    family = model.shape.family
    tensors = {}
    for name, value in model.named_parameters():
        if lora.is_adapter(name):
            layer, _, part = name.rpartition(".")
            theirs = exported_name(family, f"{layer}.weight").removesuffix(".weight")
            tensors[f"{_PREFIX}{theirs}.{'lora_A' if part == 'lora_a' else 'lora_B'}.weight"] = value.detach()
        elif tuned.options.embeddings and name in _WHOLE:
            tensors[f"{_PREFIX}{exported_name(family, name)}"] = value.detach()
    if tuned.options.embeddings and model.shape.tied:
        # peft keeps a copy of each layer that is trained whole, of tied ones too.
        tensors[f"{_PREFIX}lm_head.weight"] = model.output_weight.detach().clone()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "adapter_model.safetensors")
    config = _adapter_config(model, tuned.options, base)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)


def _adapter_config(model: nn.Module, options: LowRank, base: Path) -> dict[str, Any]:
    family = model.shape.family
    name, commit = hub_origin(base) or (str(base), None)
    adapted = [path for path, layer in model.named_modules() if isinstance(layer, lora.AdaptedLinear)]
    embedding = exported_name(family, "embedding.weight").removesuffix(".weight").rpartition(".")[2]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": commit,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        # Whole names: `output` would be found in other places too.
        "target_modules": sorted(exported_name(family, f"{layer}.weight").removesuffix(".weight") for layer in adapted),
        "modules_to_save": [embedding, "lm_head"] if options.embeddings else None,
    }


def check_adapter(tuned: Tuned, adapter: Path, base: Path) -> float | None:
    """Load an adapter with peft over its base model and compare logits with ours; None where peft is not installed.

    Raises:
        ExportError: if a logit differs by more than MAX_LOGIT_DIFFERENCE.
    """
    try:
        from peft import PeftModel
    except ImportError:
        return None
    from transformers import AutoModelForCausalLM

    ours = load_tuned(tuned)
    trust = ours.shape.family == "mindllm"  # whose code `training.export` wrote
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft advises on vocabularies and tied layers is done here
        loaded = AutoModelForCausalLM.from_pretrained(
            base, dtype=torch.float32, local_files_only=True, trust_remote_code=trust
        )
        if loaded.get_input_embeddings().num_embeddings != ours.shape.vocabulary:
            loaded.resize_token_embeddings(ours.shape.vocabulary, mean_resizing=False)
        theirs = PeftModel.from_pretrained(loaded, adapter).eval()
        return _difference(ours, theirs, adapter)


def _difference(ours: nn.Module, theirs: Any, folder: Path) -> float:
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(0, ours.shape.vocabulary, (2, min(ours.shape.context, 512)), generator=generator)
    difference = (ours(tokens_BT) - theirs(input_ids=tokens_BT).logits).abs().max().item()
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise ExportError(f"{folder}: logits differ by {difference:.2e}, more than {MAX_LOGIT_DIFFERENCE:.0e}")
    return difference


def write_merged(tuned: Tuned, root: Path) -> Path:
    """Write the tuned model with its updates merged as a checkpoint, and check that its logits are the unmerged ones.

    Raises:
        ExportError: if a logit differs by more than MAX_LOGIT_DIFFERENCE.
    """
    from training.importing import write_weights

    model = load_tuned(tuned)
    found = write_weights(lora.merged_weights(model), model.shape, root, {"merged": tuned.last.name})
    merged = checkpoints.load_model(checkpoints.open_checkpoint(found))
    with torch.no_grad():
        _difference(model, _Logits(merged), root)
    return found


class _Logits:
    """Our model, called as transformers' are."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, input_ids: torch.Tensor) -> Any:
        """Logits in a field."""
        from types import SimpleNamespace

        return SimpleNamespace(logits=self._model(input_ids))
