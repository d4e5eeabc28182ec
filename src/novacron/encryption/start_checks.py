"""What a process that encrypts finds out when it starts, before anything depends on it."""

from __future__ import annotations

from novacron.encryption.key_ring import KeyRing
from novacron.encryption.master_keys import MasterKeys
from novacron.errors import ConfigError


def require_key(masters: MasterKeys) -> None:
    """Whether there is a master key, and it can be had. Raises ConfigError."""
    try:
        masters.current()
    except OSError as error:
        raise ConfigError(
            f"encryption_key: {error}. Without the key nothing can be kept; start again when it "
            "can be had, or leave encryption_key out."
        ) from None


def require_data_key(ring: KeyRing) -> None:
    """Have the key to encrypt with, so that nobody waits for it later. Raises ConfigError."""
    try:
        ring.current()
    except OSError as error:
        raise ConfigError(f"encryption_key: no data key can be had: {error}.") from None


def require_right_key(ring: KeyRing) -> None:
    """Whether what lies there was encrypted with it. Raises ConfigError."""
    try:
        ring.check()
    except OSError as error:
        raise ConfigError(f"encryption_key: the data keys cannot be read: {error}.") from None
