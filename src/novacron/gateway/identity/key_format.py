"""What an API key of ours looks like.

    nck_abcdefghij_SECRET...CHECKS
        prefix              public: names the key in lists, and finds it
                   43 letters and digits, 256 bits; 6 that check the rest

The checksum tells a mistyped or cut key from an unknown one without a look into the database, and
lets scanners for leaked secrets be sure.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Final

import blake3

START: Final = b"nck_"
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PREFIX_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # that nobody takes for each other
_KEY: Final = re.compile(rb"(nck_[a-z2-9]{10})_([A-Za-z0-9]{43})([A-Za-z0-9]{6})")
_CONTEXT: Final = "novacron 2026-11 checksum of an API key"


@dataclass(frozen=True)
class NewKey:
    """A key that has just been made. `text` is shown once and kept nowhere."""

    prefix: str
    text: str = field(repr=False)


def new_key() -> NewKey:
    prefix = "nck_" + "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(10))
    body = f"{prefix}_" + "".join(secrets.choice(_LETTERS) for _ in range(43))
    return NewKey(prefix, body + _checksum(body.encode()))


def prefix_of(token: bytes) -> str | None:
    """The prefix of what is a key of ours by its form; None for everything else."""
    match = _KEY.fullmatch(token)
    if match is None or _checksum(token[:-6]).encode() != match[3]:
        return None
    return match[1].decode()


def _checksum(body: bytes) -> str:
    digest = blake3.blake3(body, derive_key_context=_CONTEXT).digest(8)
    number = int.from_bytes(digest, "big")
    letters = []
    for _ in range(6):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)
