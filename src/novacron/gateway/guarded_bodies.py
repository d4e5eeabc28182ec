"""The texts of a request's body that guardians read, and the body with others in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from novacron.engine.tokenization import Tokenizer
from novacron.errors import ContentBlocked
from novacron.gateway.openai.completions import prompt_token_ids
from novacron.gateway.openai.schema import (
    Body,
    ChatBody,
    ChatMessage,
    CompletionBody,
    EmbeddingBody,
    Prompts,
)

AnyBody = TypeVar("AnyBody", bound=Body)


def texts_of(body: Body, tokenizer: Tokenizer) -> list[str]:
    """What callers tell the model in a chat, a completion or an embedding: contents of messages and
    their other texts, arguments of earlier tool calls, prompts. Those that came as tokens are
    decoded. Definitions of tools are not among it."""
    if isinstance(body, ChatBody):
        return [text for message in body.messages for text in _texts_of_message(message)]
    return _texts_of_prompts(_prompts(body), tokenizer)


def asked_of(body: Body, texts: Sequence[str]) -> str:
    """The question itself: the user's last message, or the prompt."""
    if isinstance(body, ChatBody):
        for message in reversed(body.messages):
            if message.role == "user":
                return "\n".join(_texts_of_message(message))
    return texts[-1] if texts else ""


def with_texts(body: AnyBody, texts: Sequence[str]) -> AnyBody:
    """`texts` in the order of `texts_of`. Raises ContentBlocked for a prompt of tokens: what is
    masked would have to be made into tokens anew, and the client would not know which."""
    given = iter(texts)
    if isinstance(body, ChatBody):
        messages = [_message_with(message, given) for message in body.messages]
        return body.model_copy(update={"messages": messages})
    prompts = _prompts(body)
    field = "input" if isinstance(body, EmbeddingBody) else "prompt"
    if isinstance(prompts, str):
        return body.model_copy(update={field: next(given)})
    if not isinstance(prompts[0], str):
        raise ContentBlocked("mask", "send_text_instead_of_tokens")
    return body.model_copy(update={field: list(given)})


def _prompts(body: Body) -> Prompts:
    if isinstance(body, CompletionBody):
        return body.prompt
    assert isinstance(body, EmbeddingBody)
    return body.input


def _texts_of_prompts(prompts: Prompts, tokenizer: Tokenizer) -> list[str]:
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts[0], str):
        return [str(prompt) for prompt in prompts]
    return [
        tokenizer.decode(ids, skip_special_tokens=False)
        for ids in prompt_token_ids(prompts, tokenizer)
    ]


def _texts_of_message(message: ChatMessage) -> Iterator[str]:
    match message.content:
        case str(content):
            yield content
        case list(parts):
            yield from (part.text for part in parts if part.text is not None)
    for call in message.tool_calls or ():
        yield _as_text(call.function.arguments)
    yield from _further_texts(message).values()


def _further_texts(message: ChatMessage) -> dict[str, str]:
    """Fields that we do not know, but a chat template may (reasoning_content), and the name."""
    fields = {"name": message.name, **(message.model_extra or {})}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _message_with(message: ChatMessage, texts: Iterator[str]) -> ChatMessage:
    changes: dict[str, object] = {}
    match message.content:
        case str():
            changes["content"] = next(texts)
        case list(parts):
            changes["content"] = [
                part if part.text is None else part.model_copy(update={"text": next(texts)})
                for part in parts
            ]
    if message.tool_calls:
        changes["tool_calls"] = [
            call.model_copy(
                update={"function": call.function.model_copy(update={"arguments": next(texts)})}
            )
            for call in message.tool_calls
        ]
    changes |= {name: next(texts) for name in _further_texts(message)}
    return message.model_copy(update=changes)


def _as_text(arguments: str | dict[str, object]) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
