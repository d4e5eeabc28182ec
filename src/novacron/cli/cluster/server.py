"""Which server the commands about replicas ask, and under which paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from novacron.cli.api_client import DEFAULT_URL, ApiClient, Json
from novacron.cli.target import configured_key

Function = TypeVar("Function", bound=Callable[..., Any])

_BASE = "/api/v1/llm/cluster"
STATUS = f"{_BASE}/status"
SCALE = f"{_BASE}/scale"


def server_options(function: Function) -> Function:
    """--url and --api-key."""
    url = click.option("--url", default=DEFAULT_URL, show_default=True, help="Server to ask.")
    key = click.option("--api-key", "client_key", help="Its key. [default: NOVACRON_API_KEY]")
    return url(key(function))


def client_of(url: str, client_key: str | None) -> ApiClient:
    return ApiClient(url, client_key or configured_key())


def order(client: ApiClient, replica_id: str, what: str, body: Json) -> Json:
    """Waits until it has been done."""
    return client.post(f"{_BASE}/workers/{quote(replica_id, safe='')}/{what}", body)
