"""What guardians need from outside, built only where some are configured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from novacron.config.guard import GuardConfig
from novacron.errors import RequestFailed

if TYPE_CHECKING:
    from novacron.gateway.call_path import GuardingMaker
    from novacron.guardians.hook import Post

_OK = 200


def guarding_maker(config: GuardConfig) -> GuardingMaker | None:
    """None without guardians and specialists: then nothing of them is even imported."""
    if not config.guardians and not config.specialists:
        return None

    from novacron.gateway.guard_setup import make_guarding

    return partial(make_guarding, config, post=poster(config))


def poster(config: GuardConfig) -> Post:
    """How hooks are called. Connections are kept."""
    if not any(one.kind == "http" for one in config.guardian_list):
        return _nobody

    import httpx2

    client = httpx2.AsyncClient(timeout=None)  # the guardian's own timeout ends a call

    async def post(url: str, data: bytes, headers: Mapping[str, str]) -> bytes:
        response = await client.post(url, content=data, headers=dict(headers))
        if response.status_code != _OK:
            raise RequestFailed(f"The hook answered with status {response.status_code}.")
        return response.content

    return post


async def _nobody(url: str, data: bytes, headers: Mapping[str, str]) -> bytes:
    raise RequestFailed("There is no guardian that calls others.")
