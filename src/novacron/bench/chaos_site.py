"""The server of `novacron bench chaos`, and around it what can be struck: engine hosts behind
links, a small disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from novacron.bench.chaos_calls import with_tools
from novacron.bench.engine_hosts import BenchHost, engine_hosts, plain_environment
from novacron.bench.faults import Site, Victims
from novacron.bench.scenario import SiteScenario
from novacron.bench.small_disk import SmallDisk, small_disk
from novacron.bench.target import Target, TargetOptions, open_target

_MIB: Final = 2**20


@contextlib.asynccontextmanager
async def open_site(
    options: TargetOptions, scenario: SiteScenario, progress: Callable[[str], None]
) -> AsyncIterator[tuple[Target, Site]]:
    """A server that is ready. Raises ConfigError if what the scenario wants cannot be had here."""
    patience = f"{scenario.heartbeat_timeout}s"
    settings = [f"heartbeat_timeout={patience}", f"link_timeout={patience}", *options.settings]
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="novacron-chaos-")))
        if not options.model and options.config is None:
            settings.insert(0, f"chat_template={with_tools(folder)}")
        disk = None
        if scenario.small_disk_mib:
            disk = stack.enter_context(small_disk(folder / "disk", scenario.small_disk_mib * _MIB))
            settings += _on_disk(disk)
        hosts: Sequence[BenchHost] = ()
        if scenario.hosts:
            progress("starting hosts")
            environment = plain_environment(options.environment, **_host_settings(disk))
            hosts, found = await stack.enter_async_context(
                engine_hosts(scenario.hosts, environment, scenario.host_threads)
            )
            settings += found
        progress("starting the server")
        target = await stack.enter_async_context(
            open_target(replace(options, settings=tuple(settings)))
        )
        assert target.server is not None
        victims = Victims(target.server.pid, hosts)
        yield target, Site(victims, hosts, disk, scenario.heartbeat_timeout)


def _on_disk(disk: SmallDisk) -> list[str]:
    """Whatever is kept on disk goes there."""
    return [f"kv_disk_path={disk.folder / 'kv'}", f"cache_dir={disk.folder}"]


def _host_settings(disk: SmallDisk | None) -> dict[str, str]:
    if disk is None:
        return {"NOVACRON_KV_DISK_SIZE": "0"}
    return {
        "NOVACRON_KV_DISK_PATH": str(disk.folder / "kv"),
        "NOVACRON_CACHE_DIR": str(disk.folder),
    }
