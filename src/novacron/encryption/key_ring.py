"""KeyRing: the data keys of one place, unwrapped when they are needed.

What is encrypted names its data key; the data key lies beside it, wrapped (AES-256-GCM) with a
master key that is not there. So a rotation of the master key wraps a few small values anew, and
leaves all data as it is.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from novacron.encryption.key_places import KeyPlace
from novacron.encryption.master_keys import KEY_BYTES, MasterKey, MasterKeys
from novacron.errors import ConfigError

ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
MOST_AGE_S: Final = 30 * 86400.0  # of the key that new data is encrypted with
_MOST_USES: Final = 2**28  # by one process: sixteen of them stay below 2**32 random nonces
_LOOK_AGAIN_S: Final = 10.0
_SAID: Final = b"novacron data key 1"

logger = logging.getLogger(__name__)


class WrappedKey(msgspec.Struct, frozen=True, kw_only=True):
    """As it is kept. `master` is the fingerprint of what it is wrapped with."""

    master: str
    created_ms: int
    nonce: bytes
    wrapped: bytes


@dataclass(frozen=True, eq=False)
class DataKey:
    id: bytes
    created_ms: int
    cipher: AESGCM


@dataclass(frozen=True)
class Rotated:
    """`num_left` were wrapped with master keys that are not known."""

    num_wrapped_anew: int
    num_left: int


class KeyRing:
    """Asks nothing before the first call. Calls may come from several threads; they raise OSError
    when the place or the source does not answer, and ConfigError for a source without a key."""

    def __init__(
        self,
        place: KeyPlace,
        masters: MasterKeys,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self.masters = masters
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[bytes, DataKey] = {}
        self._current: DataKey | None = None
        self._num_uses = 0
        self._looked_s = float("-inf")

    def check(self) -> None:
        """Whether this is the right master key. Raises ConfigError if there are data keys, and none
        of them can be unwrapped, and OSError."""
        with self._lock:
            wrapped = self._look()
            if wrapped and not self._keys:
                names = ", ".join(sorted({one.master for one in wrapped.values()}))
                raise ConfigError(
                    f"encryption_key: what lies in {self._place.shown} was encrypted with the "
                    f"master key {names}, and that of {self.masters.shown} is "
                    f"{self.masters.current().id}. Give the old key behind the new one, and call "
                    "novacron encryption rotate; or remove what is encrypted."
                )

    def current(self) -> DataKey:
        """The one to encrypt with; a new one where there is none that is young enough."""
        with self._lock:
            if self._current is None or not self._may_be_used(self._current):
                self._look()
                self._current = self._newest() or self._add()
                self._num_uses = 0
            self._num_uses += 1
            return self._current

    def find(self, id: bytes) -> DataKey | None:
        """None: it is not there, or cannot be unwrapped. An unknown one is looked for in the
        place, but not more often than every 10 s."""
        found = self._keys.get(id)
        if found is not None:
            return found
        with self._lock:
            if id not in self._keys and self._clock() - self._looked_s >= _LOOK_AGAIN_S:
                self._look()
            return self._keys.get(id)

    def rotate(self) -> Rotated:
        """Wrap all with the current master key, and begin a new data key."""
        with self._lock:
            master = self.masters.current()
            wrapped = self._look()
            num_anew = num_left = 0
            for id, one in wrapped.items():
                secret = self._unwrap(id, one, self.masters.find(one.master))
                if secret is None:
                    num_left += 1
                elif one.master != master.id:
                    self._write(id, secret, one.created_ms, master)
                    num_anew += 1
            self._current = self._add()
            self._num_uses = 0
            return Rotated(num_anew, num_left)

    def status(self) -> list[tuple[str, WrappedKey, bool]]:
        """Of each data key: its id, how it is kept, and whether it can be unwrapped."""
        with self._lock:
            found = sorted(self._look().items(), key=lambda item: item[1].created_ms)
            return [(id, one, bytes.fromhex(id) in self._keys) for id, one in found]

    def _look(self) -> dict[str, WrappedKey]:
        self._looked_s = self._clock()
        found = {}
        for id, data in self._place.read().items():
            try:
                found[id] = msgspec.json.decode(data, type=WrappedKey)
            except msgspec.MsgspecError:
                logger.warning("%s: the data key %s is damaged.", self._place.shown, id)
        new = {id: one for id, one in found.items() if bytes.fromhex(id) not in self._keys}
        masters = {name: self.masters.find(name) for name in {one.master for one in new.values()}}
        for id, one in new.items():
            secret = self._unwrap(id, one, masters[one.master])
            if secret is not None:
                raw = bytes.fromhex(id)
                self._keys[raw] = DataKey(raw, one.created_ms, AESGCM(secret))
        return found

    def _newest(self) -> DataKey | None:
        young = [key for key in self._keys.values() if self._is_young(key)]
        others = [key for key in young if key is not self._current or self._may_be_used(key)]
        return max(others, key=lambda key: (key.created_ms, key.id), default=None)

    def _is_young(self, key: DataKey) -> bool:
        return self._now() - key.created_ms / 1000 < MOST_AGE_S

    def _may_be_used(self, key: DataKey) -> bool:
        return self._is_young(key) and self._num_uses < _MOST_USES

    def _add(self) -> DataKey:
        """Younger than all that are known, whatever clocks say."""
        raw, secret = secrets.token_bytes(ID_BYTES), os.urandom(KEY_BYTES)
        youngest_ms = max((key.created_ms for key in self._keys.values()), default=0)
        created_ms = max(int(self._now() * 1000), youngest_ms + 1)
        self._write(raw.hex(), secret, created_ms, self.masters.current())
        key = self._keys[raw] = DataKey(raw, created_ms, AESGCM(secret))
        return key

    def _write(self, id: str, secret: bytes, created_ms: int, master: MasterKey) -> None:
        nonce = os.urandom(NONCE_BYTES)
        wrapped = AESGCM(master.secret).encrypt(nonce, secret, _said(id, created_ms))
        one = WrappedKey(master=master.id, created_ms=created_ms, nonce=nonce, wrapped=wrapped)
        self._place.write(id, msgspec.json.encode(one))

    def _unwrap(self, id: str, one: WrappedKey, master: MasterKey | None) -> bytes | None:
        if master is None:
            return None
        try:
            return AESGCM(master.secret).decrypt(one.nonce, one.wrapped, _said(id, one.created_ms))
        except (InvalidTag, ValueError):
            logger.warning("%s: the data key %s is damaged.", self._place.shown, id)
            return None


def _said(id: str, created_ms: int) -> bytes:
    return _SAID + bytes.fromhex(id) + created_ms.to_bytes(8, "little", signed=True)
