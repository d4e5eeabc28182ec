"""Who calls, and how that is found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from starlette.types import Scope

from novacron.config.key_shares import USUAL_SHARE, KeyShare

_SCOPE_KEY: Final = "novacron.principal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. Frozen: what it may do is settled when it is authenticated.

    `tenant_id` is empty where a server has one key, and so one tenant. `key_id` names the
    credential in logs and ledgers, and is of no use for calling. `permissions` has no patterns.
    """

    tenant_id: str = ""
    user_id: str = ""
    key_id: str = ""
    roles: tuple[str, ...] = ()
    permissions: frozenset[str] = frozenset()
    share: KeyShare = USUAL_SHARE  # of the engine

    def allows(self, permission: str) -> bool:
        return permission in self.permissions


class Authenticator(Protocol):
    """Knows one kind of credential, or several. Called for every request: quick when it can be."""

    async def authenticate(self, token: bytes) -> Principal | None:
        """Whose `token` is. None if it is not of this kind, or unknown.

        Raises Unauthenticated if it is known and not valid (any more), and IdentityUnavailable if
        that cannot be found out now. Never lets in what it could not check.
        """
        ...

    def forget(self, key_id: str) -> None:
        """Check the credential of this id anew when it comes again: it was revoked or changed."""
        ...


class AnyOf:
    """Asks several authenticators in turn; the first that knows the token decides."""

    def __init__(self, authenticators: tuple[Authenticator, ...]) -> None:
        self._authenticators = authenticators

    async def authenticate(self, token: bytes) -> Principal | None:
        for authenticator in self._authenticators:
            principal = await authenticator.authenticate(token)
            if principal is not None:
                return principal
        return None

    def forget(self, key_id: str) -> None:
        for authenticator in self._authenticators:
            authenticator.forget(key_id)


def set_principal(scope: Scope, principal: Principal) -> None:
    scope[_SCOPE_KEY] = principal


def principal_of(scope: Scope) -> Principal | None:
    """Who sent this request. None where the server is open, and on paths that are."""
    principal: Principal | None = scope.get(_SCOPE_KEY)
    return principal
