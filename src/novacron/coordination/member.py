"""Coordinators as they know each other: rows in the database that they share. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from novacron.coordination.lease import Lease


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an API process. `id` is drawn at its start: a process that is started again is
    another member. `address` is the URL at which the others reach it. Times are Unix milliseconds
    of the database's clock; at `alive_until_ms` it is taken to have ended."""

    id: str
    name: str = ""
    address: str = ""
    version: str = ""
    started_at_ms: int = 0
    alive_until_ms: int = 0

    def is_alive(self, now_ms: int) -> bool:
        return now_ms < self.alive_until_ms


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All coordinators and duties, as they were at `now_ms`."""

    now_ms: int = 0
    members: Mapping[str, Member] = {}
    leases: tuple[Lease, ...] = ()

    def is_alive(self, member_id: str) -> bool:
        member = self.members.get(member_id)
        return member is not None and member.is_alive(self.now_ms)
