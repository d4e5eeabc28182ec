"""Where a cache command looks: at a folder on disk, or at a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from novacron.cli.api_client import DEFAULT_URL, ApiClient
from novacron.cli.options import load_settings
from novacron.cli.target import configured_key
from novacron.config.folders import kv_folder

Function = TypeVar("Function", bound=Callable[..., Any])

BASE = "/api/v1/llm/cache"


def folder_options(function: Function) -> Function:
    """--kv-disk-path, --cache-dir and --config, as the server has them."""
    for option in (
        click.option(
            "--config",
            "config_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="YAML file of the server.",
        ),
        click.option("--cache-dir", help="As of the server: blocks lie in novacron/kv below it."),
        click.option("--kv-disk-path", help="Folder of the blocks."),
    ):
        function = option(function)
    return function


def server_options(function: Function) -> Function:
    """--url and --api-key."""
    url = click.option("--url", help="Ask this server instead of the disk.")
    key = click.option("--api-key", "client_key", help="Its key. [default: NOVACRON_API_KEY]")
    return url(key(function))


def folder_of(kv_disk_path: str | None, cache_dir: str | None, config_file: Path | None) -> Path:
    """Raises ConfigError for settings that are wrong."""
    given = {"kv_disk_path": kv_disk_path, "cache_dir": cache_dir}
    flags = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(flags, file=config_file)
    return kv_folder(settings.engine.model, settings.engine.cache)


def client_of(url: str | None, client_key: str | None) -> ApiClient:
    return ApiClient(url or DEFAULT_URL, client_key or configured_key())
