"""novacron serve: start the engine process, then import and run the API beside it."""

from __future__ import annotations

from pathlib import Path

import click

from novacron.cli.listener import bind
from novacron.cli.options import ALL_COMPONENTS, config_file_option, load_settings, settings_command


@settings_command(*ALL_COMPONENTS)
@click.argument("model_path", metavar="[MODEL]", required=False)
@config_file_option
@click.pass_context
def serve(
    ctx: click.Context, /, model_path: str | None, config_file: Path | None, **flags: object
) -> None:
    """Serve MODEL over HTTP: the APIs of OpenAI and of NovaCron.

    MODEL is a Hugging Face folder, or a name on the hub, taken from the local cache or fetched.
    Without it, the bundled model is served. The first SIGTERM or Ctrl-C finishes running requests,
    the second ends at once.

    Exit codes: 0 after a clean end, 1 if the engine failed or requests were cut off, 2 for wrong
    settings, 130 (Ctrl-C) or 143 (SIGTERM) when ended at once.
    """
    settings = load_settings(flags, file=config_file, model=model_path)
    listener = bind(settings.server.host, settings.server.port)

    from novacron.cli.engine_start import spawn_engine

    client, settings = spawn_engine(settings)  # it imports torch and loads, while we go on here

    from novacron.cli.serve_loop import run

    ctx.exit(run(client, settings, listener))
