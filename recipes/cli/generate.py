"""`gristmill generate`: a look at what the model writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from recipes.cli.options import Flags, print_json, shared_flags

if TYPE_CHECKING:
    from mixing.config import Sequences
    from mixing.tokenizer import Tokenizer
    from recipes.run import Run


@click.command()
@shared_flags
@click.option("--prompt", default="", help="Text to continue; default: the beginning of a document.")
@click.option("--ask", help="Ask the fine-tuned model, in its chat template.")
@click.option("--tokens", "num_tokens", default=64, show_default=True, help="Most new tokens.")
@click.option("--temperature", default=0.0, show_default=True, help="0: the likeliest token; 1: drawn as it says.")
@click.option("--draw", default=0, show_default=True, help="Number of the draw; another one gives another text.")
def command(flags: Flags, prompt: str, ask: str | None, num_tokens: int, temperature: float, draw: int) -> None:
    """Continue a prompt with the newest whole checkpoint, also of a training that runs.

    \b
    gristmill generate recipes/quickstart.yaml --prompt "Die "
    gristmill generate recipes/quickstart.yaml --temperature 0.8 --draw 3
    gristmill generate my.yaml --ask "What is a mill?"        after `gristmill finetune`
    """
    from mixing.tokenizer import load_tokenizer
    from recipes.errors import RunError
    from recipes.pretraining.train import own_checkpoints
    from recipes.whole import show_plan

    with flags.open_run(quiet=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json, "train")
            return
        if ask is not None:
            _answer(run, flags, ask, (num_tokens, temperature, draw))
            return
        found = own_checkpoints(run.training)
        if not found:
            raise RunError(f"no whole checkpoint yet; `gristmill train {run.recipe.called}` makes one")
        tokenizer = load_tokenizer(run.tokens.tokenizer)
        run.end_workers()
    from training.generate import continuations

    given = tokenizer.encoder.encode(prompt, add_special_tokens=False).ids
    ids = [*_beginning(run.recipe.sequences, tokenizer, bool(given)), *given]
    if not ids:
        raise RunError("--prompt: no token begins a document in this training; give some text")
    new = list(continuations(found[-1], ids, num_tokens, temperature, draw, tokenizer.eos))
    text = _continued(tokenizer, given, new)
    if flags.as_json:
        print_json({"checkpoint": found[-1].name, "prompt": prompt, "text": text, "tokens": new})
        return
    click.echo(f"{prompt}{text}")


def _beginning(sequences: Sequences, tokenizer: Tokenizer, prompted: bool) -> list[int]:
    """The token that stood before a document in training: its own begin token, or the end of the one before.

    With document masks the end of another document is never seen from inside one, so a prompt stands alone.
    """
    if sequences.bos and tokenizer.bos is not None:
        return [tokenizer.bos]
    if tokenizer.eos is None or not sequences.eos or (sequences.document_masks and prompted):
        return []
    return [tokenizer.eos]


def _continued(tokenizer: Tokenizer, given: list[int], new: list[int]) -> str:
    """The text of new tokens behind given ones: alone, many tokenizers would drop the space that they begin with."""
    before, whole = tokenizer.encoder.decode(given), tokenizer.encoder.decode([*given, *new])
    return whole[len(before) :] if whole.startswith(before) else tokenizer.encoder.decode(new)


def _answer(run: Run, flags: Flags, ask: str, options: tuple[int, float, int]) -> None:
    """Print what the fine-tuned model answers."""
    from recipes.errors import RunError
    from recipes.finetuning.finetuned import tuned_model
    from training.generate import continuations
    from training.tuning.tokens import ask_ids

    found = tuned_model(run)
    if found is None:
        raise RunError(f"no fine-tuned model yet; `gristmill finetune {flags.recipe}` makes one")
    checkpoint, tokenizer, stops = found
    encoder, ids = ask_ids(tokenizer, ask, run.recipe.finetuning.system if run.recipe.finetuning else None)
    new: list[int] = []
    for token in continuations(checkpoint, ids, *options):
        if token in stops:
            break
        new.append(token)
    text = encoder.decode(new)
    if flags.as_json:
        print_json({"checkpoint": checkpoint.name, "ask": ask, "text": text, "tokens": new})
        return
    click.echo(text)
