"""What tenants have agreed to, as the gateway gets it. Made by cli/ from settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from novacron.config.tenants import TenantPolicies
from novacron.gateway.retention import Retention
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.store import StoreFailed

if TYPE_CHECKING:  # imported only where prompts are kept
    from novacron.prompt_records.log import PromptLog

_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """`region` is where this process runs. `prompts`: None, if nobody wants them kept;
    `retention`: None, if nothing is purged here."""

    policies: TenantPolicies = field(default_factory=TenantPolicies)
    region: str = ""
    prompts: PromptLog | None = None
    retention: Retention | None = None
    purge_interval_s: float = 3600.0

    @asynccontextmanager
    async def running(self, answers: ResponseCache | None) -> AsyncIterator[None]:
        """For the life of the application. `answers` that have ended go as well."""
        if self.prompts is not None:
            self.prompts.start()
        purging = []
        if self.retention is not None:
            purging.append(self.retention.purge_for_ever(self.purge_interval_s))
        if answers is not None:
            purging.append(_purge_answers(answers, self.purge_interval_s))
        tasks = [asyncio.create_task(one) for one in purging]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.prompts is not None:
            await asyncio.to_thread(self.prompts.close, _PATIENCE_S)


async def _purge_answers(answers: ResponseCache, interval_s: float) -> None:
    """Those of this process, whoever is in charge of the rest."""
    while True:
        await asyncio.sleep(interval_s)
        with contextlib.suppress(StoreFailed):
            await answers.purge()


NO_POLICIES: Final = Privacy()
