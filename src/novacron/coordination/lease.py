"""Leases: which coordinator has a duty that only one may have. Pure.

A lease has an epoch, which grows whenever it changes hands or has run out in between. Whoever acts
under a lease brings its epoch along, and is refused if there is a newer one: a holder that was
stopped, and does not know that its time is over, changes nothing any more.

Source: leases with fencing tokens, as in Gray and Cheriton (1989) and Burrows, Chubby (2006).
"""

from __future__ import annotations

from typing import Final

import msgspec

NOBODY: Final = ""


class LeaseLost(Exception):
    """What was to be done under a lease is another one's business by now."""


class Lease(msgspec.Struct, frozen=True):
    """Who has a duty, until when by the database's clock. Epoch 0: nobody ever had it."""

    duty: str
    holder: str = NOBODY
    epoch: int = 0
    expires_ms: int = 0

    def is_held(self, now_ms: int) -> bool:
        return self.holder != NOBODY and now_ms < self.expires_ms


class Fence(msgspec.Struct, frozen=True):
    """Under which lease something is done. It counts as long as nobody else has got a newer one."""

    duty: str
    holder: str
    epoch: int

    def lets_pass(self, lease: Lease) -> bool:
        return (lease.holder, lease.epoch) == (self.holder, self.epoch)


def decide(lease: Lease, wanted_by: str, now_ms: int, ttl_ms: int) -> Lease | None:
    """The lease as `wanted_by` may have it from now on; None: another one holds it.

    One's own is renewed and keeps its epoch, unless it has run out: then somebody else may have had
    it, and given it back. It never comes to end earlier than it did: clocks may step back.
    """
    expires_ms = now_ms + ttl_ms
    if lease.is_held(now_ms):
        if lease.holder != wanted_by:
            return None
        return Lease(lease.duty, wanted_by, lease.epoch, max(expires_ms, lease.expires_ms))
    return Lease(lease.duty, wanted_by, lease.epoch + 1, expires_ms)


def released(lease: Lease, by: str) -> Lease:
    """As it is left by a coordinator that ends: the next one need not wait."""
    if lease.holder != by:
        return lease
    return Lease(lease.duty, NOBODY, lease.epoch, 0)
