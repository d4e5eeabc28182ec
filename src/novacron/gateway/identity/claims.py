"""From the claims of a verified token to a principal. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from novacron.errors import Unauthenticated
from novacron.gateway.identity.permissions import Roles, granted
from novacron.gateway.identity.principal import Principal

Claims = Mapping[str, object]

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")  # no colon, see tenant_of
_USER: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MOST_ROLES: Final = 64


@dataclass(frozen=True, kw_only=True)
class ClaimNames:
    """Which claims say what. A dot leads into an object: `realm_access.roles`."""

    tenant: str = "tenant_id"
    user: str = "user_id"
    role: str = "role"


def principal_of_claims(claims: Claims, names: ClaimNames, roles: Roles) -> Principal:
    """Raises Unauthenticated for a token that does not say clearly whose it is.

    A user without a tenant is a tenant of its own. Roles that are not known here allow nothing.
    `scope` narrows as far as it names permissions of ours.
    """
    user_id = _id(claims, names.user, _USER) or _id(claims, "sub", _USER)
    tenant_id = _id(claims, names.tenant, _TENANT)
    if not user_id and not tenant_id:
        raise _unclear(f"it has neither {names.user} nor sub nor {names.tenant}")
    held = _texts(claims, names.role)
    permissions = roles.permissions_of(held)
    return Principal(
        tenant_id=tenant_id or f"user:{user_id}",
        user_id=user_id,
        roles=held,
        permissions=granted(permissions, _scopes(claims)),
    )


def _scopes(claims: Claims) -> tuple[str, ...]:
    scopes = claims.get("scope", claims.get("scp", ""))
    listed = scopes.split() if isinstance(scopes, str) else _texts(claims, "scp")
    return tuple(scope for scope in listed if scope.startswith("llm:"))


def _id(claims: Claims, name: str, pattern: re.Pattern[str]) -> str:
    value = _value(claims, name)
    if value is None or value == "":
        return ""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise _unclear(f"{name} is no id")
    return text


def _texts(claims: Claims, name: str) -> tuple[str, ...]:
    value = _value(claims, name)
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _unclear(f"{name} is neither a text nor a list of texts")
    if len(texts) > _MOST_ROLES:
        raise _unclear(f"{name} has more than {_MOST_ROLES} entries")
    return tuple(texts)


def _value(claims: Claims, name: str) -> object:
    if name in claims:
        return claims[name]
    value: object = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _unclear(reason: str) -> Unauthenticated:
    return Unauthenticated(f"The token does not say whose it is: {reason}.", was_sent=True)
