"""Keys of links: Curve25519, as CurveZMQ has them. Each host has a pair of its own and says whose
public keys it trusts; a link is encrypted, and both ends are who they say, or there is none.

Public keys are written as 64 hexadecimal digits. The file of a pair holds the secret key, the same
way; what is public follows from it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from novacron.errors import ConfigError

_DEFAULT_FILE: Final = Path("~/.config/novacron/link.key")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeyPair:
    """In hexadecimal. The secret is never shown."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls) -> KeyPair:
        public, secret = zmq.curve_keypair()
        return cls(z85.decode(public).hex(), z85.decode(secret).hex())

    @classmethod
    def of_secret(cls, secret: str) -> KeyPair:
        return cls(z85.decode(zmq.curve_public(in_z85(secret))).hex(), secret)


def link_key_file(given: str) -> Path:
    """Where this user keeps the key of links, unless told otherwise."""
    return (Path(given) if given else _DEFAULT_FILE).expanduser()


def in_z85(key: str) -> bytes:
    """As ZeroMQ takes it."""
    return z85.encode(bytes.fromhex(key))


def checked_key(text: str, what: str) -> str:
    """A public key. Raises ConfigError, which begins with `what`."""
    key = text.strip().lower()
    if _KEY.fullmatch(key) is None:
        raise ConfigError(
            f"{what} has {text[:80]!r}, which is no public key: these are 64 hexadecimal digits, "
            "as novacron cluster key prints them."
        )
    return key


def write_key(file: Path, keys: KeyPair) -> None:
    """A new file that only its owner may read. Raises ConfigError if there is one already."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"There is a file {file} already; it is left as it is.") from None
    except OSError as error:
        raise ConfigError(f"The key cannot be written to {file}: {error.strerror}.") from error
    with os.fdopen(descriptor, "w") as opened:
        opened.write(f"{keys.secret}\n")


def read_key(file: Path) -> KeyPair:
    """Raises ConfigError if there is none, or others may read it."""
    try:
        mode = file.stat().st_mode
        secret = file.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"The key file {file} cannot be read: {error.strerror}. Make one with novacron cluster "
            "key."
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"The key file {file} may be read by others than its owner. Forbid it: chmod 600 {file}"
        )
    if _KEY.fullmatch(secret) is None:
        raise ConfigError(f"{file} is no key file: make one with novacron cluster key.")
    return KeyPair.of_secret(secret)


def read_or_make_key(file: Path) -> KeyPair:
    """The pair in `file`, made there if it is not. Raises ConfigError."""
    if not file.exists():
        keys = KeyPair.make()
        write_key(file, keys)
        return keys
    return read_key(file)
