"""Small sealed records, whose content follows from a number, to try KV tiers with."""

from __future__ import annotations

from typing import Final

import numpy as np

from novacron.kv_tiers.record import block_of, identity_of, record_bytes, seal
from novacron.kv_tiers.tier import Bytes, Record
from novacron.records.block import BlockHash
from novacron.records.block_moves import NO_ORIGIN, BlockOrigin

BLOCK_BYTES: Final = 200
RECORD_BYTES: Final = record_bytes(BLOCK_BYTES)
IDENTITY: Final = identity_of(model_version="m", kv_identity="float32", block_size=4)


def key_of(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(16, "little"))


def block_content(number: int) -> Bytes:
    return np.random.default_rng(number).integers(0, 256, BLOCK_BYTES, np.uint8)


def make_record(number: int, origin: BlockOrigin = NO_ORIGIN) -> Record:
    data = np.zeros(RECORD_BYTES, np.uint8)
    block_of(data)[:] = block_content(number)
    seal(data, IDENTITY, key_of(number))
    return Record(key_of(number), data, origin)
