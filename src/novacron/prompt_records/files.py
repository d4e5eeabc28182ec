"""Files of kept prompts: one for each tenant, hour and process, so that a purge removes files.

    TENANT/20261122T08-PROCESS.prompts    TENANT is a digest of its id, PROCESS is drawn

A file holds records one after the other: length (4 bytes, little-endian), sealed bytes. What is
sealed is sealed for its tenant, so it opens in no other's folder. What a crash tears is the end of
one file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import blake3
import msgspec

from novacron.prompt_records.record import PromptRecord

_CONTEXT: Final = "novacron 2026-11 folder of a tenant's prompts"
_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{2})-[0-9a-f]{16}\.prompts")
_HOUR: Final = "%Y%m%dT%H"
_HOUR_S: Final = 3600
_LENGTH_BYTES: Final = 4
_decoder: Final = msgspec.msgpack.Decoder(PromptRecord)


class Cipher(Protocol):
    """encryption.sealing.Sealing."""

    def seal(self, data: Any, purpose: bytes) -> bytes: ...

    def open(self, sealed: Any, purpose: bytes) -> bytes | None: ...


class Found(NamedTuple):
    """Records of a tenant, newest first, and how many there are that cannot be read: their data key
    is not known, or they were changed."""

    records: tuple[PromptRecord, ...]
    num_unreadable: int


def folder_of(root: Path, tenant: str) -> Path:
    data = tenant.encode("utf-8", "surrogatepass")
    return root / blake3.blake3(data, derive_key_context=_CONTEXT).hexdigest(8)


def file_of(root: Path, tenant: str, time_s: float, process: str) -> Path:
    hour = datetime.fromtimestamp(time_s, UTC).strftime(_HOUR)
    return folder_of(root, tenant) / f"{hour}-{process}.prompts"


def append(path: Path, records: list[PromptRecord], cipher: Cipher) -> None:
    """All of one tenant. Raises OSError."""
    parts = []
    for record in records:
        sealed = cipher.seal(msgspec.msgpack.encode(record), _purpose(record.tenant))
        parts.append(len(sealed).to_bytes(_LENGTH_BYTES, "little") + sealed)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(descriptor, "ab") as file:
        file.write(b"".join(parts))


def read(
    root: Path,
    tenant: str,
    cipher: Cipher,
    *,
    since_s: float = 0.0,
    until_s: float = float("inf"),
    request_id: str = "",
    limit: int = 100,
) -> Found:
    """Raises OSError."""
    found: list[PromptRecord] = []
    num_unreadable = 0
    for start_s, path in sorted(_files(root, tenant), reverse=True):
        if start_s >= until_s or start_s + _HOUR_S <= since_s:
            continue
        for record in _records(path, tenant, cipher):
            if record is None:
                num_unreadable += 1
            elif since_s <= record.time < until_s and request_id in ("", record.request_id):
                found.append(record)
        if len(found) >= limit:
            break
    found.sort(key=lambda record: record.time, reverse=True)
    return Found(tuple(found[:limit]), num_unreadable)


def purge(root: Path, tenant: str, before_s: float) -> int:
    """Remove files whose whole hour is before that time; how many. Raises OSError."""
    old = [path for start_s, path in _files(root, tenant) if start_s + _HOUR_S <= before_s]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _files(root: Path, tenant: str) -> Iterator[tuple[float, Path]]:
    """With the beginning of their hour, in Unix seconds."""
    folder = folder_of(root, tenant)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if match := _NAME.fullmatch(name):
            hour = datetime.strptime(match[1], _HOUR).replace(tzinfo=UTC)
            yield hour.timestamp(), folder / name


def _records(path: Path, tenant: str, cipher: Cipher) -> Iterator[PromptRecord | None]:
    """None for each that cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # purged meanwhile
        return
    place = 0
    while place + _LENGTH_BYTES <= len(content):
        start = place + _LENGTH_BYTES
        place = start + int.from_bytes(content[place:start], "little")
        if place > len(content):
            return  # torn by a crash, or being written
        yield _opened(content[start:place], tenant, cipher)


def _opened(sealed: bytes, tenant: str, cipher: Cipher) -> PromptRecord | None:
    try:
        data = cipher.open(sealed, _purpose(tenant))
        return None if data is None else _decoder.decode(data)
    except (LookupError, msgspec.MsgspecError):
        return None


def _purpose(tenant: str) -> bytes:
    return b"prompt\x00" + tenant.encode("utf-8", "surrogatepass")
