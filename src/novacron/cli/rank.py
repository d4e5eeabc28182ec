"""novacron rank: hold some layers of a model for an engine on another host."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Final

import click

from novacron.cli.link_key import link_key_file
from novacron.cli.options import SettingOption, SettingsCommand, load_settings
from novacron.config.keys import KEYS
from novacron.engine.link.keys import KeyPair, checked_key, read_or_make_key
from novacron.engine.link.rank_supervisor import RankSupervisor, SupervisorConfig
from novacron.observability.logs import configure_logging

_DEFAULT_PORT: Final = 9092
_HOST_KEYS: Final = (
    "model", "packed_cache_size", "cache_dir", "num_threads", "cpu_memory_utilization",
    "kv_ram_size", "kv_disk_size", "kv_disk_path", "kv_redis_url", "kv_object_url",
    "encryption_key",
)  # fmt: skip


@click.command(cls=SettingsCommand)
@click.option(
    "--listen",
    default=f"tcp://0.0.0.0:{_DEFAULT_PORT}",
    show_default=True,
    help="Where the other ranks find this host.",
)
@click.option(
    "--allow",
    multiple=True,
    required=True,
    help="Public key of the engine's host, which novacron cluster key prints there; may be "
    "repeated.",
)
@click.option("--end-with-stdin", is_flag=True, help="End when standard input does.")
@click.option(
    "--new-key", is_flag=True, help="Use a key made for this run, and keep it in no file."
)
def rank(
    listen: str, allow: tuple[str, ...], *, end_with_stdin: bool, new_key: bool, **flags: object
) -> None:
    """Wait for an engine on another host, and compute some layers of its model here.

    It says which model, layers and settings; what is given here, such as --model, --num-threads or
    --cache-dir, wins. The line that this prints is what --rank-hosts of novacron serve takes. Links
    are encrypted, and only those with an allowed key are answered.
    """
    settings = load_settings(flags)
    configure_logging(settings.server.log_level, settings.server.log_format)
    allowed = tuple(checked_key(key, "--allow") for text in allow for key in text.split(","))
    keys = KeyPair.make() if new_key else read_or_make_key(link_key_file(settings.cluster.link_key))
    supervisor = RankSupervisor(
        SupervisorConfig(
            listen=listen,
            keys=keys,
            allowed=allowed,
            given={
                name: getattr(getattr(settings.engine, KEYS[name].component), name)
                for name in _HOST_KEYS
                if settings.origins[name].kind != "default"
            },
            log_level=settings.server.log_level,
            log_format=settings.server.log_format,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.end())
    print(f"ready: {supervisor.address}", flush=True)
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, args=(supervisor,), daemon=True).start()
    supervisor.run()


rank.params += [
    SettingOption(KEYS[name]) for name in (*_HOST_KEYS, "link_key", "log_level", "log_format")
]


def _end_with_stdin(supervisor: RankSupervisor) -> None:
    sys.stdin.buffer.read()
    supervisor.end()
