"""Export a checkpoint as a Hugging Face folder, and check it: its logits are ours.

Weights are renamed, never rearranged. Llama and GPT-Neo load as transformers' own classes; MindLLM brings its code
(`auto_map`, loaded with `trust_remote_code`). The configuration is readable by transformers 4 and 5.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from training.checkpoint import Checkpoint, load_model, open_checkpoint, read_rows
from training.models import ModelShape, num_parameters

# Largest difference of logits between our model and the exported one, both computed in float32.
MAX_LOGIT_DIFFERENCE = 1e-4
# Weights per file, and so the most memory that writing takes.
FILE_BYTES = 4 << 30
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

_LLAMA = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
_GPT_NEO = {
    "embedding.weight": "transformer.wte.weight",
    "positions.weight": "transformer.wpe.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "attention_norm.weight": "ln_1.weight",
    "attention_norm.bias": "ln_1.bias",
    "attention.query.weight": "attn.attention.q_proj.weight",
    "attention.key.weight": "attn.attention.k_proj.weight",
    "attention.value.weight": "attn.attention.v_proj.weight",
    "attention.output.weight": "attn.attention.out_proj.weight",
    "attention.output.bias": "attn.attention.out_proj.bias",
    "feed_forward_norm.weight": "ln_2.weight",
    "feed_forward_norm.bias": "ln_2.bias",
    "feed_forward.up.weight": "mlp.c_fc.weight",
    "feed_forward.up.bias": "mlp.c_fc.bias",
    "feed_forward.down.weight": "mlp.c_proj.weight",
    "feed_forward.down.bias": "mlp.c_proj.bias",
}
# Family -> (where its layers stand, names).
_NAMES = {
    "llama": ("model.layers", _LLAMA),
    "gpt_neo": ("transformer.h", _GPT_NEO),
    "mindllm": ("model.layers", _LLAMA),
}


class ExportError(RuntimeError):
    """An export that is not the model that was trained."""


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        precision: of the stored weights, bf16 or fp32.
        tokenizer: folder with tokenizer.json, or the file; None leaves it out.
        name: of the model, in its card.
        sheet: what the card says about the training text, any JSON; becomes data_sheet.json beside the card.
        prompt: text whose continuation is generated as a check, where there is a tokenizer.
        context: longest sequence the model was trained on, in tokens, where some were longer than the shape's.
    """

    precision: str = "bf16"
    tokenizer: str | None = None
    name: str = "model"
    sheet: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    context: int = 0


@dataclass(frozen=True)
class ExportCheck:
    """What the check of an export found.

    Attributes:
        logit_difference: largest absolute difference between the exported model's logits and ours.
        logit_scale: largest absolute logit.
        num_parameters: of the exported model.
        continuation: a few tokens generated from the prompt, text or (without tokenizer) ids.
    """

    logit_difference: float
    logit_scale: float
    num_parameters: int
    continuation: str


def export_huggingface(
    checkpoints: Sequence[Path], folder: Path, options: ExportOptions = ExportOptions()
) -> ExportCheck:
    """Write a Hugging Face folder and check it.

    Args:
        checkpoints: one checkpoint's folder, or several whose weights are averaged.
        folder: to write; made if missing.
        options: see `ExportOptions`.

    Returns:
        What the check found.

    Raises:
        CheckpointError: if a checkpoint is damaged.
        ExportError: if the exported model's logits are not ours.
    """
    opened = [open_checkpoint(Path(path)) for path in checkpoints]
    shape = ModelShape(**opened[0].manifest["shape"])
    if any(found.manifest["shape"] != opened[0].manifest["shape"] for found in opened):
        raise ExportError("checkpoints of different shapes cannot be averaged")
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, shape, _averaged(opened), DTYPES[options.precision])
    special = _copy_tokenizer(folder, options)
    longest = shape if shape.family == "gpt_neo" else replace(shape, context=max(shape.context, options.context))
    _write_json(folder / "config.json", huggingface_config(longest, special, options.precision))
    _write_json(folder / "generation_config.json", {**_ids(special), "do_sample": False})
    if shape.family == "mindllm":
        code = importlib.import_module("training.models.huggingface_mindllm").__file__
        shutil.copyfile(str(code), folder / "modeling_mindllm.py")
    _write_card(folder, longest, opened[-1], options)
    return check_export(opened, folder, options)


def exported_name(family: str, name: str) -> str:
    """Hugging Face's name of one of our parameters."""
    layers, names = _NAMES[family]
    if not name.startswith("blocks."):
        return names[name]
    _, layer, rest = name.split(".", 2)
    return f"{layers}.{layer}.{names[rest]}"


def huggingface_config(shape: ModelShape, special: Mapping[str, int | None], precision: str) -> dict[str, Any]:
    """The content of config.json.

    Args:
        shape: the model.
        special: ids of bos, eos and pad, None where there is none.
        precision: bf16 or fp32.
    """
    dtype = str(DTYPES[precision]).removeprefix("torch.")
    # transformers 5 reads dtype and rope_parameters, transformers 4 torch_dtype and rope_theta.
    common = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
        **_ids(special),
    }
    return {**common, **(_gpt_neo_config(shape) if shape.family == "gpt_neo" else _llama_config(shape))}


def _ids(special: Mapping[str, int | None]) -> dict[str, int | None]:
    return {f"{word}_token_id": special.get(word) for word in ("bos", "eos", "pad")}


