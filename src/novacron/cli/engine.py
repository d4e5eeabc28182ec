"""novacron engine: keep an engine on this host for a server on another one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from functools import partial

import click

from novacron.cli.link_key import link_key_file
from novacron.cli.options import SettingOption, SettingsCommand, load_settings
from novacron.config.keys import KEYS
from novacron.config.load import Settings
from novacron.engine.link.engine_host import EngineHost
from novacron.engine.link.host_settings import HOST_KEYS, settings_of_host
from novacron.engine.link.keys import KeyPair, checked_key, read_or_make_key
from novacron.engine.link.listen import DEFAULT_PORT
from novacron.observability.logs import configure_logging


@click.command(cls=SettingsCommand)
@click.option(
    "--listen",
    default=f"tcp://0.0.0.0:{DEFAULT_PORT}",
    show_default=True,
    help="Where the server finds this host; PORT or FIRST-LAST.",
)
@click.option(
    "--allow",
    multiple=True,
    required=True,
    help="Public key of the server, which novacron cluster key prints there; may be repeated.",
)
@click.option("--end-with-stdin", is_flag=True, help="End when standard input does.")
@click.option(
    "--new-key", is_flag=True, help="Use a key made for this run, and keep it in no file."
)
def engine(
    listen: str, allow: tuple[str, ...], *, end_with_stdin: bool, new_key: bool, **flags: object
) -> None:
    """Wait for a server on another host, and run an engine of it here.

    It says which model and settings it wants; what is given here, such as --model, --num-threads or
    --cache-dir, wins. The line that this prints is what --engine-hosts of novacron serve takes.
    Links are encrypted, and only those with an allowed key are answered.
    """
    settings = load_settings(flags)
    configure_logging(settings.server.log_level, settings.server.log_format)
    allowed = [checked_key(key, "--allow") for text in allow for key in text.split(",")]
    keys = KeyPair.make() if new_key else read_or_make_key(link_key_file(settings.cluster.link_key))
    asyncio.run(_run(listen, keys, allowed, _given(settings), end_with_stdin=end_with_stdin))


engine.params += [
    SettingOption(KEYS[name]) for name in (*HOST_KEYS, "link_key", "log_level", "log_format")
]


async def _run(
    listen: str,
    keys: KeyPair,
    allowed: list[str],
    given: Mapping[str, object],
    *,
    end_with_stdin: bool,
) -> None:
    """Until a signal."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    host = EngineHost(listen, keys, allowed, partial(settings_of_host, given=given))
    print(f"ready: {host.address}", flush=True)
    if end_with_stdin:
        loop.add_reader(sys.stdin.fileno(), asked.set)
    running = asyncio.create_task(host.run())
    ending = asyncio.create_task(asked.wait())
    await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _given(settings: Settings) -> dict[str, object]:
    """What was given on this host, of what is its business."""
    return {
        name: getattr(getattr(settings.engine, KEYS[name].component), name)
        for name in HOST_KEYS
        if settings.origins[name].kind != "default"
    }
