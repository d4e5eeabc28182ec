"""A conversation as clients send it, made into what chat templates know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from novacron.errors import InvalidRequest
from novacron.gateway.openai.schema import ChatMessage, ContentPart


def plain_messages(messages: Sequence[ChatMessage]) -> list[Mapping[str, object]]:
    """Messages as chat templates know them: text contents, tool arguments as objects."""
    return [_plain_message(message, f"messages.{i}") for i, message in enumerate(messages)]


def _plain_message(message: ChatMessage, where: str) -> Mapping[str, object]:
    plain = message.model_dump(exclude_none=True)
    if isinstance(message.content, list):
        plain["content"] = _text_of(message.content, f"{where}.content")
    for i, call in enumerate(plain.get("tool_calls", ())):
        call["function"]["arguments"] = _arguments(
            call["function"]["arguments"], f"{where}.tool_calls.{i}.function.arguments"
        )
    return plain


def _text_of(parts: Sequence[ContentPart], where: str) -> str:
    texts = []
    for i, part in enumerate(parts):
        if part.type != "text" or part.text is None:
            raise InvalidRequest(
                f"{where}.{i} is of type {part.type[:40]!r}. This model takes text only: send "
                'parts of the form {"type": "text", "text": "..."}.',
                param=f"{where}.{i}",
            )
        texts.append(part.text)
    return "\n".join(texts)


def _arguments(arguments: str | dict[str, object], where: str) -> dict[str, object]:
    """Clients send arguments back as the JSON text they got; templates expect an object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        parsed = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not valid JSON: {error}.", param=where) from error
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"{where} must be a JSON object.", param=where)
    return parsed
