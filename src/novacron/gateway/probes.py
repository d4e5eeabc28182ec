"""What probes are answered."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Health(Struct, frozen=True):
    """`state` is the engine's; `healthy` holds while it loads, restarts or drains, too."""

    status: Literal["healthy", "unhealthy"]
    state: str
    model: str


class Readiness(Struct, frozen=True):
    """`phase` and `progress` tell how far a start is."""

    status: Literal["ready", "not_ready"]
    state: str
    phase: str
    progress: float


class Version(Struct, frozen=True):
    """The version of this software."""

    version: str
