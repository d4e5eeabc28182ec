"""novacron complete: one prompt in, its continuation out."""

from __future__ import annotations

import sys
from contextlib import closing

import click

from novacron.cli.generation import Generation
from novacron.cli.main import EXIT_INTERRUPTED
from novacron.cli.options import settings_command
from novacron.cli.sampling import sampling_options, split_sampling
from novacron.cli.target import connected, target_options


@settings_command("model")
@click.argument("prompt", required=False)
@target_options
@click.option("--model-name", help="model to ask for, if the server has several")
@click.option("--chat", "as_chat", is_flag=True, help="send PROMPT as a chat message")
@click.option("--stats", is_flag=True, help="print tokens and times to standard error")
@sampling_options
@click.pass_context
def complete(
    ctx: click.Context,
    /,
    prompt: str | None,
    url: str | None,
    client_key: str | None,
    model_name: str | None,
    as_chat: bool,
    stats: bool,
    **options: object,
) -> None:
    """Continue PROMPT, or standard input, and stream the text to standard output."""
    sampling, flags = split_sampling(options)
    text = _read_prompt(prompt)
    with connected(url, client_key, flags) as client:
        model = model_name or client.first_model()
        path = "/v1/chat/completions" if as_chat else "/v1/completions"
        asked = {"messages": [{"role": "user", "content": text}]} if as_chat else {"prompt": text}
        generation = Generation(client, path, {"model": model, **asked, **sampling})
        try:
            with closing(iter(generation)) as pieces:
                for piece in pieces:
                    click.echo(piece, nl=False)
        except KeyboardInterrupt:
            click.echo()
            ctx.exit(EXIT_INTERRUPTED)
        click.echo()
        if stats:
            click.echo(str(generation.statistics), err=True)


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if _is_terminal():
        raise click.UsageError("Give a PROMPT, or send one to standard input.")
    return sys.stdin.read()


def _is_terminal() -> bool:
    return sys.stdin.isatty()
