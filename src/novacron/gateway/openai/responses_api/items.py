"""The items of a response while it streams: which events each piece of the answer makes. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from novacron.gateway.openai.responses import TokenLogprob, ToolCallDelta
from novacron.gateway.openai.responses_api.records import (
    ItemStatus,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputText,
)

Fields = dict[str, Any]  # of an event, but its number


class ItemStream:
    """Begins and ends items in order. `ended` are those that have."""

    def __init__(self) -> None:
        self.ended: list[OutputItem] = []
        self._open: _OpenText | _OpenCall | None = None

    def text(self, delta: str, logprobs: Sequence[TokenLogprob]) -> list[Fields]:
        events = []
        if not isinstance(self._open, _OpenText):
            events += self.end("completed")
            self._open = _OpenText(len(self.ended))
            events += self._open.begin()
        return [*events, self._open.add(delta, logprobs)]

    def call(self, delta: ToolCallDelta) -> list[Fields]:
        events = []
        if isinstance(delta.id, str):
            events += self.end("completed")
            self._open = _OpenCall(len(self.ended), delta.id, delta.function.name or "")
            events += self._open.begin()
        if delta.function.arguments:
            assert isinstance(self._open, _OpenCall)
            events.append(self._open.add(delta.function.arguments))
        return events

    def end(self, status: ItemStatus) -> list[Fields]:
        if self._open is None:
            return []
        events = self._open.end(status)
        self.ended.append(self._open.item(status))
        self._open = None
        return events


class _OpenText:
    def __init__(self, output_index: int) -> None:
        self._id = new_id("msg_")
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._item = {"output_index": output_index}
        self._part = {"item_id": self._id, "output_index": output_index, "content_index": 0}

    def begin(self) -> list[Fields]:
        begun = OutputMessage(id=self._id, status="in_progress", content=())
        return [
            {"type": "response.output_item.added", "item": begun, **self._item},
            {"type": "response.content_part.added", "part": OutputText(text=""), **self._part},
        ]

    def add(self, delta: str, logprobs: Sequence[TokenLogprob]) -> Fields:
        self._texts.append(delta)
        self._logprobs.extend(logprobs)
        told = {"delta": delta, "logprobs": tuple(logprobs)}
        return {"type": "response.output_text.delta", **self._part, **told}

    def end(self, status: ItemStatus) -> list[Fields]:
        item = self.item(status)
        [part] = item.content
        told = {"text": part.text, "logprobs": part.logprobs}
        return [
            {"type": "response.output_text.done", **self._part, **told},
            {"type": "response.content_part.done", "part": part, **self._part},
            {"type": "response.output_item.done", "item": item, **self._item},
        ]

    def item(self, status: ItemStatus) -> OutputMessage:
        return message_item("".join(self._texts), tuple(self._logprobs), status, self._id)


class _OpenCall:
    def __init__(self, output_index: int, call_id: str, name: str) -> None:
        self._id = new_id("fc_")
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []
        self._place = {"output_index": output_index}

    def begin(self) -> list[Fields]:
        item = self.item("in_progress")
        return [{"type": "response.output_item.added", "item": item, **self._place}]

    def add(self, delta: str) -> Fields:
        self._arguments.append(delta)
        told = {"item_id": self._id, "delta": delta}
        return {"type": "response.function_call_arguments.delta", **self._place, **told}

    def end(self, status: ItemStatus) -> list[Fields]:
        item = self.item(status)
        told = {"item_id": self._id, "name": self._name, "arguments": item.arguments}
        return [
            {"type": "response.function_call_arguments.done", **self._place, **told},
            {"type": "response.output_item.done", "item": item, **self._place},
        ]

    def item(self, status: ItemStatus) -> OutputCall:
        return OutputCall(
            id=self._id,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._arguments),
            status=status,
        )


def message_item(
    text: str, logprobs: tuple[TokenLogprob, ...], status: ItemStatus, item_id: str
) -> OutputMessage:
    content = OutputText(text=text, logprobs=logprobs)
    return OutputMessage(id=item_id, status=status, content=(content,))


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)
