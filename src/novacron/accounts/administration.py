"""What administers accounts, as those see it who must not import a database library.

The classes behind these protocols are those of database/. All of it blocks: an event loop calls it
in a thread.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from novacron.accounts.data_policy import DataPolicy
from novacron.accounts.price import Price
from novacron.accounts.quota import Quota, SubjectKind
from novacron.accounts.records import Role, StoredKey, Tenant, User
from novacron.accounts.usage import UsageQuestion, UsageRow
from novacron.coordination.lease import Fence

T = TypeVar("T", covariant=True)


class Records(Protocol[T]):
    """database.rows.Rows. Raises AccountNotFound, AccountConflict and InvalidRequest."""

    def get(self, id: str) -> T: ...

    def list(self, **equal: Any) -> tuple[T, ...]: ...

    def change(self, id: str, **values: Any) -> T: ...

    def remove(self, id: str) -> None: ...


class TenantRecords(Records[Tenant], Protocol):
    def create(self, id: str, *, name: str = "") -> Tenant: ...


class UserRecords(Records[User], Protocol):
    def create(
        self,
        id: str,
        *,
        tenant_id: str,
        name: str = "",
        email: str = "",
        roles: tuple[str, ...] = (),
    ) -> User: ...


class RoleRecords(Records[Role], Protocol):
    def create(self, name: str, *, permissions: tuple[str, ...], description: str = "") -> Role: ...


class KeyRecords(Records[StoredKey], Protocol):
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
    ) -> StoredKey: ...

    def find_prefix(self, prefix: str) -> StoredKey | None: ...

    def note_use(self, ids_at: dict[str, int]) -> None: ...

    def revoke(self, id: str, *, at: int | None = None) -> StoredKey: ...

    def replace(self, id: str, *, prefix: str, hash: str, overlap_until: int) -> StoredKey: ...


class QuotaRecords(Protocol):
    def get(self, kind: SubjectKind, id: str) -> Quota: ...

    def list(self) -> dict[str, Quota]: ...

    def set(self, kind: SubjectKind, id: str, quota: Quota) -> Quota: ...


class PriceRecords(Protocol):
    def list(self) -> dict[str, Price]: ...

    def set(self, model: str, price: Price) -> Price: ...


class PolicyRecords(Protocol):
    def list(self) -> dict[str, DataPolicy]: ...

    def get(self, tenant: str) -> DataPolicy: ...

    def set(self, tenant: str, policy: DataPolicy) -> DataPolicy: ...

    def remove(self, tenant: str) -> None: ...


class Administration(Protocol):
    """Everything that can be administered."""

    @property
    def tenants(self) -> TenantRecords: ...

    @property
    def users(self) -> UserRecords: ...

    @property
    def roles(self) -> RoleRecords: ...

    @property
    def keys(self) -> KeyRecords: ...

    @property
    def quotas(self) -> QuotaRecords: ...

    @property
    def prices(self) -> PriceRecords: ...

    @property
    def policies(self) -> PolicyRecords: ...

    def usage(self, question: UsageQuestion) -> list[UsageRow]: ...

    def purge_usage(self, tenant: str, before_s: float, fence: Fence | None = None) -> int:
        """Under a lease, if several may be at it: raises LeaseLost."""
        ...
