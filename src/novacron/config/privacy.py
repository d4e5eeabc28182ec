"""Settings of who can read what is kept, and where it may lie: whether they can be meant so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from novacron.config.safe_url import is_safe_url
from novacron.errors import ConfigError

REGION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}")
_FILE: Final = re.compile(r"file:.+", re.DOTALL)
_VAULT: Final = re.compile(r"vault:(?P<url>https?://[^/]+/v1/[^#?]+/data/[^#?]+)(#[^#]+)?")


def check_encryption_key(source: str) -> None:
    """Raises ConfigError, whose message starts with the setting and does not show the value: it may
    be a key that was put there by mistake."""
    vault = _VAULT.fullmatch(source)
    is_source = _VARIABLE.fullmatch(source) or _FILE.fullmatch(source)
    if source and not is_source and (vault is None or not is_safe_url(vault["url"])):
        raise ConfigError(
            "encryption_key says where the key is, and is not the key: give env:VARIABLE, "
            "file:/path/of/key, or vault:https://HOST:8200/v1/MOUNT/data/NAME#FIELD."
        )


def check_region(key: str, region: str) -> None:
    """Raises ConfigError for what is no name of a region."""
    if region and REGION.fullmatch(region) is None:
        raise ConfigError(
            f"{key} is '{region[:80]}': give a name such as eu or eu-central-1, of letters, digits "
            "and any of . _ -"
        )


def may_be_in(region: str, allowed: Iterable[str]) -> bool:
    """Whether data that may be in these regions only (none named: anywhere) may be in `region`. A
    place that does not say where it is is in none of them."""
    allowed = tuple(allowed)
    return not allowed or region in allowed
