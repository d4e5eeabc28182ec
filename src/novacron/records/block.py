"""Identity of a KV block: a pure function of what its content depends on.

A fixed hash without a seed, so that replicas share blocks and a restarted process finds its own.
Source: chained block hashes as in vLLM v1 (Apache-2.0); a cryptographic hash, because a collision
would show one tenant another's text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NewType

import blake3

BlockHash = NewType("BlockHash", bytes)

_DIGEST_BYTES = 16
_TOKEN_BYTES = 4


def root_hash(*, model_version: str, kv_dtype: str, block_size: int, salt: str) -> BlockHash:
    """The parent of a sequence's first block: all that the content depends on beside tokens."""
    identity = "\x00".join((model_version, kv_dtype, str(block_size), salt))
    return BlockHash(blake3.blake3(identity.encode()).digest(_DIGEST_BYTES))


def block_hashes(
    parent: BlockHash, token_ids: Sequence[int], block_size: int
) -> Iterator[BlockHash]:
    """The identities of the full blocks of `token_ids`, right after `parent`, one after another."""
    num_tokens = len(token_ids) // block_size * block_size
    tokens = struct.pack(f"<{num_tokens}I", *token_ids[:num_tokens])
    block_bytes = _TOKEN_BYTES * block_size
    for start in range(0, len(tokens), block_bytes):
        block = tokens[start : start + block_bytes]
        parent = BlockHash(blake3.blake3(parent + block).digest(_DIGEST_BYTES))
        yield parent