def _llama_config(shape: ModelShape) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": shape.feedforward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
    }
    if shape.family == "mindllm":
        config |= {"architectures": ["MindllmForCausalLM"], "model_type": "gristmill_mindllm", "hidden_act": "gelu"}
        config["auto_map"] = {
            "AutoConfig": "modeling_mindllm.MindllmConfig",
            "AutoModelForCausalLM": "modeling_mindllm.MindllmForCausalLM",
        }
    return config


def _gpt_neo_config(shape: ModelShape) -> dict[str, Any]:
    kinds = ["local" if layer % 2 else "global" for layer in range(shape.layers)]
    return {
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "intermediate_size": shape.feedforward,
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "activation_function": "gelu_new",
        "attention_types": [[[kind], 1] for kind in kinds],
        "attention_layers": kinds,
        "window_size": shape.window,
        "layer_norm_epsilon": shape.norm_epsilon,
        "attention_dropout": 0.0,
        "embed_dropout": 0.0,
        "resid_dropout": 0.0,
    }


def _averaged(opened: Sequence[Checkpoint]) -> Callable[[str], Tensor]:
    def weight(name: str) -> Tensor:
        rows = opened[0].manifest["tensors"][f"model/{name}"]["shape"][0]
        total = sum(read_rows(found, f"model/{name}", 0, rows).double() for found in opened)
        return (total / len(opened)).float()

    return weight


def _write_weights(folder: Path, shape: ModelShape, weight: Callable[[str], Tensor], dtype: torch.dtype) -> None:
    """Write the weights in files of FILE_BYTES at most, one file's tensors in memory at a time."""
    from training.models import build

    with torch.device("meta"):
        sizes = {name: p.numel() * dtype.itemsize for name, p in build(shape).named_parameters()}
    groups = list(_grouped(sizes))
    files: dict[str, str] = {}
    for place, names in enumerate(groups, 1):
        several = f"model-{place:05d}-of-{len(groups):05d}.safetensors"
        file = several if len(groups) > 1 else "model.safetensors"
        tensors = {exported_name(shape.family, name): weight(name).to(dtype).contiguous() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, file)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": files}
        _write_json(folder / "model.safetensors.index.json", index)


def _grouped(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > FILE_BYTES:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group


def _copy_tokenizer(folder: Path, options: ExportOptions) -> dict[str, int | None]:
    if options.tokenizer is None:
        return {}
    from mixing.tokenizer import load_tokenizer
    from mixing.tokenizer_files import copy_tokenizer

    loaded = load_tokenizer(options.tokenizer)
    copy_tokenizer(Path(options.tokenizer), folder)
    ids = {"bos": loaded.bos, "eos": loaded.eos, "pad": loaded.pad}
    if not (folder / "tokenizer_config.json").exists():
        tokens = {f"{word}_token": loaded.encoder.id_to_token(at) for word, at in ids.items() if at is not None}
        _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens})
    return ids


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def trust_argument(family: str) -> str:
    """What `from_pretrained` is given besides, in a card's code, for a family whose code lies in its folder."""
    return ", trust_remote_code=True" if family == "mindllm" else ""


def _write_card(folder: Path, shape: ModelShape, last: Checkpoint, options: ExportOptions) -> None:
    _write_json(folder / "data_sheet.json", options.sheet)
    folder.joinpath("README.md").write_text(
        f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {options.name}

A {shape.family} language model of {num_parameters(shape):,} parameters, trained from scratch with gristmill for
{last.step:,} train steps on {last.manifest["tokens"]:,} tokens, context {shape.context:,}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(".", dtype="auto"{trust_argument(shape.family)})
tokenizer = AutoTokenizer.from_pretrained(".")
```

It is a base model: it continues text, follows no instructions and was not made safe. The text that it was trained on,
with sources, licences and amounts, is described in `data_sheet.json`.
"""
    )


def check_export(opened: Sequence[Checkpoint], folder: Path, options: ExportOptions) -> ExportCheck:
    """Load an export with transformers and compare its logits with our model's of the same stored weights.

    Raises:
        ExportError: if a logit differs by more than MAX_LOGIT_DIFFERENCE.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    ours = load_model(opened[0])
    weight, dtype = _averaged(opened), DTYPES[options.precision]
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(weight(name).to(dtype))
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=ours.shape.family == "mindllm", local_files_only=True
    ).eval()
    generator = torch.Generator().manual_seed(0)
    length = min(ours.shape.context, 512)
    tokens_BT = torch.randint(0, ours.shape.vocabulary, (2, length), generator=generator)
    with torch.no_grad():
        our_logits, their_logits = ours(tokens_BT), theirs(tokens_BT).logits
    difference = (our_logits - their_logits).abs().max().item()
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise ExportError(f"{folder}: logits differ by {difference:.2e}, more than {MAX_LOGIT_DIFFERENCE:.0e}")
    count = sum(parameter.numel() for parameter in theirs.parameters())
    return ExportCheck(difference, our_logits.abs().max().item(), count, _continuation(theirs, folder, options))


def _continuation(model: Any, folder: Path, options: ExportOptions) -> str:
    if options.tokenizer is None:
        prompt = torch.zeros(1, 1, dtype=torch.int64)
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
        return " ".join(str(number) for number in ids[0, 1:].tolist())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = options.prompt or tokenizer.bos_token or "1"
    found = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    ids = model.generate(found["input_ids"], attention_mask=found["attention_mask"], max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(ids[0, found["input_ids"].shape[1] :]))
