"""Identity of a KV block: a pure function of what its content depends on.

A fixed hash without a seed, so that replicas share blocks and a restarted process finds its own.
Source: chained block hashes as in vLLM v1 (Apache-2.0); a cryptographic hash, because a collision
would show one tenant another's text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NewType

import blake3

BlockHash = NewType("BlockHash", bytes)

_DIGEST_BYTES = 16


def root_hash(*, model_version: str, kv_dtype: str, block_size: int, salt: str) -> BlockHash:
    """The parent of a sequence's first block: all that the content depends on beside tokens."""
    identity = "\x00".join((model_version, kv_dtype, str(block_size), salt))
    return BlockHash(blake3.blake3(identity.encode()).digest(_DIGEST_BYTES))


def block_hash(parent: BlockHash, token_ids: Sequence[int]) -> BlockHash:
    """The identity of the block that holds `token_ids` right after `parent`."""
    tokens = struct.pack(f"<{len(token_ids)}I", *token_ids)
    return BlockHash(blake3.blake3(parent + tokens).digest(_DIGEST_BYTES))
