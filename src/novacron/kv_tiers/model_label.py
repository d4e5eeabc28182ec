"""What a segment's identity stands for, in words, in a small file beside the segments. For people
and for clearing by model only: without it the blocks are found all the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec


class ModelLabel(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is its folder's or file's name, `kv_identity` the precisions and layout of blocks,
    `part` what of them lies here, if other hosts have the rest. Where they are compressed, `level`
    is that of the files. `whole` is the identity of the blocks (hexadecimal), by which pins name
    them."""

    model: str
    model_version: str
    kv_identity: str
    part: str = ""
    block_size: int
    level: str = "raw"
    whole: str = ""
    is_encrypted: bool = False

    def identity_of_pins(self, identity: bytes) -> bytes:
        """`identity` is that of the files."""
        try:
            return bytes.fromhex(self.whole) or identity
        except ValueError:
            return identity


def write_label(folder: Path, identity: bytes, label: ModelLabel) -> None:
    """Raises OSError."""
    path = _path(folder, identity)
    content = msgspec.json.encode(label)
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    unfinished = path.with_suffix(f".{os.getpid()}.new")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def read_label(folder: Path, identity: bytes) -> ModelLabel | None:
    """None if there is none that can be read."""
    try:
        return msgspec.json.decode(_path(folder, identity).read_bytes(), type=ModelLabel)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _path(folder: Path, identity: bytes) -> Path:
    return folder / f"model-{identity.hex()}.json"
