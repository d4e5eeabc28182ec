"""Who may use a server, and what is known of them. Plain values; no database.

Times are Unix seconds. Ids are chosen by whoever administers (tenants, users, roles) or drawn
(keys), and are never used again for somebody else.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from novacron.errors import InvalidRequest

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """An organisation: its users share caches and limits, and nothing with others."""

    id: str
    name: str = ""
    created_at: int = 0
    disabled: bool = False


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person or service of one tenant. `roles` are names, see Role."""

    id: str
    tenant_id: str
    name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    created_at: int = 0
    disabled: bool = False


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A set of permissions that has a name, beside those that are built in."""

    name: str
    permissions: tuple[str, ...] = ()
    description: str = ""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is kept: never the key itself, only a hash that it can be checked with.

    `prefix` is the public part, by which a key is found. Empty `scopes` and `roles`: those of its
    user. A key that is `replaced_by` another one is valid until `overlap_until`.
    """

    id: str
    prefix: str
    hash: str
    tenant_id: str
    user_id: str | None = None
    name: str = ""
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    created_at: int = 0
    expires_at: int | None = None
    revoked_at: int | None = None
    replaced_by: str | None = None
    overlap_until: int | None = None
    last_used_at: int | None = None

    def is_valid(self, now: float) -> bool:
        """Whether it opens the door at `now`, as far as the key itself decides."""
        ends = (self.expires_at, self.revoked_at, self.overlap_until)
        return all(end is None or now < end for end in ends)


def require_id(value: str, what: str) -> str:
    """Raises InvalidRequest for what is no id."""
    if _ID.fullmatch(value) is None:
        raise InvalidRequest(
            f"The id {value[:140]!r} of a {what} is not possible: give 1 to 128 letters, digits "
            "and any of . _ @ + -, starting with a letter or digit.",
            param="id",
        )
    return value
