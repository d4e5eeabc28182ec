"""Quotas and prices, as whoever administers sets them."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select

from novacron.accounts.database import tables
from novacron.accounts.database.balance_rows import insert_for
from novacron.accounts.database.connection import Database
from novacron.accounts.price import FREE, Price
from novacron.accounts.quota import NO_QUOTA, Quota, SubjectKind, subject_of
from novacron.errors import AccountNotFound


class Quotas:
    """What each subject may use. A change holds within a second (accounts/ahead.py)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, kind: SubjectKind, id: str) -> Quota:
        """No limits, where none were set."""
        statement = select(tables.quotas.c.quota).where(
            tables.quotas.c.subject == subject_of(kind, id)
        )
        with self._database.reading() as connection:
            found = connection.execute(statement).scalar()
        return NO_QUOTA if found is None else msgspec.convert(found, Quota)

    def list(self) -> dict[str, Quota]:
        """By subject, `kind:id`."""
        with self._database.reading() as connection:
            rows = connection.execute(select(tables.quotas).order_by(tables.quotas.c.subject))
            return {row.subject: msgspec.convert(row.quota, Quota) for row in rows}

    def set(self, kind: SubjectKind, id: str, quota: Quota) -> Quota:
        """In place of the one before. Raises AccountNotFound where there is no such subject."""
        owner = {"tenant": tables.tenants, "user": tables.users, "key": tables.keys}[kind]
        subject = subject_of(kind, id)
        with self._database.writing() as connection:
            if connection.execute(select(owner.c.id).where(owner.c.id == id)).first() is None:
                raise AccountNotFound(kind, id)
            if quota == NO_QUOTA:
                connection.execute(delete(tables.quotas).where(tables.quotas.c.subject == subject))
                return quota
            values = {"subject": subject, "quota": msgspec.to_builtins(quota)}
            statement = insert_for(connection.dialect.name, tables.quotas).values(values)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["subject"], set_={"quota": values["quota"]}
                )
            )
        return quota


class Prices:
    """What tokens of a model cost, from the next call on that ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> dict[str, Price]:
        with self._database.reading() as connection:
            rows = connection.execute(select(tables.prices).order_by(tables.prices.c.model))
            return {row.model: msgspec.convert(row.price, Price) for row in rows}

    def set(self, model: str, price: Price) -> Price:
        with self._database.writing() as connection:
            connection.execute(delete(tables.prices).where(tables.prices.c.model == model))
            if price != FREE:
                connection.execute(
                    tables.prices.insert().values(model=model, price=msgspec.to_builtins(price))
                )
        return price
