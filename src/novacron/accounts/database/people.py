"""Tenants, users, roles and keys, as the database has them."""

from __future__ import annotations

import secrets
import time
from typing import Final

import msgspec
from sqlalchemy import insert, select, update

from novacron.accounts.database import tables
from novacron.accounts.database.connection import Database
from novacron.accounts.database.rows import Rows
from novacron.accounts.records import Role, StoredKey, Tenant, User, require_id
from novacron.errors import InvalidRequest

_KEY_ID_BYTES: Final = 8


class Tenants(Rows[Tenant]):
    def __init__(self, database: Database) -> None:
        super().__init__(database, tables.tenants, Tenant, "tenant")

    def create(self, id: str, *, name: str = "") -> Tenant:
        require_id(id, "tenant")
        return self.add(Tenant(id=id, name=name, created_at=int(time.time())))


class Users(Rows[User]):
    def __init__(self, database: Database) -> None:
        super().__init__(database, tables.users, User, "user")

    def create(
        self,
        id: str,
        *,
        tenant_id: str,
        name: str = "",
        email: str = "",
        roles: tuple[str, ...] = (),
    ) -> User:
        require_id(id, "user")
        return self.add(
            User(
                id=id,
                tenant_id=tenant_id,
                name=name,
                email=email,
                roles=roles,
                created_at=int(time.time()),
            )
        )


class Roles(Rows[Role]):
    def __init__(self, database: Database) -> None:
        super().__init__(database, tables.roles, Role, "role")

    def create(self, name: str, *, permissions: tuple[str, ...], description: str = "") -> Role:
        require_id(name, "role")
        return self.add(Role(name=name, permissions=permissions, description=description))


class Keys(Rows[StoredKey]):
    """Keys are hashed and checked by whoever calls; here they are only kept."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, tables.keys, StoredKey, "key")

    def create(
        self,
        *,
        prefix: str,
        hash: str,
        tenant_id: str,
        user_id: str | None = None,
        name: str = "",
        scopes: tuple[str, ...] = (),
        roles: tuple[str, ...] = (),
        expires_at: int | None = None,
    ) -> StoredKey:
        """A key with an id drawn for it. Raises InvalidRequest if the user is of another tenant."""
        if user_id is not None:
            user = Users(self._database).get(user_id)
            if user.tenant_id != tenant_id:
                raise InvalidRequest(
                    f"The user '{user_id}' belongs to the tenant '{user.tenant_id}', not to "
                    f"'{tenant_id}'.",
                    param="user_id",
                )
        return self.add(
            StoredKey(
                id=_key_id(),
                prefix=prefix,
                hash=hash,
                tenant_id=tenant_id,
                user_id=user_id,
                name=name,
                scopes=scopes,
                roles=roles,
                created_at=int(time.time()),
                expires_at=expires_at,
            )
        )

    def find_prefix(self, prefix: str) -> StoredKey | None:
        """The key with this public part, valid or not."""
        statement = select(tables.keys).where(tables.keys.c.prefix == prefix)
        with self._database.reading() as connection:
            row = connection.execute(statement).first()
        return None if row is None else self._record_of(row._mapping)

    def revoke(self, id: str, *, at: int | None = None) -> StoredKey:
        return self.change(id, revoked_at=int(time.time()) if at is None else at)

    def replace(self, id: str, *, prefix: str, hash: str, overlap_until: int) -> StoredKey:
        """A new key in place of `id`, with the same rights; the old one is valid until
        `overlap_until`. Raises InvalidRequest if it was replaced or revoked before."""
        old = self.get(id)
        new = msgspec.structs.replace(
            old, id=_key_id(), prefix=prefix, hash=hash, created_at=int(time.time()),
            last_used_at=None,
        )  # fmt: skip
        with self._database.writing() as connection:
            replaced = connection.execute(
                update(tables.keys)
                .where(
                    tables.keys.c.id == id,
                    tables.keys.c.replaced_by.is_(None),
                    tables.keys.c.revoked_at.is_(None),
                )
                .values(replaced_by=new.id, overlap_until=overlap_until)
            )
            if replaced.rowcount == 0:
                raise InvalidRequest(f"The key '{id}' was replaced or revoked before.")
            connection.execute(insert(tables.keys).values(msgspec.structs.asdict(new)))
        return new

    def note_use(self, ids_at: dict[str, int]) -> None:
        """When keys were last used, by id; many at once, for it is of no hurry."""
        with self._database.writing() as connection:
            for id, at in sorted(ids_at.items()):
                statement = update(tables.keys).where(tables.keys.c.id == id)
                connection.execute(statement.values(last_used_at=at))


def _key_id() -> str:
    return "key_" + secrets.token_hex(_KEY_ID_BYTES)
