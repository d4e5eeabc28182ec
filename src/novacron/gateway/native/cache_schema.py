"""What clients send to, and get from, the endpoints of the KV cache."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct
from pydantic import Field

from novacron.gateway.cache_scope import CacheSharing
from novacron.gateway.openai.schema import (
    Body,
    ChatMessage,
    JsonObject,
    NonEmptyText,
    TokenIds,
    Tool,
)

PinName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class PrefixBody(Body):
    """A prefix: `prompt`, or `messages` as the model's template writes them without opening an
    answer. Whole blocks of it are cached; the rest, fewer tokens than a block, is not."""

    model: str | None = None
    prompt: NonEmptyText | TokenIds | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: JsonObject | None = None
    cache_salt: str | None = None
    cache_scope: CacheSharing | None = None


class PinBody(PrefixBody):
    """POST /api/v1/llm/cache/pin. `ttl`: seconds until the pin ends; without, it stays until it is
    unpinned. `warm`: compute the prefix at once (the default)."""

    name: PinName | None = None
    ttl: Annotated[float, Field(gt=0, le=1e9)] | None = None
    warm: bool | None = None


class WarmBody(PrefixBody):
    """POST /api/v1/llm/cache/warm."""


class UnpinBody(Body):
    """POST /api/v1/llm/cache/unpin."""

    name: PinName
    cache_salt: str | None = None
    cache_scope: CacheSharing | None = None


class PinView(Struct, frozen=True, kw_only=True):
    """A pinned prefix. `stored_blocks`: how many of its blocks each tier has now. `expires_at` is
    Unix time."""

    name: str
    variant: str
    public: bool
    num_tokens: int
    num_blocks: int
    num_bytes: int
    stored_blocks: dict[str, int]
    expires_at: float | None


class PinsView(Struct, frozen=True, kw_only=True):
    """Pinned prefixes of the caller, and public ones. Numbers of blocks are of all callers."""

    pins: tuple[PinView, ...]
    pinned_blocks: int
    most_blocks: int


class PinResult(Struct, frozen=True, kw_only=True):
    """The pin, and how many tokens of the prefix were computed for it and how many were cached."""

    pin: PinView
    warmed: WarmResult | None


class WarmResult(Struct, frozen=True, kw_only=True):
    """A prefix that is in the cache now: its tokens, and how many were there before."""

    num_tokens: int
    cached_tokens: int
    computed_tokens: int
    seconds: float


class Unpinned(Struct, frozen=True, kw_only=True):
    """The name is free again; its blocks may leave like any others."""

    name: str


class Cleared(Struct, frozen=True, kw_only=True):
    """Blocks that were dropped, by level; with `dry_run`, that would have been."""

    blocks: dict[str, int]
    dry_run: bool
