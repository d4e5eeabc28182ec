"""Who calls, and with whom a call shares cached blocks. Pure.

Blocks are found by hashes that start from a salt, so callers with different salts share nothing,
neither text nor the time that reuse saves. A server with one key, or none, has one caller; else the
salt is made of the tenant that identity/ has found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import blake3

from novacron.errors import Forbidden, InvalidRequest
from novacron.gateway.identity.permissions import CLUSTER_WRITE
from novacron.gateway.identity.principal import Principal

CacheSharing = Literal["private", "public"]

_SCOPE_CONTEXT: Final = "novacron 2026-11 cache scope of a tenant"
_SESSION_CONTEXT: Final = "novacron 2026-11 cache session of a caller"
_TAG_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as all behind the gate sees him. `tenant` is empty where all callers share.

    An operator may change what concerns everyone: public prefixes, and clearing the cache; and may
    ask for any priority. `weight` is the tenant's share of the engine beside others, `priority`
    that of requests which ask for none.
    """

    tenant: str = ""
    is_operator: bool = True
    weight: float = 1.0
    priority: int = 0

    def priority_of(self, asked: int | None) -> int:
        """Of a request that asks for `asked`. Others than operators get none more urgent than their
        own: it would be at the expense of other tenants. The lower number is the more urgent."""
        if asked is None:
            return self.priority
        return asked if self.is_operator else max(asked, self.priority)

    def require_operator(self, what: str) -> None:
        """Raises Forbidden for others."""
        if not self.is_operator:
            raise Forbidden(
                f"{what} concerns all callers, and needs the permission {CLUSTER_WRITE}, which the "
                "first of the server's API keys, administrators and operators have."
            )


@dataclass(frozen=True, slots=True)
class CacheScope:
    """Where a call's blocks belong: the salt of their hashes, and a tag for counting whose they are
    (8 bytes; empty: everyone's)."""

    salt: str = ""
    tag: bytes = b""


EVERYONE: Final = Caller()


def caller_of(principal: Principal | None) -> Caller:
    """None: nobody had to say who calls. Operators are those who may change the cluster."""
    if principal is None:
        return EVERYONE
    is_operator = principal.allows(CLUSTER_WRITE)
    share = principal.share
    return Caller(principal.tenant_id, is_operator, share.weight, share.priority)


def scope_of(caller: Caller, cache_salt: str | None, sharing: CacheSharing | None) -> CacheScope:
    """Raises InvalidRequest for a salt that is to be public.

    What counts against a share of the cache is the tenant, who could make up any number of salts;
    only where there are no tenants it is the salt.
    """
    if sharing == "public":
        if cache_salt:
            raise InvalidRequest(
                "cache_salt keeps blocks apart and cache_scope 'public' shares them with everyone. "
                "Leave one of them out.",
                param="cache_scope",
            )
        return CacheScope()
    salt = cache_salt or ""
    if caller.tenant:
        salt = f"{caller.tenant}\x00{salt}"
    owner = caller.tenant or salt
    return CacheScope(salt, owner_tag(owner) if owner else b"")


def owner_tag(owner: str) -> bytes:
    """Of a tenant's id; where there are no tenants, of a salt. See CacheScope."""
    return _tag(owner, _SCOPE_CONTEXT)


def session_tag(caller: Caller, session_id: str | None) -> bytes:
    """The session as the engine knows it: 8 bytes, empty for none. Equal ids of two tenants are
    two sessions."""
    if not session_id:
        return b""
    return _tag(f"{caller.tenant}\x00{session_id}", _SESSION_CONTEXT)


def _tag(text: str, context: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return blake3.blake3(data, derive_key_context=context).digest(_TAG_BYTES)
