"""One side of `benchmarks.training`: a trainer that takes its train steps when it is told to.

    python -m benchmarks.training_sides ours|hf|litgpt '{"precision": "bf16", ...}'

Each side is the real thing: our Lightning module and callbacks' trainer, Hugging Face's `Trainer`, litgpt's `pretrain`.
They start from the same weights and read the same sequences; a line `go` on standard input buys `steps` train steps,
answered by one line of JSON. So several sides can wait in memory while one of them works.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.batches import HeldOut, TokenStream
from training.models import ModelShape, build, flops_per_token
from training.models.initial import initialise

FOREVER = 1_000_000


@dataclass(frozen=True)
class Options:
    """What all sides are told: `tuned` asks for a side's best settings, `steps` is what a turn takes."""

    precision: str = "bf16"
    sequences: int = 8
    context: int = 256
    steps: int = 2
    threads: int = 2
    tuned: bool = False
    layers: int = 6
    width: int = 288
    heads: int = 6
    feedforward: int = 768
    vocabulary: int = 32_000
    rate: float = 1e-3

    @property
    def shape(self) -> ModelShape:
        """The 15M proxy, unless told otherwise."""
        return ModelShape(
            "llama", self.vocabulary, self.width, self.layers, self.heads, self.feedforward, self.context, tied=True
        )


class Turns:
    """Counts train steps; after each turn says how it went and waits for the next."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0
        self.losses: list[float] = []
        self.waited_s = 0.0
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a trainer prints is no answer
        self.since, self.cpu_since = time.perf_counter(), time.process_time()

    def before_step(self) -> None:
        """Called before a train step; the first turn is for compiling and is told like the others."""
        if self.done % self.steps == 0:
            if self.done:
                spent = {"seconds": time.perf_counter() - self.since, "cpu_s": time.process_time() - self.cpu_since}
                self.tell(**spent, losses=self.losses, waited_s=self.waited_s)
            if sys.stdin.readline().strip() != "go":
                self.answers.flush()
                os._exit(0)
            self.losses, self.waited_s, self.since = [], 0.0, time.perf_counter()
            self.cpu_since = time.process_time()
        self.done += 1

    def tell(self, **found: Any) -> None:
        """One line of JSON."""
        self.answers.write(json.dumps(found) + "\n")


class Text:
    """Sequences drawn by a counter: small ids are frequent, as in text."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, ...]:
        """One domain, in order."""
        return np.zeros_like(positions), positions, np.zeros_like(positions), positions

    def read(self, domains: np.ndarray, sequences: np.ndarray, context: int) -> np.ndarray:
        """Each sequence from its own counter."""
        return np.stack([self.sequence(int(place), context) for place in sequences])

    def sequence(self, place: int, context: int) -> np.ndarray:
        """Token ids of one sequence, (context + 1,)."""
        drawn = np.random.Generator(np.random.Philox(key=7, counter=[0, 0, 0, place])).random(context + 1)
        return (self.vocabulary * drawn**4).astype(np.int64)


def stream_of(vocabulary: int) -> TokenStream:
    """The text as our trainer opens it."""
    text = Text(vocabulary)
    held_out: HeldOut | None = None
    return TokenStream(["all"], text, text, held_out)


def our_weights(options: Options) -> torch.nn.Module:
    """Our model with its initial weights."""
    with torch.device("meta"):
        model = build(options.shape)
    model.to_empty(device="cpu")
    initialise(model, options.shape, 0)
    return model


