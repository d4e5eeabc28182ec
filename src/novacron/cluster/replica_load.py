"""What a replica has been given and has not finished: added when a call is sent, taken away as its
outputs come, or when it ends in whatever way. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.records.output import RequestOutput
from novacron.records.request import Request


class ReplicaLoad:
    """Of one replica."""

    def __init__(self) -> None:
        self.num_live = 0
        self.queued_tokens = 0  # of prompts, that it has yet to compute

    def add(self, requests: Sequence[Request], cached_tokens: int) -> CallLoad:
        """`cached_tokens` of each prompt need not be computed. Copies of a prompt share it: only
        the first computes it."""
        queued: dict[str, int] = {}
        seen: set[tuple[int, ...]] = set()
        for request in requests:
            tokens = request.prompt_token_ids + request.output_token_ids
            queued[request.request_id] = (
                0 if tokens in seen else max(1, len(tokens) - cached_tokens)
            )
            seen.add(tokens)
        self.num_live += len(queued)
        self.queued_tokens += sum(queued.values())
        return CallLoad(self, queued)


class CallLoad:
    """The part of one call, until `end`."""

    def __init__(self, of: ReplicaLoad, queued: dict[str, int]) -> None:
        self._of = of
        self._queued = queued  # of live requests

    def see(self, output: RequestOutput) -> None:
        waiting = self._queued.get(output.request_id)
        if waiting is None:
            return
        self._of.queued_tokens -= waiting
        self._queued[output.request_id] = 0
        if output.finished:
            del self._queued[output.request_id]
            self._of.num_live -= 1

    def end(self) -> None:
        """Whatever has not come will not come."""
        self._of.queued_tokens -= sum(self._queued.values())
        self._of.num_live -= len(self._queued)
        self._queued.clear()
