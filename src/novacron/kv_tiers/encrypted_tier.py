"""EncryptedTier: a tier whose records only holders of a key can read, and nobody can forge.

A record is sealed as a whole, its header included, for the block that it is: so one that was put in
another's place does not open either. What was sealed with a key that is not known here is not
there; what does not open is not sound, and goes like any record that does not check.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np

from novacron.kv_tiers.compressed_tier import identity_in
from novacron.kv_tiers.packing import Packing
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.tier import Bytes, KnowsScopes, KVTier, Put, Record
from novacron.records.block import BlockHash
from novacron.records.codec_totals import CodecTotals

_SAID: Final = b"kv block"


class BlockCipher(Protocol):
    """encryption.sealing.Sealing. All but `overhead_bytes` raise OSError if there is no key, and
    LookupError for bytes that were sealed with another one."""

    @property
    def overhead_bytes(self) -> int:
        """By how much what is sealed is longer."""
        ...

    def seal(self, data: Any, purpose: bytes) -> bytes: ...

    def seal_into(self, data: Any, purpose: bytes, into: Any) -> None: ...

    def open(self, sealed: Any, purpose: bytes) -> bytes | None: ...

    def open_into(self, sealed: Any, purpose: bytes, into: Any) -> bool: ...


def encrypted_identity(identity: bytes) -> bytes:
    """That of the records of a tier whose records, in the open, have `identity`."""
    return identity_in(identity, "encrypted")


def purpose_of(key: BlockHash) -> bytes:
    return _SAID + key


class EncryptedTier:
    """Around a tier whose records are longer by what the cipher adds. Implements KVTier and
    KnowsScopes."""

    def __init__(self, tier: KVTier, cipher: BlockCipher) -> None:
        self._tier = tier
        self._cipher = cipher

    @property
    def used_bytes(self) -> int:
        return self._tier.used_bytes

    def put(self, records: Sequence[Record]) -> Put:
        return self._tier.put([self._sealed(record) for record in records])

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        sealed = [np.empty(len(one) + self._cipher.overhead_bytes, np.uint8) for one in into]
        found = self._tier.get(keys, sealed)
        for place, key in enumerate(keys):
            if found[place]:
                found[place] = self._open(key, sealed[place], into[place])
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        return self._tier.contains(keys)

    def delete(self, keys: Iterable[BlockHash]) -> None:
        self._tier.delete(keys)

    def keys_of(self, scope: bytes) -> Sequence[BlockHash]:
        return self._tier.keys_of(scope) if isinstance(self._tier, KnowsScopes) else ()

    def close(self) -> None:
        self._tier.close()

    def _sealed(self, record: Record) -> Record:
        data = np.empty(len(record.data) + self._cipher.overhead_bytes, np.uint8)
        self._cipher.seal_into(record.data, purpose_of(record.key), data.data)
        return record._replace(data=data)

    def _open(self, key: BlockHash, sealed: Bytes, into: Bytes) -> bool:
        """Whether it is there. What does not open becomes a record that does not check."""
        try:
            is_sound = self._cipher.open_into(sealed.data, purpose_of(key), into.data)
        except LookupError:
            return False
        if not is_sound:
            into[:HEADER_BYTES] = 0
        return True


class Encrypted:
    """Implements Packing: what another packing makes of a record, sealed."""

    def __init__(self, packing: Packing, cipher: BlockCipher) -> None:
        self._packing = packing
        self._cipher = cipher

    @property
    def totals(self) -> CodecTotals | None:
        return self._packing.totals

    def pack(self, key: BlockHash, record: Bytes) -> Any:
        return self._cipher.seal(self._packing.pack(key, record), purpose_of(key))

    def unpack(self, key: BlockHash, data: Any, into: Bytes) -> bool:
        try:
            packed = self._cipher.open(data, purpose_of(key))
        except LookupError:
            return False
        return packed is not None and self._packing.unpack(key, packed, into)
