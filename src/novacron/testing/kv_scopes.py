"""Records of several scopes in a KV tier, and whether it can tell them apart."""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.tier import KnowsScopes, KVTier, Record
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import key_of, make_record

A: Final = b"scope-aa"
B: Final = b"scope-bb"


def put_some(tier: KVTier) -> None:
    """Blocks 0 and 1 of A, 2 of B, 3 of everyone."""
    scopes = (A, A, B, b"")
    tier.put([_of_scope(make_record(number), scope) for number, scope in enumerate(scopes)])


def numbers_of(tier: KVTier, scope: bytes) -> list[int]:
    assert isinstance(tier, KnowsScopes)
    return sorted(int.from_bytes(key, "little") for key in tier.keys_of(scope))


def check_scopes(writer: KVTier, reader: KVTier) -> None:
    """What `writer` puts, `reader`, which may be another process's, can tell apart and delete."""
    put_some(writer)
    assert numbers_of(reader, A) == [0, 1]
    assert numbers_of(reader, B) == [2]
    assert isinstance(reader, KnowsScopes)
    reader.delete([key_of(0), key_of(1)])
    assert numbers_of(reader, A) == []
    assert numbers_of(reader, B) == [2]
    assert reader.contains([key_of(3)]) == [True]


def _of_scope(record: Record, scope: bytes) -> Record:
    return record._replace(origin=BlockOrigin(None, 0, b"", scope))
