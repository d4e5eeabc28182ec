"""What a kept response was made of, as a list of items, page by page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from novacron.errors import InvalidRequest
from novacron.gateway.openai.responses_api.records import OutputCall

Order = Literal["asc", "desc"]


class ListedText(Struct, frozen=True):
    type: Literal["input_text", "output_text"]
    text: str


class ListedMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    role: str
    content: tuple[ListedText, ...]
    status: Literal["completed"] = "completed"


class ListedOutput(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    id: str
    call_id: str
    output: str
    status: Literal["completed"] = "completed"


ListedItem = ListedMessage | ListedOutput | OutputCall


class ItemList(Struct, frozen=True, kw_only=True):
    """A page of items; `last_id` is what a further page comes `after`."""

    object: Literal["list"] = "list"
    data: tuple[ListedItem, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_of(
    response_id: str,
    messages: Sequence[dict[str, Any]],
    *,
    order: Order,
    after: str | None,
    limit: int,
) -> ItemList:
    """`messages` are those of a chat, without the answer. Raises InvalidRequest if `after` is no
    item of theirs."""
    items = _items(response_id, messages)
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((i for i, item in enumerate(items) if item.id == after), None)
        if place is None:
            raise InvalidRequest(
                f"after is '{after[:80]}', which is the id of no item of this response.",
                param="after",
            )
        items = items[place + 1 :]
    page = tuple(items[:limit])
    return ItemList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(items) > limit,
    )


def _items(response_id: str, messages: Sequence[dict[str, Any]]) -> list[ListedItem]:
    """Ids are made of the response's and the place, so that they are the same each time."""
    items: list[ListedItem] = []

    def new_id(prefix: str) -> str:
        return f"{prefix}_{len(items)}_{response_id.removeprefix('resp_')}"

    for message in messages:
        role, text = message["role"], message.get("content")
        if role == "tool":
            call_id = message.get("tool_call_id") or ""
            items.append(ListedOutput(id=new_id("fco"), call_id=call_id, output=text or ""))
            continue
        if text:
            kind: Literal["input_text", "output_text"]
            kind = "output_text" if role == "assistant" else "input_text"
            items.append(
                ListedMessage(id=new_id("msg"), role=role, content=(ListedText(kind, text),))
            )
        for call in message.get("tool_calls", ()):
            items.append(
                OutputCall(
                    id=new_id("fc"),
                    call_id=call["id"] or "",
                    name=call["function"]["name"],
                    arguments=call["function"]["arguments"],
                    status="completed",
                )
            )
    return items
