"""`gristmill generate`: a look at what the model writes."""

from __future__ import annotations

import click

from recipes.cli.options import Flags, print_json, shared_flags


@click.command()
@shared_flags
@click.option("--prompt", default="", help="Text to continue; default: the beginning of a document.")
@click.option("--tokens", "num_tokens", default=64, show_default=True, help="Most new tokens.")
@click.option("--temperature", default=0.0, show_default=True, help="0: the likeliest token; 1: drawn as it says.")
@click.option("--draw", default=0, show_default=True, help="Number of the draw; another one gives another text.")
def command(flags: Flags, prompt: str, num_tokens: int, temperature: float, draw: int) -> None:
    """Continue a prompt with the newest whole checkpoint, also of a training that runs.

    \b
    gristmill generate recipes/quickstart.yaml --prompt "Die "
    gristmill generate recipes/quickstart.yaml --temperature 0.8 --draw 3
    """
    from mixing.tokenizer import load_tokenizer
    from recipes.errors import RunError
    from recipes.train import own_checkpoints
    from recipes.whole import show_plan

    with flags.open_run(quiet=True) as run:
        if flags.dry_run:
            show_plan(run, flags.as_json)
            return
        found = own_checkpoints(run.training)
        if not found:
            raise RunError(f"no whole checkpoint yet; `gristmill train {run.recipe.called}` makes one")
        tokenizer = load_tokenizer(run.tokens.tokenizer)
        run.end_workers()
    from training.generate import continuations

    start = [tokenizer.bos if tokenizer.bos is not None else tokenizer.eos]
    ids = [*(one for one in start if one is not None), *tokenizer.encoder.encode(prompt, add_special_tokens=False).ids]
    if not ids:
        raise RunError("--prompt: the tokenizer has no token that begins a document; give some text")
    new = list(continuations(found[-1], ids, num_tokens, temperature, draw, tokenizer.eos))
    text = tokenizer.encoder.decode(new)
    if flags.as_json:
        print_json({"checkpoint": found[-1].name, "prompt": prompt, "text": text, "tokens": new})
        return
    click.echo(f"{prompt}{text}")
