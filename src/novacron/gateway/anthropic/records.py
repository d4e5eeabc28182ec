"""What Anthropic's endpoints answer: the message, and the events that it streams as."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct


class AnthropicUsage(Struct, frozen=True, kw_only=True):
    """`input_tokens` are those that were computed; the cached ones stand beside them."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicText(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class AnthropicToolUse(Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


Block = AnthropicText | AnthropicToolUse


class AnthropicMessage(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[Block, ...]
    stop_reason: str | None
    stop_sequence: str | None = None
    usage: AnthropicUsage


class AnthropicTokenCount(Struct, frozen=True):
    input_tokens: int


class _Event(Struct, frozen=True, tag_field="type"):
    """Base of the events. The tag is the name of the event, too."""


class MessageStart(_Event, frozen=True, tag="message_start"):
    message: AnthropicMessage


class BlockStart(_Event, frozen=True, tag="content_block_start"):
    index: int
    content_block: Block


class TextDelta(Struct, frozen=True, tag_field="type", tag="text_delta"):
    text: str


class InputDelta(Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    partial_json: str


class BlockDelta(_Event, frozen=True, tag="content_block_delta"):
    index: int
    delta: TextDelta | InputDelta


class BlockStop(_Event, frozen=True, tag="content_block_stop"):
    index: int


class StopDelta(Struct, frozen=True):
    stop_reason: str
    stop_sequence: str | None


class MessageDelta(_Event, frozen=True, tag="message_delta"):
    delta: StopDelta
    usage: AnthropicUsage


class MessageStop(_Event, frozen=True, tag="message_stop"):
    pass


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop

_encode = msgspec.json.Encoder().encode


def event_frame(event: Event) -> bytes:
    return named_frame(str(event.__struct_config__.tag), event)


def named_frame(name: str, data: Struct) -> bytes:
    """A server-sent event with a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))
