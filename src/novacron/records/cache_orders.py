"""What callers may ask about the KV cache itself, and what the engine answers. Frozen values.

Scopes are tags of 8 bytes, empty for everyone's; see gateway/cache_scope.py. Times are Unix time,
because pins outlive the process.
"""

from __future__ import annotations

import msgspec


class Pin(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Keep the full blocks of these tokens in all tiers, under a name of the scope. A name that is
    in use gets the new content."""

    name: str
    token_ids: tuple[int, ...]
    salt: str = ""
    scope: bytes = b""
    is_public: bool = False
    expires_s: float | None = None


class Unpin(msgspec.Struct, frozen=True, array_like=True, tag=True):
    name: str
    scope: bytes = b""


class ListPins(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Those of the scope, and those that are everyone's."""

    scope: bytes = b""


class ClearCache(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Drop blocks from these levels (device, and kinds of tiers; none: all), of one scope (None: of
    all). Pins go only with `unpin`."""

    levels: tuple[str, ...] = ()
    unpin: bool = False
    dry_run: bool = False
    scope: bytes | None = None


CacheOrder = Pin | Unpin | ListPins | ClearCache


class PinInfo(msgspec.Struct, frozen=True, array_like=True):
    """`stored_blocks`: how many of the blocks each tier has, by its kind."""

    name: str
    is_public: bool
    num_tokens: int
    num_blocks: int
    expires_s: float | None
    stored_blocks: dict[str, int]


class PinList(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`num_blocks` of all pins together, of `most_blocks` that may be pinned."""

    pins: tuple[PinInfo, ...]
    num_blocks: int
    most_blocks: int
    block_bytes: int


class ClearedCache(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Blocks that were dropped, or would be, by level."""

    num_blocks: dict[str, int]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`kind` is the error class."""

    kind: str
    message: str


CacheAnswer = PinList | ClearedCache | Refused
