"""A response, as a whole or event by event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from novacron.errors import NovaCronError
from novacron.gateway.calls import Choice
from novacron.gateway.error_mapping import error_detail
from novacron.gateway.openai.chat import ChatReply
from novacron.gateway.openai.responses import TokenLogprob
from novacron.gateway.openai.responses_api.items import Fields, ItemStream
from novacron.gateway.openai.responses_api.records import (
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    OutputItem,
    ResponseEvent,
    ResponseFailure,
    ResponseObject,
    ResponseStatus,
    ResponseUsage,
    event_frame,
)
from novacron.gateway.openai.responses_api.schema import ResponsesBody
from novacron.gateway.openai.usage import Counted, usage_of
from novacron.gateway.streaming import StreamForm
from novacron.records.output import RequestOutput


class ResponsesReply:
    """One response's call. `on_end` gets the response that has come to an end of its own."""

    def __init__(
        self, chat: ChatReply, body: ResponsesBody, on_end: Callable[[ResponseObject], None]
    ) -> None:
        self.call = chat.call
        self._chat = chat
        self._begun = _begun(body, chat)
        self._on_end = on_end
        self._items = ItemStream()
        self._num_events = 0
        self._logprobs: list[TokenLogprob] = []  # of text that has not come yet
        self._latest: RequestOutput | None = None
        self._finish_reason = ""

    @property
    def form(self) -> StreamForm:
        return StreamForm(error_frame=self._error_frame)

    def twin(self) -> ChatReply:
        """The same call in OpenAI's words, of which nothing has been told yet."""
        return self._chat.twin()

    def frames(self, output: RequestOutput) -> bytes:
        events: list[Fields] = []
        if self._latest is None:
            events += [
                {"type": "response.created", "response": self._begun},
                {"type": "response.in_progress", "response": self._begun},
            ]
        events += self._read(output)
        return self._framed(events)

    def last_frames(self) -> bytes:
        events, response = self._end()
        kind = "response.completed" if response.status == "completed" else "response.incomplete"
        return self._framed([*events, {"type": kind, "response": response}])

    def whole(self, choices: Sequence[Choice]) -> ResponseObject:
        """A stream of one piece: so that both have the same items."""
        self._read(choices[0].as_output(self.call, 0))
        _, response = self._end()
        return response

    def _read(self, output: RequestOutput) -> list[Fields]:
        events: list[Fields] = []
        self._latest = output
        for piece in self._chat.pieces(output):
            self._logprobs += piece.logprobs.content if piece.logprobs else ()
            if piece.delta.content:
                events += self._items.text(piece.delta.content, self._logprobs)
                self._logprobs = []
            for call in piece.delta.tool_calls or ():
                events += self._items.call(call)
                self._logprobs = []  # of the call: items of that kind have none
            if piece.finish_reason is not None:
                self._finish_reason = piece.finish_reason
        return events

    def _end(self) -> tuple[list[Fields], ResponseObject]:
        status = _status(self._finish_reason)
        events = self._items.end(_item_status(status))
        return events, self._ended(status, tuple(self._items.ended), self._latest)

    def _ended(
        self, status: ResponseStatus, items: tuple[OutputItem, ...], counted: Counted | None
    ) -> ResponseObject:
        response = msgspec.structs.replace(
            self._begun,
            status=status,
            completed_at=int(time.time()) if status == "completed" else None,
            incomplete_details=self._incomplete_details(status),
            output=items,
            usage=self._usage(counted),
        )
        self._on_end(response)
        return response

    def _incomplete_details(self, status: ResponseStatus) -> IncompleteDetails | None:
        if status != "incomplete":
            return None
        is_filtered = self._finish_reason == "content_filter"
        return IncompleteDetails("content_filter" if is_filtered else "max_output_tokens")

    def _usage(self, counted: Counted | None) -> ResponseUsage:
        usage = usage_of(self.call, [counted])
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )

    def _error_frame(self, error: NovaCronError) -> bytes:
        failure = ResponseFailure(error_detail(error).code or "server_error", str(error))
        events = self._items.end("incomplete")
        response = msgspec.structs.replace(
            self._begun, status="failed", error=failure, output=tuple(self._items.ended)
        )
        return self._framed([*events, {"type": "response.failed", "response": response}])

    def _framed(self, events: Sequence[Fields]) -> bytes:
        frames = []
        for fields in events:
            frames.append(event_frame(ResponseEvent(sequence_number=self._num_events, **fields)))
            self._num_events += 1
        return b"".join(frames)


def _begun(body: ResponsesBody, chat: ChatReply) -> ResponseObject:
    origin = chat.call.origin
    sampling = chat.call.requests[0].sampling
    text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text else {}
    choice: Any = body.tool_choice or "auto"
    return ResponseObject(
        id=origin.call_id,
        created_at=origin.created,
        status="in_progress",
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        model=origin.model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        reasoning=body.reasoning or {},
        store=body.store is not False,
        temperature=sampling.temperature,
        text={"format": {"type": "text"}} | text,
        tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
        tools=tuple(tool.model_dump() for tool in body.tools or ()),
        top_p=sampling.top_p,
        user=body.user,
        warnings=origin.warnings or UNSET,
    )


def _status(finish_reason: str) -> ResponseStatus:
    match finish_reason:
        case "length" | "content_filter":
            return "incomplete"
        case "abort":
            return "cancelled"
        case _:
            return "completed"


def _item_status(status: ResponseStatus) -> ItemStatus:
    return "completed" if status == "completed" else "incomplete"
