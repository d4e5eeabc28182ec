"""The answers that the watch over quality is to see, gathered from what goes in and what comes out.

Knows tokens and requests, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from novacron.quality.document import Document
from novacron.quality.watch import is_sampled
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason, Request

_ENDED_WELL = (FinishReason.STOP, FinishReason.LENGTH)


class WatchedAnswers:
    """`share` of the requests, chosen by their ids, while they run."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._running: dict[str, tuple[tuple[int, ...], list[int]]] = {}

    def begin(self, request: Request) -> None:
        if request.uncounted or request.pooling is not None:
            return
        if is_sampled(request.request_id, self._share):
            prompt, earlier = request.prompt_token_ids, request.output_token_ids
            self._running[request.request_id] = (prompt, list(earlier))

    def follow(self, outputs: Iterable[EngineOutput]) -> Iterator[Document]:
        """The answers that have ended, those that were broken off left out."""
        for output in outputs:
            entry = self._running.get(output.request_id)
            if entry is None:
                continue
            prompt, answer = entry
            answer += output.new_token_ids
            if output.finish_reason is None:
                continue
            del self._running[output.request_id]
            if prompt and answer and output.finish_reason in _ENDED_WELL:
                yield Document((*prompt, *answer), len(prompt))
