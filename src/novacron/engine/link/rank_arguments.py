"""What a RankSupervisor tells the process it starts. Imported by both; no torch."""

from __future__ import annotations

from typing import Any

import msgspec

from novacron.observability.logs import LogFormat


class RankArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a RankSupervisor tells the process it starts. `given`: settings of this host.
    `follows_a_crash`: of the process before it."""

    listen: str
    secret_key: str
    allowed: tuple[str, ...]
    given: dict[str, Any]
    log_level: str = "info"
    log_format: LogFormat = "auto"
    follows_a_crash: bool = False
