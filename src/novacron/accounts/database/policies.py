"""Policies of tenants, as whoever administers sets them."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select

from novacron.accounts.data_policy import DataPolicy, meant
from novacron.accounts.database import tables
from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.connection import Database
from novacron.errors import AccountNotFound, ConfigError, InvalidRequest

_WHAT = "policy of the tenant"


class Policies:
    """What may become of tenants' data. Servers know a change within seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> dict[str, DataPolicy]:
        """By tenant."""
        table = tables.tenant_policies
        with self._database.reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.tenant_id))
            return {row.tenant_id: msgspec.convert(row.policy, DataPolicy) for row in rows}

    def get(self, tenant: str) -> DataPolicy:
        """Raises AccountNotFound where there is none."""
        table = tables.tenant_policies
        with self._database.reading() as connection:
            found = connection.execute(
                select(table.c.policy).where(table.c.tenant_id == tenant)
            ).scalar()
        if found is None:
            raise AccountNotFound(_WHAT, tenant)
        return msgspec.convert(found, DataPolicy)

    def set(self, tenant: str, policy: DataPolicy) -> DataPolicy:
        """In place of the one before. Raises AccountNotFound where there is no such tenant, and
        InvalidRequest for a policy that cannot be."""
        try:
            meant(tenant, policy)
        except ConfigError as error:
            raise InvalidRequest(str(error)) from error
        table, owner = tables.tenant_policies, tables.tenants
        values = {"tenant_id": tenant, "policy": msgspec.to_builtins(policy)}
        with self._database.writing() as connection:
            if connection.execute(select(owner.c.id).where(owner.c.id == tenant)).first() is None:
                raise AccountNotFound("tenant", tenant)
            statement = insert_for(connection.dialect.name, table).values(values)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["tenant_id"], set_={"policy": values["policy"]}
                )
            )
        return policy

    def remove(self, tenant: str) -> None:
        """From then on the tenant has that of everyone else. Raises AccountNotFound."""
        table = tables.tenant_policies
        with self._database.writing() as connection:
            result = connection.execute(delete(table).where(table.c.tenant_id == tenant))
        if result.rowcount == 0:
            raise AccountNotFound(_WHAT, tenant)
