"""novacron admin price."""

from __future__ import annotations

import click
import msgspec

from novacron.accounts.database.store import Store
from novacron.accounts.price import Price, micro_of, text_of_pico
from novacron.cli.admin.output import json_option
from novacron.cli.admin.place import on_accounts


@click.group()
def price() -> None:
    """What a million tokens of a model cost, in whatever currency you count."""


def _micro(ctx: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return micro_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, option) from error


@price.command("set")
@click.argument("model")
@click.option("--prompt", default="0", callback=_micro, metavar="PRICE", help="Of prompts.")
@click.option(
    "--cached",
    callback=lambda ctx, option, value: None if value is None else _micro(ctx, option, value),
    metavar="PRICE",
    help="Of what is found in the cache of prompts.  [default: as --prompt]",
)
@click.option("--output", default="0", callback=_micro, metavar="PRICE", help="Of answers.")
@on_accounts
def set_(store: Store, model: str, prompt: int, cached: int | None, output: int) -> None:
    """Set the prices of MODEL, for calls that end from now on."""
    cached_micro = prompt if cached is None else cached
    store.prices.set(
        model, Price(prompt_micro=prompt, cached_micro=cached_micro, output_micro=output)
    )
    click.echo(f"Set the prices of {model}.")


@price.command()
@json_option
@on_accounts
def ls(store: Store, *, as_json: bool) -> None:
    """List prices, for a million tokens."""
    prices = store.prices.list()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(prices)).decode())
        return
    for model, one in prices.items():
        parts = (one.prompt_micro, one.cached_micro, one.output_micro)
        told = (text_of_pico(micro * 1_000_000) for micro in parts)
        click.echo("{}: prompt {}, cached {}, output {}".format(model, *told))
    if not prices:
        click.echo("None.")
