"""Requests as queues see them."""

from __future__ import annotations

from novacron.kv_cache.kv_cache_manager import BlockTable
from novacron.records.block import BlockHash
from novacron.records.request import Request, SamplingParams
from novacron.scheduler.request_state import RequestState
from novacron.scheduler.stopping import StopConditions

CONDITIONS = StopConditions(frozenset(), frozenset(), min_tokens=0, max_output_tokens=1)


def state(arrival_index: int, priority: int = 0, *, tenant: str = "") -> RequestState:
    request = Request(
        request_id=f"r{arrival_index}",
        prompt_token_ids=(1,),
        sampling=SamplingParams(),
        arrival_time_s=0.0,
        priority=priority,
        tenant=tenant,
    )
    return RequestState(request, arrival_index, [1], BlockTable(BlockHash(b"")), CONDITIONS)
