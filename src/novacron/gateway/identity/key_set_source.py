"""Fetches key sets over HTTPS: from a URL, or from where an OpenID Connect issuer says they are.

Both come from the settings. Nothing that a token says decides where we call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import httpx2

from novacron.config.safe_url import is_safe_url
from novacron.errors import IdentityUnavailable
from novacron.gateway.identity.public_keys import PublicKey, public_keys

_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 512 * 1024
_DISCOVERY: Final = "/.well-known/openid-configuration"


class KeySetSource:
    """The key set at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self) -> Mapping[str, PublicKey]:
        """Raises IdentityUnavailable."""
        return _keys(self._url, await _fetch(self._url))


class DiscoveredKeySetSource:
    """The key set of an issuer. Discovered anew each time, so that it may move."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    async def __call__(self) -> Mapping[str, PublicKey]:
        """Raises IdentityUnavailable."""
        url = self._issuer.rstrip("/") + _DISCOVERY
        document = await _fetch(url)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            raise _unusable(url, f"it is not that of the issuer {self._issuer}")
        keys_url = document.get("jwks_uri")
        if not isinstance(keys_url, str) or not is_safe_url(keys_url):
            raise _unusable(url, "its jwks_uri is no https address")
        return _keys(keys_url, await _fetch(keys_url))


async def _fetch(url: str) -> object:
    """JSON, not too much of it, from exactly there: redirects are refused."""
    content = b""
    try:
        async with (
            httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                raise _unusable(url, f"it answers {response.status_code}")
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise _unusable(url, f"it is longer than {_MOST_BYTES} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise _unusable(url, str(error) or type(error).__name__) from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unusable(url, "it is no JSON") from error


def _keys(url: str, document: object) -> Mapping[str, PublicKey]:
    try:
        keys = public_keys(document)
    except ValueError as error:
        raise _unusable(url, str(error)) from error
    if not keys:
        raise _unusable(url, "it has no key that signatures can be checked with")
    return keys


def _unusable(url: str, reason: str) -> IdentityUnavailable:
    return IdentityUnavailable(f"The keys for tokens at {url} cannot be had: {reason}.")
