"""An answer in Anthropic's words: as one message, or event by event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from novacron.engine.tokenization import Tokenizer
from novacron.errors import NovaCronError
from novacron.gateway.anthropic.errors import raised_error
from novacron.gateway.anthropic.records import (
    AnthropicMessage,
    AnthropicText,
    AnthropicToolUse,
    AnthropicUsage,
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    StopDelta,
    TextDelta,
    event_frame,
    named_frame,
)
from novacron.gateway.calls import Call, CallOrigin, Choice
from novacron.gateway.openai.chat import ChatReply, parse_chat
from novacron.gateway.openai.responses import ChatChunkChoice, ToolCallDelta
from novacron.gateway.openai.schema import ChatBody
from novacron.gateway.openai.usage import Counted
from novacron.gateway.streaming import StreamForm
from novacron.records.output import RequestOutput

_STOP_REASONS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "abort": "pause_turn",  # cut short by somebody; the client may go on from here
}


def parse_messages(
    chat: ChatBody, origin: CallOrigin, tokenizer: Tokenizer, context_length: int
) -> MessageReply:
    """Every body must have max_tokens there, so that it cannot be more than a ceiling.

    Raises InvalidRequest.
    """
    reply = parse_chat(chat, origin, tokenizer, context_length)
    is_cut = chat.max_tokens != reply.call.requests[0].sampling.max_tokens
    return MessageReply(reply, "model_context_window_exceeded" if is_cut else "max_tokens")


class MessageReply:
    """One message's call, and its outputs as events or as a whole."""

    def __init__(self, chat: ChatReply, reason_for_length: str) -> None:
        self.call = chat.call
        self._stop_reasons = _STOP_REASONS | {"length": reason_for_length}
        self._chat = chat
        self._latest: RequestOutput | None = None
        self._num_blocks = 0  # that were begun
        self._open: type[Block] | None = None  # the kind of block that is being written

    def twin(self) -> ChatReply:
        """The same call in OpenAI's words, of which nothing has been told yet."""
        return self._chat.twin()

    def frames(self, output: RequestOutput) -> bytes:
        events: list[Event] = []
        if self._latest is None:
            start = self._message((), None, None, _usage(self.call, output, num_output_tokens=0))
            events.append(MessageStart(start))
        self._latest = output
        for piece in self._chat.pieces(output):
            events += self._events(piece)
        return b"".join(map(event_frame, events))

    def last_frames(self) -> bytes:
        return event_frame(MessageStop())

    def whole(self, choices: Sequence[Choice]) -> AnthropicMessage:
        """A stream of one piece: so that both have the same blocks."""
        output = self._latest = choices[0].as_output(self.call, 0)
        events = [event for piece in self._chat.pieces(output) for event in self._events(piece)]
        last = events[-1]
        assert isinstance(last, MessageDelta)
        blocks = blocks_of(events)
        return self._message(blocks, last.delta.stop_reason, last.delta.stop_sequence, last.usage)

    def _message(
        self,
        content: tuple[Block, ...],
        stop_reason: str | None,
        stop_sequence: str | None,
        usage: AnthropicUsage,
    ) -> AnthropicMessage:
        origin = self.call.origin
        return AnthropicMessage(
            id=origin.call_id,
            model=origin.model,
            content=content,
            stop_reason=stop_reason,
            stop_sequence=stop_sequence,
            usage=usage,
        )

    def _events(self, piece: ChatChunkChoice) -> list[Event]:
        events: list[Event] = []
        if piece.delta.content:
            if self._open is not AnthropicText:
                events += [*self._end_block(), self._begin_block(AnthropicText(""))]
            events.append(self._delta(TextDelta(piece.delta.content)))
        for call in piece.delta.tool_calls or ():
            events += self._call_events(call)
        if piece.finish_reason is not None:
            assert self._latest is not None
            usage = _usage(
                self.call, self._latest, num_output_tokens=self._latest.num_output_tokens
            )
            events += self._end_block()
            events.append(MessageDelta(self._stop(piece.finish_reason, piece.stop_reason), usage))
        return events

    def _call_events(self, call: ToolCallDelta) -> list[Event]:
        events: list[Event] = []
        if isinstance(call.id, str):
            name = call.function.name or ""
            events += [*self._end_block(), self._begin_block(AnthropicToolUse(call.id, name, {}))]
        if call.function.arguments:
            events.append(self._delta(InputDelta(call.function.arguments)))
        return events

    def _stop(self, finish_reason: str, stop_reason: object) -> StopDelta:
        if finish_reason == "stop" and isinstance(stop_reason, str):
            return StopDelta("stop_sequence", stop_reason)
        return StopDelta(self._stop_reasons.get(finish_reason, "end_turn"), None)

    def _begin_block(self, block: Block) -> BlockStart:
        self._open = type(block)
        self._num_blocks += 1
        return BlockStart(self._num_blocks - 1, block)

    def _delta(self, delta: TextDelta | InputDelta) -> BlockDelta:
        return BlockDelta(self._num_blocks - 1, delta)

    def _end_block(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        return [BlockStop(self._num_blocks - 1)]


class _Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    pass


_PING = named_frame("ping", _Ping())


def _error_frame(error: NovaCronError) -> bytes:
    return named_frame("error", raised_error(error))


ANTHROPIC_STREAM = StreamForm(error_frame=_error_frame, keep_alive_frame=lambda: _PING)


def _usage(call: Call, counted: Counted, *, num_output_tokens: int) -> AnthropicUsage:
    return AnthropicUsage(
        input_tokens=call.num_prompt_tokens - counted.num_cached_tokens,
        cache_read_input_tokens=counted.num_cached_tokens,
        output_tokens=num_output_tokens,
    )


def blocks_of(events: Sequence[Event]) -> tuple[Block, ...]:
    """The blocks that events add up to."""
    begun = [event.content_block for event in events if isinstance(event, BlockStart)]
    texts = [""] * len(begun)
    for event in events:
        if isinstance(event, BlockDelta):
            delta = event.delta
            texts[event.index] += delta.text if isinstance(delta, TextDelta) else delta.partial_json
    return tuple(
        AnthropicText(text)
        if isinstance(block, AnthropicText)
        else msgspec.structs.replace(block, input=_arguments(text))
        for block, text in zip(begun, texts, strict=True)
    )


def _arguments(text: str) -> dict[str, Any]:
    """An object whatever the model wrote: a call that was cut off has none."""
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return arguments if isinstance(arguments, dict) else {}
