"""The tables. Every statement of this package is made of these; migrations make them.

Times of people's things are Unix seconds, those of the ledger milliseconds. Money is in millionths
of a millionth of the currency (`_pico`), so that a token's price is a whole number.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

_Id: Final = String(160)

tenants: Final = Table(
    "tenants",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean(create_constraint=False), nullable=False),
)

users: Final = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean(create_constraint=False), nullable=False),
)

roles: Final = Table(
    "roles",
    metadata,
    Column("name", _Id, primary_key=True),
    Column("permissions", JSON, nullable=False),
    Column("description", Text, nullable=False),
)

keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("prefix", String(64), nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    Column("tenant_id", _Id, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("user_id", _Id, ForeignKey("users.id"), index=True),
    Column("name", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("replaced_by", _Id),
    Column("overlap_until", BigInteger),
    Column("last_used_at", BigInteger),
)

quotas: Final = Table(
    "quotas",
    metadata,
    Column("subject", _Id, primary_key=True),  # tenant:ID, user:ID, key:ID
    Column("quota", JSON, nullable=False),
)

prices: Final = Table(
    "prices",
    metadata,
    Column("model", Text, primary_key=True),
    Column("price", JSON, nullable=False),
)

tenant_policies: Final = Table(
    "tenant_policies",
    metadata,
    Column("tenant_id", _Id, primary_key=True),
    Column("policy", JSON, nullable=False),
)

balances: Final = Table(
    "balances",
    metadata,
    Column("subject", _Id, primary_key=True),
    Column("day", BigInteger, nullable=False),
    Column("day_tokens", BigInteger, nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("hour_requests", BigInteger, nullable=False),
    Column("active_requests", BigInteger, nullable=False),
    Column("token_debt", BigInteger, nullable=False),
    Column("token_debt_at", BigInteger, nullable=False),
    Column("request_debt", BigInteger, nullable=False),
    Column("request_debt_at", BigInteger, nullable=False),
)

coordinators: Final = Table(
    "coordinators",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("lease_until_ms", BigInteger, nullable=False),
)

ledger: Final = Table(
    "ledger",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("state", String(8), nullable=False),  # open, settled, void, expired
    Column("coordinator", _Id, nullable=False),
    Column("tenant_id", _Id, nullable=False),
    Column("user_id", _Id, nullable=False),
    Column("key_id", _Id, nullable=False),
    Column("model", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("reserved_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Column("day", BigInteger, nullable=False),
    Column("hour", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Index("ix_ledger_open", "state", "coordinator"),
    Index("ix_ledger_closed", "closed_at_ms"),
)

usage: Final = Table(
    "usage",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", _Id, primary_key=True),
    Column("user_id", _Id, primary_key=True),
    Column("key_id", _Id, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("variant", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("expired_tokens", BigInteger, nullable=False),
    Column("cost_pico", BigInteger, nullable=False),
)

# What coordinators share while they run. Nothing of it belongs into a backup.

TRANSIENT: Final = {"transient": True}

members: Final = Table(
    "members",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("alive_until_ms", BigInteger, nullable=False),
    info=TRANSIENT,
)

leases: Final = Table(
    "leases",
    metadata,
    Column("duty", _Id, primary_key=True),
    Column("holder", _Id, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    info=TRANSIENT,
)

streams: Final = Table(
    "streams",
    metadata,
    Column("key", String(400), primary_key=True),
    Column("owner", _Id, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),  # running, ended, failed
    Column("is_background", Boolean(create_constraint=False), nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", LargeBinary, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("touched_at_ms", BigInteger, nullable=False),
    Index("ix_streams_touched_at_ms", "touched_at_ms"),
    info=TRANSIENT,
)

stream_chunks: Final = Table(
    "stream_chunks",
    metadata,
    Column("key", String(400), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    info=TRANSIENT,
)

# What opens the streams on record, wrapped: of no use without the master key, nor without them.
data_keys: Final = Table(
    "data_keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    info=TRANSIENT,
)
