"""A block as tiers keep it: a header that says what it is, and its bytes.

    0   mark and version of this format
    8   number of bytes of the block, little-endian
    16  identity: digest of model version, precision, layout and block size
    32  key: the block's hash
    48  checksum of all of the above and of the block (checksum_of)
    64  the block as it lies on the device

A record that does not check is worth nothing, for whatever reason: to its reader it was not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import blake3
import numpy as np
import xxhash
from numpy.typing import NDArray

from novacron.kv_tiers.tier import Bytes, Rows
from novacron.records.block import BlockHash

HEADER_BYTES: Final = 64
_CHECKED_BYTES: Final = 48
_MARK: Final = b"NCKVREC2"
_DIGEST_BYTES: Final = 16
_HEAD_BYTES: Final = 1024  # of what is summed: a round of XXH3


def identity_of(*, model_version: str, kv_identity: str, block_size: int) -> bytes:
    """What all blocks of an engine agree in, the format of their records among it."""
    text = "\x00".join((_MARK.decode(), model_version, kv_identity, str(block_size)))
    return blake3.blake3(text.encode()).digest(_DIGEST_BYTES)


def record_bytes(block_bytes: int) -> int:
    return HEADER_BYTES + block_bytes


def block_of(record: Bytes) -> Bytes:
    """The part of a record that is the block."""
    return record[HEADER_BYTES:]


def heads_of(block_bytes: int, identity: bytes, keys: Sequence[BlockHash]) -> Bytes:
    """What the headers of records of these blocks begin with, up to the checksum: [records][48].
    The checksum is that of such a head followed by the block."""
    start = _MARK + block_bytes.to_bytes(8, "little") + identity
    heads = np.frombuffer(b"".join(start + key for key in keys), np.uint8)
    return heads.reshape(len(keys), _CHECKED_BYTES)


def write_headers(records: Rows, heads: Bytes, checksums: Bytes) -> None:
    """Make records of [record_bytes], whose blocks are in place, sound."""
    records.table[records.numbers, :_CHECKED_BYTES] = heads
    records.table[records.numbers, _CHECKED_BYTES:HEADER_BYTES] = checksums


def sound_ones(headers: Bytes, heads: Bytes, checksums: Bytes) -> NDArray[np.bool_]:
    """Which of the records are what they should be: [records][HEADER_BYTES] were read, the others
    are expected and computed from what was read."""
    is_headed: NDArray[np.bool_] = (headers[:, :_CHECKED_BYTES] == heads).all(1)
    is_summed: NDArray[np.bool_] = (headers[:, _CHECKED_BYTES:] == checksums).all(1)
    return is_headed & is_summed


def checksum_of(head: bytes, block: Bytes) -> bytes:
    """XXH3-128 of the head, filled up with zeros to 1,024 bytes, and the block, big-endian. The
    native kernels compute the same as quickly as they copy. It is for damage, not against forgery:
    whoever can write a record can sum it."""
    digest: bytes = xxhash.xxh3_128(head.ljust(_HEAD_BYTES, b"\0") + block.tobytes()).digest()
    return digest


def seal(record: Bytes, identity: bytes, key: BlockHash) -> None:
    """Write the header of a record whose block is in place."""
    head = _head(record, identity, key)
    record[:_CHECKED_BYTES] = np.frombuffer(head, np.uint8)
    checksum = _checksum(head, record)
    record[_CHECKED_BYTES:HEADER_BYTES] = np.frombuffer(checksum, np.uint8)


def is_sound(record: Bytes, identity: bytes, key: BlockHash) -> bool:
    """Whether the record is the one that `seal` made of this block, bit for bit."""
    head = _head(record, identity, key)
    if record[:_CHECKED_BYTES].tobytes() != head:
        return False
    return record[_CHECKED_BYTES:HEADER_BYTES].tobytes() == _checksum(head, record)


def _head(record: Bytes, identity: bytes, key: BlockHash) -> bytes:
    return _MARK + (len(record) - HEADER_BYTES).to_bytes(8, "little") + identity + key


def _checksum(head: bytes, record: Bytes) -> bytes:
    return checksum_of(head, block_of(record))
