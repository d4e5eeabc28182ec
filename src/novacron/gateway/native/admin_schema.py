"""What the endpoints of administration take and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct
from pydantic import Field

from novacron.accounts.price import Price
from novacron.accounts.quota import NUMBERS, Priority, Quota
from novacron.accounts.records import Role, StoredKey, Tenant, User
from novacron.accounts.usage import UsageRow
from novacron.gateway.openai.schema import Body

Id = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=500)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)]
Limit = Annotated[int, Field(ge=0, le=10**12)]
Micro = Annotated[int, Field(ge=0, le=10**12)]


class TenantBody(Body):
    """POST /api/v1/llm/admin/tenants."""

    id: Id
    name: Text = ""


class TenantChange(Body):
    """PATCH /api/v1/llm/admin/tenants/{id}: what is left out stays."""

    name: Text | None = None
    disabled: bool | None = None


class UserBody(Body):
    """POST /api/v1/llm/admin/users."""

    id: Id
    tenant_id: Id
    name: Text = ""
    email: Text = ""
    roles: Names = Field(default_factory=lambda: ["user"])


class UserChange(Body):
    """PATCH /api/v1/llm/admin/users/{id}: what is left out stays."""

    name: Text | None = None
    email: Text | None = None
    roles: Names | None = None
    disabled: bool | None = None


class RoleBody(Body):
    """POST /api/v1/llm/admin/roles."""

    name: Id
    permissions: Names
    description: Text = ""


class RoleChange(Body):
    """PATCH /api/v1/llm/admin/roles/{name}: what is left out stays."""

    permissions: Names | None = None
    description: Text | None = None


class QuotaBody(Body):
    """PUT /api/v1/llm/admin/quotas/{kind}/{id}: all of the quota; what is left out has no limit."""

    tokens_per_day: Limit | None = None
    requests_per_hour: Limit | None = None
    concurrent_requests: Limit | None = None
    context_tokens: Limit | None = None
    answer_tokens: Limit | None = None
    tokens_per_minute: Limit | None = None
    requests_per_minute: Limit | None = None
    models: Names = Field(default_factory=list)
    variants: Names = Field(default_factory=list)
    priority: Priority | None = None

    def quota(self) -> Quota:
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return Quota(
            models=tuple(self.models),
            variants=tuple(self.variants),
            priority=self.priority,
            **numbers,
        )


class PriceBody(Body):
    """PUT /api/v1/llm/admin/prices/{model}: millionths of the currency for a million tokens."""

    prompt_micro: Micro = 0
    cached_micro: Micro | None = None
    output_micro: Micro = 0


class KeyBody(Body):
    """POST /api/v1/llm/admin/keys. Without `roles`, those of the user; `scopes` narrow them.
    `expires_at`: Unix seconds; empty: never."""

    tenant_id: Id
    user_id: Id | None = None
    name: Text = ""
    scopes: Names = Field(default_factory=list)
    roles: Names = Field(default_factory=list)
    expires_at: Annotated[int, Field(ge=0, le=2**40)] | None = None


class RotateBody(Body):
    """POST /api/v1/llm/admin/keys/{id}/rotate: for so long the old key is valid too."""

    overlap_seconds: Annotated[int, Field(ge=0, le=365 * 86_400)] = 86_400


class TenantList(Struct, frozen=True):
    """Tenants, by id."""

    tenants: tuple[Tenant, ...]


class UserList(Struct, frozen=True):
    """Users, by id."""

    users: tuple[User, ...]


class RoleList(Struct, frozen=True):
    """Roles that are not built in, by name."""

    roles: tuple[Role, ...]


class KeyInfo(Struct, frozen=True, kw_only=True):
    """An API key, without anything that it could be found by."""

    id: str
    prefix: str
    tenant_id: str
    user_id: str | None
    name: str
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None
    overlap_until: int | None
    last_used_at: int | None


class MadeKey(Struct, frozen=True):
    """A new API key: `secret` is what clients send. It is told here and never again."""

    secret: str
    key: KeyInfo


class KeyList(Struct, frozen=True):
    """API keys, by id."""

    keys: tuple[KeyInfo, ...]


class QuotaList(Struct, frozen=True):
    """Quotas, by subject: tenant:ID, user:ID, key:ID."""

    quotas: dict[str, Quota]


class PriceList(Struct, frozen=True):
    """Prices, by model."""

    prices: dict[str, Price]


class UsageReport(Struct, frozen=True):
    """Sums of what was used, and what it cost."""

    usage: tuple[UsageRow, ...]


class Removed(Struct, frozen=True):
    """What is not there any more."""

    removed: str


def key_info(key: StoredKey) -> KeyInfo:
    return KeyInfo(**{name: getattr(key, name) for name in KeyInfo.__struct_fields__})
