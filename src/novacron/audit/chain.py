"""The chain: each line of the log names the one before by its hash. Pure.

A line is `{"seq":N,"prev":HASH,"hash":HASH,"record":{...}}`, or, once its record was purged,
`"digest":HASH` in place of `"record"`. `digest` is the SHA-256 of the record's bytes, `hash` that
of seq, prev and digest: so a purge changes no hash. Every byte of a line is fixed by this form,
hashed, or compared.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

GENESIS: Final = "0" * 64  # before the first line
_LINE: Final = re.compile(
    rb'\{"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})",'
    rb'(?:"record":(\{.*\})|"digest":"([0-9a-f]{64})")\}\n',
)


@dataclass(frozen=True, slots=True)
class Link:
    """The place in the chain that a line ends at: (0, GENESIS) before the first."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose own hash is right. `body` is None where the record was purged."""

    link: Link
    prev: str
    digest: str
    body: bytes | None


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def hash_of(seq: int, prev: str, digest: str) -> str:
    return hashlib.sha256(f"{seq}:{prev}:{digest}".encode()).hexdigest()


def written(last: Link, body: bytes) -> tuple[bytes, Link]:
    """The line that holds `body` behind `last`, and the place it ends at."""
    seq = last.seq + 1
    digest = digest_of(body)
    link = Link(seq, hash_of(seq, last.hash, digest))
    return text_of(Line(link, last.hash, digest, body)), link


def text_of(line: Line) -> bytes:
    """As it stands in a file. A line without a body is a tombstone."""
    head = f'{{"seq":{line.link.seq},"prev":"{line.prev}","hash":"{line.link.hash}",'
    if line.body is None:
        return f'{head}"digest":"{line.digest}"}}\n'.encode()
    return f'{head}"record":'.encode() + line.body + b"}\n"


def read_line(text: bytes) -> Line | None:
    """None for anything else than a whole line (with its line break) whose hash is right."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    seq, prev, hash, body, digest = match.groups()
    line = Line(
        Link(int(seq), hash.decode()),
        prev.decode(),
        digest.decode() if body is None else digest_of(body),
        body,
    )
    return line if hash_of(line.link.seq, line.prev, line.digest) == line.link.hash else None
