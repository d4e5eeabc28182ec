"""Responses that can be asked for again or be gone on with: the newest ones, in this process.

Bounded in bytes and in time; a tenant has at most a part of it, so that none can push out all that
others have. A response belongs to its tenant: to others it does not exist.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from novacron.errors import RequestNotFound
from novacron.gateway.openai.responses_api.records import ResponseObject

_TENANT_SHARE: Final = 4  # of the bytes, where there is more than one tenant: a fourth


@dataclass(frozen=True)
class StoredResponse:
    """`messages` are the conversation with its answer, as messages of a chat, instructions left
    out: those are of one response only."""

    response: ResponseObject
    messages: tuple[dict[str, Any], ...]
    tenant: str
    num_bytes: int
    expires_s: float


class ResponseStore:
    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._stored: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self._num_bytes: dict[str, int] = {}  # by tenant

    def put(
        self, tenant: str, response: ResponseObject, messages: Sequence[dict[str, Any]]
    ) -> None:
        """One too large for the tenant's part is not kept."""
        num_bytes = len(msgspec.json.encode(response)) + len(msgspec.json.encode(messages))
        self._drop((tenant, response.id))
        most = self._max_bytes // _TENANT_SHARE if tenant else self._max_bytes
        if num_bytes > most:
            return
        self._drop_expired()
        while self._num_bytes.get(tenant, 0) + num_bytes > most:
            self._drop(next(key for key in self._stored if key[0] == tenant))
        while sum(self._num_bytes.values()) + num_bytes > self._max_bytes:
            self._drop(next(iter(self._stored)))
        self._num_bytes[tenant] = self._num_bytes.get(tenant, 0) + num_bytes
        self._stored[tenant, response.id] = StoredResponse(
            response, tuple(messages), tenant, num_bytes, self._clock() + self._ttl_s
        )

    def get(self, tenant: str, response_id: str) -> StoredResponse:
        """Raises RequestNotFound."""
        self._drop_expired()
        found = self._stored.get((tenant, response_id))
        if found is None:
            raise RequestNotFound(
                f"No response '{response_id[:80]}' is kept: it was sent with store false, has "
                f"expired (after {self._ttl_s:g} s), made room for others, or the server was "
                "started anew. Send the earlier items as input."
            )
        return found

    def delete(self, tenant: str, response_id: str) -> None:
        """Raises RequestNotFound."""
        self.get(tenant, response_id)
        self._drop((tenant, response_id))

    def _drop_expired(self) -> None:
        now_s = self._clock()
        while self._stored:
            key, oldest = next(iter(self._stored.items()))
            if oldest.expires_s > now_s:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        dropped = self._stored.pop(key, None)
        if dropped is not None:
            self._num_bytes[dropped.tenant] -= dropped.num_bytes
            if not self._num_bytes[dropped.tenant]:
                del self._num_bytes[dropped.tenant]
