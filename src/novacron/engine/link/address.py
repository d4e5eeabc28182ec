"""EngineAddress: where a host listens for links, and by which key it is known: KEY@HOST:PORT."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.engine.link.keys import checked_key
from novacron.errors import ConfigError


@dataclass(frozen=True)
class EngineAddress:
    host: str  # IPv6 without brackets
    port: int
    public_key: str

    @classmethod
    def parse(cls, text: str, what: str = "An engine's address") -> EngineAddress:
        """Raises ConfigError, which begins with `what`."""
        key, at, place = text.strip().rpartition("@")
        host, colon, port = place.rpartition(":")
        host = host.removeprefix("tcp://").removeprefix("[").removesuffix("]")
        if not (at and colon and host and port.isascii() and port.isdigit()):
            raise ConfigError(
                f"{what} is {text[:120]!r}: give KEY@HOST:PORT, as novacron engine and "
                "novacron rank print it at their start. The key is how we know that it is this "
                "host."
            )
        if not 0 < int(port) < 65536:
            raise ConfigError(f"{what} is {text[:120]!r}: there is no port {port}.")
        return cls(host, int(port), checked_key(key, what))

    @property
    def place(self) -> str:
        """For people: HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """For ZeroMQ."""
        return f"tcp://{self.place}"

    def __str__(self) -> str:
        return f"{self.public_key}@{self.place}"
