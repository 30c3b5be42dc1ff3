"""What a tuned model's folders say to whoever opens them: where answers stop, and a card that shows how to ask.

A card's code stands in its folder and runs there as it is.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.export import trust_argument

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_STOPS = "generation_config.json"
_ASK = """\
tokenizer = AutoTokenizer.from_pretrained(".")
asked = [{"role": "user", "content": "..."}]
inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0, inputs["input_ids"].shape[1] :]))"""


@dataclass(frozen=True)
class Card:
    """A tuned model for a reader.

    Attributes:
        name: of the model.
        base: name of the model that was tuned; where it is one of the hub, the card's header names it too.
        family: of its shape.
        told: what the card says of the tuning, by name.
    """

    name: str
    base: str
    family: str
    told: Mapping[str, Any]

    @property
    def loading(self) -> str:
        """What `from_pretrained` is given."""
        return f'".", dtype="auto"{trust_argument(self.family)}'

    def header(self, library: str, relation: str) -> str:
        """The lines that the hub reads."""
        found = [f"library_name: {library}", "pipeline_tag: text-generation"]
        if _HUB_NAME.fullmatch(self.base):
            found += [f"base_model: {self.base}", f"base_model_relation: {relation}"]
        return "\n".join(["---", *found, "---"])

    @property
    def lines(self) -> str:
        """What is told, as a list."""
        return "\n".join(f"- {key}: {_one_line(value)}" for key, value in self.told.items())


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if "\n" in str(value) else str(value)


def hub_origin(folder: Path) -> tuple[str, str] | None:
    """Name and commit of a model that lies in the hub's cache; None for a folder elsewhere.

    What a folder's config says of its name is no proof: copies that were trained on keep it.
    """
    *_, holder, snapshots, commit = ("", "", *folder.resolve().parts)
    if snapshots != "snapshots" or not holder.startswith("models--"):
        return None
    return holder.removeprefix("models--").replace("--", "/"), commit


def finish_folder(folder: Path, stops: Sequence[int], card: Card) -> None:
    """Make a base model's exported folder a tuned one's: it stops where answers end, and its card says how to ask.

    Args:
        folder: of `training.export.export_huggingface`, with the tuned tokenizer.
        stops: ids after which generation stops.
        card: see `Card`.
    """
    path = folder / _STOPS
    config = json.loads(path.read_text(encoding="utf-8"))
    if stops:
        config["eos_token_id"] = list(stops) if len(stops) > 1 else stops[0]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    folder.joinpath("README.md").write_text(
        f"""{card.header("transformers", "finetune")}

# {card.name}

A language model: {card.base}, fine-tuned on conversations with gristmill.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({card.loading})
{_ASK}
```

{card.lines}

It was not made safe. The licence of the base model and those of the examples hold. The text that the base model was
trained on, where gristmill trained it, is described in `data_sheet.json`.
""",
        encoding="utf-8",
    )


def finish_adapter(folder: Path, merged: Path, card: Card) -> None:
    """Say in an adapter's folder where answers stop and how to ask; peft reads only the base model's own stops.

    Args:
        folder: of `training.tuning.adapter.write_adapter`.
        merged: finished folder of the merged model.
        card: see `Card`.
    """
    shutil.copyfile(merged / _STOPS, folder / _STOPS)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    folder.joinpath("README.md").write_text(
        f"""{card.header("peft", "adapter")}

# {card.name}: adapter

Low-rank updates of {card.base}, fine-tuned on conversations with gristmill.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, GenerationConfig
model = AutoPeftModelForCausalLM.from_pretrained({card.loading})
model.generation_config = GenerationConfig.from_pretrained(".")  # stops where answers end: the base model does not
{_ASK}
```

The base model is loaded from `{config["base_model_name_or_path"]}`; where it lies elsewhere, write its name or place as
`base_model_name_or_path` into `adapter_config.json`.

{card.lines}

It was not made safe. The licence of the base model and those of the examples hold.
""",
        encoding="utf-8",
    )
