"""What a scheduler cannot take, and how it says so. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from novacron.errors import InvalidRequest, PromptTooLong
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.records.request import Request

QUEUE_IS_FULL: Final = (
    "The queue is full, and this request goes first: it is of the least urgent that wait, and its "
    "sender has most of them. Try again later, send fewer at once, or raise max_queued_requests."
)


def check_request(request: Request, live_ids: Collection[str], max_model_len: int) -> None:
    """Raises InvalidRequest if the id is in use or the prompt is empty, PromptTooLong if the
    context cannot hold its tokens."""
    if request.request_id in live_ids:
        raise InvalidRequest(
            f"The request id '{request.request_id}' is in use by a request that has not ended "
            "yet. Choose another one.",
            param="request_id",
        )
    if not request.prompt_token_ids:
        raise InvalidRequest("The prompt has no tokens. Send at least one.", param="prompt")
    num_tokens = len(request.prompt_token_ids) + len(request.output_token_ids)
    if num_tokens > max_model_len:
        raise PromptTooLong(num_tokens, None, max_model_len)


def why_too_big(num_tokens: int, kv_cache: KVCacheManager) -> str | None:
    """Why so many tokens do not fit even into the whole cache; None if they do."""
    num_needed = kv_cache.blocks_for(num_tokens)
    if num_needed <= kv_cache.num_blocks:
        return None
    return (
        f"The request has come to {num_tokens} tokens, which take {num_needed} KV "
        f"blocks, but the whole cache has {kv_cache.num_blocks} blocks of "
        f"{kv_cache.block_size} tokens. Give the KV cache more memory "
        "(kv_cache_memory), shorten the prompt or ask for fewer tokens."
    )
