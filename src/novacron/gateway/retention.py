"""Retention: what is older than a tenant's policy allows is purged, kind by kind.

`purge` is the one function to call, by whoever is in charge of it: each process of its own files;
of what several share in a database, the one that has that duty (cli/privacy.py). It blocks, and
rests between tenants, so that nobody notices it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from novacron.config.tenants import NOBODY, TenantPolicies
from novacron.coordination.lease import LeaseLost

logger = logging.getLogger(__name__)

_REST_S: Final = 0.05

Purger = Callable[[str, float], int]  # tenant, Unix time: removes what is older; how much it was
Tenants = Callable[[], Iterable[str]]


def no_others() -> Iterable[str]:
    """Implements Tenants: those who are named in the policies are all."""
    return ()


@dataclass(frozen=True)
class Retention:
    """`purgers` by kind. `tenants` are those that are known beside the ones in the policies."""

    policies: TenantPolicies
    purgers: Mapping[str, Purger]
    tenants: Tenants = no_others
    rest_s: float = _REST_S

    def purge(self, now_s: float) -> dict[tuple[str, str], int]:
        """How much of each tenant and kind went. What cannot be purged now is tried the next time;
        others are not held up by it. Raises LeaseLost, if it is another one's business."""
        done: dict[tuple[str, str], int] = {}
        for tenant in sorted(self._all_tenants()):
            for kind, age_s in self.policies.of(tenant).retain_s.items():
                if kind not in self.purgers:
                    continue
                try:
                    num_gone = self.purgers[kind](tenant, now_s - age_s)
                except LeaseLost:
                    raise
                except Exception as error:  # of files or a database: the others still go
                    logger.warning(
                        "%s of the tenant %s cannot be purged now: %s", kind, tenant, error
                    )
                    continue
                if num_gone:
                    logger.info("purged %d of %s of the tenant %s", num_gone, kind, tenant)
                    done[tenant, kind] = num_gone
                time.sleep(self.rest_s)
        return done

    async def purge_for_ever(self, interval_s: float) -> None:
        """Now, and then again and again."""
        while True:
            try:
                await asyncio.to_thread(self.purge, time.time())
            except Exception as error:
                logger.warning("nothing was purged: %s", error)
            await asyncio.sleep(interval_s)

    def _all_tenants(self) -> set[str]:
        return {*self.policies.named, *self.tenants(), NOBODY}
