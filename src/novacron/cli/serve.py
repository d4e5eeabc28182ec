"""novacron serve: start the engine process, then import and run the API beside it."""

from __future__ import annotations

import gc

import click

from novacron.cli.listener import bind
from novacron.cli.options import serving_command
from novacron.config.load import Settings


@serving_command()
@click.pass_context
def serve(ctx: click.Context, /, settings: Settings) -> None:
    """Serve MODEL over HTTP: the APIs of OpenAI and of NovaCron.

    MODEL is a Hugging Face folder, or a name on the hub, taken from the local cache or fetched.
    Without it, the bundled model is served. The first SIGTERM or Ctrl-C finishes running requests,
    the second ends at once.

    Exit codes: 0 after a clean end, 1 if the engine failed or requests were cut off, 2 for wrong
    settings, 130 (Ctrl-C) or 143 (SIGTERM) when ended at once.
    """
    gc.disable()  # while we import: nothing of it is garbage, and looking for some takes a tenth
    listener = bind(settings.server.host, settings.server.port)

    from novacron.cli.accounts import open_accounts, policies_of

    accounts = open_accounts(settings.server)

    from novacron.cli.engine_start import spawn_engine

    # it imports torch and loads, while we go on here
    client, settings = spawn_engine(settings, policies_of(settings, accounts))

    from novacron.cli.serve_loop import run

    gc.enable()
    ctx.exit(run(client, settings, listener, accounts))
