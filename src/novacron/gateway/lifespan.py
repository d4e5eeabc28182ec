"""What starts and ends with the application: samples of metrics, and what keeps books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI

from novacron.accounts.accounts import Accounts
from novacron.gateway.auditing.opened import OpenedAudit
from novacron.gateway.handover.together import Together
from novacron.gateway.native.history import SAMPLE_INTERVAL_S
from novacron.gateway.privacy import Privacy
from novacron.gateway.response_caching import OpenedCache

if TYPE_CHECKING:  # imported only where there are guardians
    from novacron.gateway.guarding import Guarding

_LAST_POSTINGS_S: Final = 5.0  # for ends of calls to get into the ledger
_LAST_RECORDS_S: Final = 5.0  # and into the audit log


def lifespan_of(
    *,
    accounts: Accounts | None,
    guarding: Guarding | None,
    response_cache: OpenedCache | None,
    audit: OpenedAudit | None,
    privacy: Privacy,
    together: Together,
    samplers: Sequence[Callable[[], None]],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What is written by others is closed after them: the ledger after calls, the audit log
    last."""

    async def sample_for_ever() -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            for sample in samplers:
                sample()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if audit is not None:
            audit.log.start()
        if accounts is not None:
            accounts.ledger.start()
        together.start()
        task = asyncio.create_task(sample_for_ever())
        async with privacy.running(response_cache.answers if response_cache else None):
            yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if guarding is not None:
            await guarding.close()
        await together.close()
        if accounts is not None:
            await accounts.ledger.close(_LAST_POSTINGS_S)
        if response_cache is not None:
            await response_cache.answers.close()
        if audit is not None:
            await audit.log.close(_LAST_RECORDS_S)

    return lifespan
