"""Which models and precisions an account may use, for what does not pass the ledger: answers that
are not computed. Quotas are remembered for a moment, so a hit costs no question to the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from novacron.accounts.quota import SUBJECT_KINDS, Account, Quota, SubjectKind, subject_of
from novacron.accounts.wish import check_names

_REMEMBERED_S: Final = 5.0
_MOST: Final = 10_000


class Quotas(Protocol):
    """administration.QuotaRecords."""

    def get(self, kind: SubjectKind, id: str) -> Quota: ...


class AllowedNames:
    """Belongs to one event loop."""

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._clock = clock
        self._known: dict[str, tuple[float, Quota]] = {}

    async def check(self, account: Account, model: str, variant: str) -> None:
        """Raises Forbidden, and DatabaseUnavailable where nobody can say."""
        ids = (account.tenant_id, account.user_id, account.key_id)
        for kind, id in zip(SUBJECT_KINDS, ids, strict=True):
            if id:
                check_names(subject_of(kind, id), await self._quota(kind, id), model, variant)

    async def _quota(self, kind: SubjectKind, id: str) -> Quota:
        subject = subject_of(kind, id)
        known = self._known.get(subject)
        if known is not None and self._clock() - known[0] < _REMEMBERED_S:
            return known[1]
        asked_s = self._clock()
        quota = await asyncio.to_thread(self._quotas.get, kind, id)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[subject] = (asked_s, quota)
        return quota
