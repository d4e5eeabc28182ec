"""What tenants have agreed to, as the gateway gets it. Made by cli/ from settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from novacron.accounts.data_policy import REFRESH_S
from novacron.config.tenants import TenantPolicies
from novacron.errors import DatabaseUnavailable
from novacron.gateway.retention import Retention
from novacron.response_cache.cache import ResponseCache
from novacron.response_cache.store import StoreFailed

if TYPE_CHECKING:  # imported only where prompts are kept
    from novacron.prompt_records.log import PromptLog

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """`region` is where this process runs. `prompts`: None, if they cannot be kept or nobody wants
    it; `retention`: None, if nothing is purged here. Tenants `in_settings` have policies that only
    a restart changes; `refresh` looks for others, if they may change. It blocks."""

    policies: TenantPolicies = field(default_factory=TenantPolicies)
    region: str = ""
    prompts: PromptLog | None = None
    retention: Retention | None = None
    purge_interval_s: float = 3600.0
    in_settings: frozenset[str] = frozenset()
    refresh: Callable[[], None] | None = None

    @asynccontextmanager
    async def running(self, answers: ResponseCache | None) -> AsyncIterator[None]:
        """For the life of the application. `answers` that have ended go as well."""
        if self.prompts is not None:
            self.prompts.start()
        purging = []
        if self.refresh is not None:
            purging.append(self._look_for_changes(self.refresh))
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

    async def _look_for_changes(self, refresh: Callable[[], None]) -> None:
        """One that cannot be met is told again and again."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await asyncio.to_thread(refresh)
            except DatabaseUnavailable as error:
                logger.warning("policies of tenants stay as they were known: %s", error)
            if self.prompts is None and self.policies.record_prompts:
                logger.error(
                    "a tenant's policy has record_prompts, but this server keeps no prompts: set "
                    "encryption_key and audit_log, and restart it"
                )


async def _purge_answers(answers: ResponseCache, interval_s: float) -> None:
    """Those of this process, whoever is in charge of the rest."""
    while True:
        await asyncio.sleep(interval_s)
        with contextlib.suppress(StoreFailed):
            await answers.purge()


NO_POLICIES: Final = Privacy()
