"""Settings of the API process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from novacron.config.engine import require, setting


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where and how the API listens, and what it does under stress and at the end."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8080, "port to listen on; 0: any free one, printed at start")
    api_key: tuple[str, ...] = setting(
        (), "keys that clients must send as a bearer token; none: open", secret=True
    )
    cors_allow_origins: tuple[str, ...] = setting(
        (), "origins whose pages may call the API; none by default"
    )
    shutdown_timeout: float = setting(
        30.0, "after SIGTERM, finish running requests for so long before ending them", unit="s"
    )
    keep_alive_interval: float = setting(
        15.0, "send a comment on a silent stream this often", unit="s"
    )
    stream_flush_interval: float = setting(
        0.004, "tokens that come within this time travel together; 0: each for itself", unit="s"
    )
    max_body_bytes: int = setting(16 * 2**20, "largest request body accepted", unit="bytes")
    replay_buffer_bytes: int = setting(
        64 * 2**20,
        "memory for events of streams that clients may attach to or resume",
        unit="bytes",
    )
    replay_seconds: float = setting(
        300.0, "how long a finished stream can still be fetched", unit="s"
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "least severe message logged"
    )
    log_format: Literal["auto", "text", "json"] = setting(
        "auto", "auto: text on a terminal, else json"
    )
    access_log: bool = setting(False, "log each HTTP request (never its content)")

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "port", self.port, "give a number from 0 to 65535")
        for key in ("shutdown_timeout", "replay_seconds", "stream_flush_interval"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "give 0 or more seconds")
        require(
            self.keep_alive_interval > 0, "keep_alive_interval", self.keep_alive_interval,
            "give a positive number of seconds",
        )  # fmt: skip
        for key in ("max_body_bytes", "replay_buffer_bytes"):
            require(
                getattr(self, key) > 0, key, getattr(self, key), "give a positive size such as 16Mi"
            )