def hugging_face_model(options: Options) -> Any:
    """Hugging Face's Llama with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from training.export import exported_name, huggingface_config

    ours = our_weights(options)
    config = LlamaConfig(**huggingface_config(options.shape, {}, "fp32"))
    config.use_cache = False
    model = LlamaForCausalLM(config).float()
    wanted = {exported_name("llama", name): value for name, value in ours.state_dict().items()}
    missing, unexpected = model.load_state_dict(wanted, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model


# ---------------------------------------------------------------- the sides


def ours(options: Options, turns: Turns) -> None:
    """Our trainer as `gristmill train` runs it in one process."""
    from lightning.pytorch import Callback

    from training import trainer as ours_trainer
    from training.batches import TrainBatches
    from training.learning_rate import LearningRate
    from training.module import TrainingModule
    from training.spec import Execution, Factory, Span, TrainSpec

    class Metronome(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, place: int) -> None:
            turns.before_step()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, place: int) -> None:
            turns.losses.append(float(module.sums.totals[1]))

    class Timed(TrainBatches):
        def __iter__(self) -> Iterator[Any]:
            coming = super().__iter__()
            while True:
                since = time.perf_counter()
                batch = next(coming, None)
                turns.waited_s += time.perf_counter() - since
                if batch is None:
                    return
                yield batch

    ours_trainer.quieten()
    spec = TrainSpec(
        folder=tempfile.mkdtemp(),
        shape=options.shape,
        stream=Factory("benchmarks.training_sides:stream_of", {"vocabulary": options.vocabulary}),
        spans=(Span(0, 0, 0, options.sequences, options.context),),
        num_steps=FOREVER,
        learning_rate=LearningRate(options.rate, FOREVER**2, shape="wsd"),
        precision=options.precision,
        execution=Execution(device="cpu", threads=options.threads, compile=options.tuned),
    )
    module = TrainingModule(spec, spec.stream.make(), None, 1)
    trainer = ours_trainer.make_trainer(torch.device("cpu"), 1, 1, [Metronome()])
    trainer.fit(module, Timed(module.stream, spec.spans, 0, FOREVER, 0, 1))


def hf(options: Options, turns: Turns) -> None:
    """Hugging Face's Trainer: its own batch size of 8 a device; tuned: compiled."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    text = Text(options.vocabulary)

    class Metronome(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.before_step()

        def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            turns.losses.append(logs.get("loss", float("nan")))

    class Data(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return FOREVER

        def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
            # The Trainer predicts token t + 1 from t inside a sequence of T; ours predicts T of T + 1.
            ids = torch.from_numpy(text.sequence(place, options.context))
            return {"input_ids": ids, "labels": ids}

    micro = options.sequences if options.tuned else min(8, options.sequences)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=options.sequences // micro,
        max_steps=FOREVER,
        learning_rate=options.rate,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        bf16=options.precision == "bf16",
        use_cpu=True,
        torch_compile=options.tuned,
        logging_steps=options.steps,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(range(FOREVER))

    InOrder(model=hugging_face_model(options), args=arguments, train_dataset=Data(), callbacks=[Metronome()]).train()


def litgpt(options: Options, turns: Turns) -> None:
    """The `pretrain` of litgpt, which always compiles; its own micro-batch of 4, tuned: the whole batch."""
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    text, length = Text(options.vocabulary), options.context + 1

    class Data(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return FOREVER

        def __getitem__(self, place: int) -> torch.Tensor:
            if place % options.sequences == 0 and training[0]:
                turns.before_step()
            return torch.from_numpy(text.sequence(place, options.context))

    training = [False]
    micro = options.sequences if options.tuned else min(4, options.sequences)

    @dataclass
    class Ready(DataModule):
        def connect(self, *_: Any, **__: Any) -> None:
            return None

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Data(), batch_size=micro)

        def val_dataloader(self) -> Any:
            return torch.utils.data.DataLoader([torch.zeros(length, dtype=torch.int64)] * micro, batch_size=micro)

    plain = pretrain.chunked_cross_entropy

    def noted(logits: Any, targets: Any, *rest: Any, **named: Any) -> Any:
        value = plain(logits, targets, *rest, **named)
        if value.requires_grad and not value.is_meta:
            turns.losses.append(float(value.detach()))
        return value

    def checked(*arguments: Any, **named: Any) -> Any:
        training[0] = True  # the look at the validation text is over
        return torch.tensor(0.0)

    plain_optimizer = pretrain.instantiate_torch_optimizer

    def parted(optimizer: Any, parameters: Any, **named: Any) -> Any:
        kept = list(parameters)
        groups = [
            {"params": [one for one in kept if one.ndim >= 2]},
            {"params": [one for one in kept if one.ndim < 2], "weight_decay": 0.0},
        ]
        return plain_optimizer(optimizer, groups, **named)

    pretrain.chunked_cross_entropy = noted
    pretrain.validate = checked
    pretrain.instantiate_torch_optimizer = parted  # its own decays norms too, which the other two do not
    pretrain.initialize_weights = lambda fabric, model, **_: _into_litgpt(model, options)
    config = Config(
        name="proxy", block_size=options.context, vocab_size=options.vocabulary, padded_vocab_size=options.vocabulary,
        n_layer=options.layers, n_head=options.heads, n_embd=options.width, intermediate_size=options.feedforward,
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm", norm_eps=1e-5,
        mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    train = TrainArgs(
        save_interval=None, log_interval=FOREVER, global_batch_size=options.sequences, micro_batch_size=micro,
        max_tokens=FOREVER * options.context, max_norm=1.0, min_lr=options.rate, lr_warmup_steps=0, tie_embeddings=True,
    )  # fmt: skip
    values = {"lr": options.rate, "weight_decay": 0.1, "betas": (0.9, 0.95)}
    precision = "bf16-mixed" if options.precision == "bf16" else "32-true"
    pretrain.setup(
        "proxy", config, Path(tempfile.mkdtemp()), precision, data=Ready(), train=train,
        eval=EvalArgs(interval=FOREVER, max_iters=1, initial_validation=False, final_validation=False),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": values}, devices=1, logger_name="csv",
    )  # fmt: skip


def _into_litgpt(model: Any, options: Options) -> None:
    """Our initial weights in litgpt's layout (query, key and value in one matrix)."""
    found = dict(our_weights(options).state_dict())
    wanted = {"transformer.wte.weight": found["embedding.weight"], "lm_head.weight": found["embedding.weight"]}
    wanted["transformer.ln_f.weight"] = found["norm.weight"]
    for layer in range(options.layers):
        old, new = f"blocks.{layer}", f"transformer.h.{layer}"
        parts = [found[f"{old}.attention.{part}.weight"] for part in ("query", "key", "value")]
        wanted[f"{new}.attn.qkv.weight"] = torch.cat(parts)
        wanted[f"{new}.attn.proj.weight"] = found[f"{old}.attention.output.weight"]
        wanted[f"{new}.norm_1.weight"] = found[f"{old}.attention_norm.weight"]
        wanted[f"{new}.norm_2.weight"] = found[f"{old}.feed_forward_norm.weight"]
        for theirs, part in (("fc_1", "gate"), ("fc_2", "up"), ("proj", "down")):
            wanted[f"{new}.mlp.{theirs}.weight"] = found[f"{old}.feed_forward.{part}.weight"]
    model.load_state_dict(wanted)


SIDES: dict[str, Callable[[Options, Turns], None]] = {"ours": ours, "hf": hf, "litgpt": litgpt}


def matmul_rate(precision: str, size: int = 1024, seconds: float = 1.0) -> float:
    """This process's operations a second in a product of two square matrices, best of all within the time."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        since = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - since)
    return float(2 * size**3 / best)


def main() -> None:
    """Be the side that the first argument names."""
    side, options = sys.argv[1], Options(**json.loads(sys.argv[2]))
    torch.set_num_threads(options.threads)
    turns = Turns(options.steps)
    turns.tell(matmul_rate=matmul_rate(options.precision), flops_per_token=flops_per_token(options.shape))
    with contextlib.suppress(KeyboardInterrupt):
        SIDES[side](options, turns)


if __name__ == "__main__":
    main()
