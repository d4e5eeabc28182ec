"""Journal: what one call has got so far, which is all that is needed to go on with it elsewhere.

A token depends on nothing but the prompt, the tokens before it, the sampling parameters and the
seed. So whichever engine is given these goes on with exactly the tokens that would have come. Pure;
RecoveringClient keeps one for each call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from novacron.records.output import RequestOutput
from novacron.records.request import FinishReason, Request


@dataclass(slots=True)
class _Entry:
    """One request of the call. What is said of an engine that has told of it stays said: how much
    of the prompt was cached, and when it first ran."""

    request: Request
    place: int
    token_ids: list[int] = field(default_factory=list)
    num_prompt_logprobs: int = 0
    num_known_logprobs: int = 0  # of the prompt, that the engine it runs on will tell again
    num_cached_tokens: int = 0
    first_scheduled_time_s: float | None = None
    was_told_of: bool = False
    has_ended: bool = False


class Journal:
    """The requests of one call, their seeds fixed, and their outputs.

    A life of the call is its run on one engine: `remaining` begins one, and what that engine says
    goes through `record`, which makes it what a caller would have heard from a single engine.
    """

    def __init__(self, requests: tuple[Request, ...]) -> None:
        self._entries = tuple(_Entry(request, place) for place, request in enumerate(requests))
        self._running: tuple[_Entry, ...] = ()
        self._num_lives = 0

    @property
    def has_ended(self) -> bool:
        return all(entry.has_ended for entry in self._entries)

    @property
    def request_ids(self) -> tuple[str, ...]:
        return tuple(entry.request.request_id for entry in self._entries)

    @property
    def num_tokens(self) -> Mapping[str, int]:
        """Tokens so far of the requests that have not ended."""
        return {
            entry.request.request_id: len(entry.token_ids)
            for entry in self._entries
            if not entry.has_ended
        }

    def remaining(self) -> tuple[Request, ...]:
        """Begin the next life: the requests that have not ended, with the tokens they have.

        Their ids are new from the second life on: an engine may still be ending the earlier one.
        """
        self._num_lives += 1
        self._running = tuple(entry for entry in self._entries if not entry.has_ended)
        return tuple(self._continued(entry) for entry in self._running)

    def id_in_engine(self, request_id: str) -> str | None:
        """Under which id a request that has not ended runs in the present life; None if none of
        that id does."""
        for entry in self._running:
            if entry.request.request_id == request_id and not entry.has_ended:
                return self._id_of(entry)
        return None

    def original_id(self, output: RequestOutput) -> str:
        """Of the request that `output`, of the present life, is about."""
        return self._running[output.index].request.request_id

    def is_over(self, output: RequestOutput) -> bool:
        """Whether the request that `output`, of the last life, is about was aborted since."""
        return self._running[output.index].has_ended

    def record(self, output: RequestOutput) -> RequestOutput:
        """Take in an output of the present life; returns it as the caller shall see it."""
        entry = self._running[output.index]
        if self._num_lives > 1 or entry.place != output.index:
            output = self._as_of_one_life(entry, output)
        entry.token_ids += output.token_ids
        entry.num_prompt_logprobs += len(output.prompt_logprobs)
        entry.num_cached_tokens = output.num_cached_tokens
        if entry.first_scheduled_time_s is None:
            entry.first_scheduled_time_s = output.first_scheduled_time_s
        entry.was_told_of = True
        entry.has_ended = output.finished
        return output

    def abort(self, request_id: str) -> RequestOutput | None:
        """End a request between two lives: its last output; None if none of that id goes on."""
        for entry in self._entries:
            if entry.request.request_id == request_id and not entry.has_ended:
                entry.has_ended = True
                return RequestOutput(
                    request_id=request_id,
                    index=entry.place,
                    finish_reason=FinishReason.ABORT,
                    num_prompt_tokens=len(entry.request.prompt_token_ids),
                    num_output_tokens=len(entry.token_ids),
                    num_cached_tokens=entry.num_cached_tokens,
                    first_scheduled_time_s=entry.first_scheduled_time_s,
                )
        return None

    def _continued(self, entry: _Entry) -> Request:
        request = entry.request
        if self._num_lives == 1:
            return request
        entry.num_known_logprobs = entry.num_prompt_logprobs
        sampling = request.sampling
        if entry.token_ids and sampling.prompt_logprobs is not None:  # all of them have come
            sampling = msgspec.structs.replace(sampling, prompt_logprobs=None)
        return msgspec.structs.replace(
            request,
            request_id=self._id_of(entry),
            sampling=sampling,
            output_token_ids=(*request.output_token_ids, *entry.token_ids),
        )

    def _id_of(self, entry: _Entry) -> str:
        request_id = entry.request.request_id
        return request_id if self._num_lives == 1 else f"{request_id}.{self._num_lives}"

    def _as_of_one_life(self, entry: _Entry, output: RequestOutput) -> RequestOutput:
        num_known = min(entry.num_known_logprobs, len(output.prompt_logprobs))
        entry.num_known_logprobs -= num_known
        first_s = entry.first_scheduled_time_s
        num_prompt_tokens = len(entry.request.prompt_token_ids)
        return msgspec.structs.replace(
            output,
            request_id=entry.request.request_id,
            index=entry.place,
            prompt_logprobs=output.prompt_logprobs[num_known:],
            num_cached_tokens=entry.num_cached_tokens
            if entry.was_told_of
            else min(output.num_cached_tokens, num_prompt_tokens),
            first_scheduled_time_s=output.first_scheduled_time_s if first_s is None else first_s,
        )
