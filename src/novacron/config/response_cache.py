"""Settings of the response cache: whether they can be meant so. Nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError

_URL: Final = re.compile(r"(sqlite:///.+|(redis|rediss)://[^/].*|unix:///?[^/].*)?", re.DOTALL)


def check_response_cache_url(url: str) -> None:
    """Raises ConfigError, whose message starts with the key and holds no password."""
    if not _URL.fullmatch(url):
        raise ConfigError(
            f"response_cache_url is '{mask_url(url)}': give sqlite:///path/of/file, "
            "redis://host:6379/0, rediss:// for TLS, unix:///path/of/socket, or nothing for memory."
        )


def sqlite_path(url: str) -> str:
    """The file of a response cache that is one; else empty."""
    start = "sqlite:///"
    return "/" + url.removeprefix(start).lstrip("/") if url.startswith(start) else ""


def parse_thresholds(thresholds: Sequence[str]) -> dict[str, float]:
    """By path. Raises ConfigError."""
    parsed = {}
    for one in thresholds:
        path, _, number = one.partition("=")
        try:
            parsed[path] = float(number)
        except ValueError:
            parsed[path] = 2.0
        if not path.startswith("/") or not -1 <= parsed[path] <= 1:
            raise ConfigError(
                f"response_cache_thresholds has '{one}': give a path and a number from -1 to 1, "
                "such as /v1/chat/completions=0.9."
            )
    return parsed
