"""The keys of the setting `api_key`.

The first is the administrator's. With several, each is a tenant of its own.
"""

from __future__ import annotations

import secrets
from typing import Final

import blake3

from novacron.config.key_shares import USUAL_SHARE, KeyShare
from novacron.gateway.identity.permissions import BUILT_IN
from novacron.gateway.identity.principal import Principal

_TENANT_CONTEXT: Final = "novacron 2026-11 cache tenant of an API key"
_FIRST_ROLES: Final = ("admin",)
_OTHER_ROLES: Final = ("user", "viewer")


class ConfiguredKeys:
    """Knows a fixed set of keys. Finding one takes as long for a nearly right one as for others:
    they are found by digests that only this process can compute."""

    def __init__(
        self, keys: tuple[str, ...], shares: tuple[KeyShare, ...] = (), *, alone: bool = True
    ) -> None:
        """`shares` are those of the first keys. `alone`: nobody has another way in, so that a
        single key is everyone's."""
        self._secret = secrets.token_bytes(32)
        is_everyones = alone and len(set(keys)) < 2
        self._principals: dict[bytes, Principal] = {}
        for place, key in enumerate(keys):
            share = shares[place] if place < len(shares) else USUAL_SHARE
            tenant_id = "" if is_everyones else tenant_of(key)
            principal = _principal(key, tenant_id, share, is_first=key == keys[0])
            self._principals.setdefault(self._digest(key.encode()), principal)

    async def authenticate(self, token: bytes) -> Principal | None:
        return self._principals.get(self._digest(token))

    def forget(self, key_id: str) -> None:
        """Settings do not change while we run."""

    def _digest(self, token: bytes) -> bytes:
        return blake3.blake3(token, key=self._secret).digest()


def tenant_of(key: str) -> str:
    """The tenant that a configured key is: a digest, stable, so that blocks on disk are found again
    after a restart, and useless for finding the key.

    It cannot be the id of a tenant of the database or of a token: those have no colon.
    """
    digest = blake3.blake3(key.encode(), derive_key_context=_TENANT_CONTEXT)
    return "tenant:" + digest.hexdigest()


def _principal(key: str, tenant_id: str, share: KeyShare, *, is_first: bool) -> Principal:
    roles = _FIRST_ROLES if is_first else _OTHER_ROLES
    return Principal(
        tenant_id=tenant_id,
        key_id="configured:" + tenant_of(key)[len("tenant:") :][:12],
        roles=roles,
        permissions=BUILT_IN.permissions_of(roles),
        share=share,
    )
