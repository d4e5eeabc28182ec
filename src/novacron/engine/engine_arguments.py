"""What a ProcessClient tells the engine process it starts. Imported by both; no torch."""

from __future__ import annotations

import msgspec

from novacron.config.engine import EngineConfig


class EngineArguments(msgspec.Struct, frozen=True):
    """What a ProcessClient tells the process it starts."""

    config: EngineConfig
    model_path: str
    inbox: str  # ZeroMQ endpoints, bound by the client
    outbox: str
    pulse: int = -1  # inherited descriptor of a PulseMemory; none where nobody looks
