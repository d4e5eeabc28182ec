"""Where the response cache may lie: whether a setting can be meant so. Nothing is opened here."""

from __future__ import annotations

import re
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
