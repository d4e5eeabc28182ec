"""Ollama's forms of a chat and of a text as a ChatBody. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway.calls import CallOrigin
from novacron.gateway.dialect import chat_body
from novacron.gateway.ollama.schema import (
    GenerateBody,
    OllamaBody,
    OllamaChatBody,
    OllamaMessage,
    Options,
)
from novacron.gateway.openai.chat import ChatReply, chat_reply, parse_chat
from novacron.gateway.openai.schema import ChatBody

# Ollama's, where a model brings none of its own. Its penalty on repetition is left out: it looks at
# the last 64 tokens, ours at all of them.
_TEMPERATURE, _TOP_K, _TOP_P = 0.8, 40, 0.9


def as_chat(body: OllamaChatBody | GenerateBody) -> ChatBody:
    """Raises InvalidRequest, also for what has no meaning for a model of text."""
    if isinstance(body, OllamaChatBody):
        messages = [
            _message(message, f"messages.{i}") for i, message in enumerate(body.messages or ())
        ]
        tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
        return _chat(body, messages, tools)
    _refuse_what_texts_lack(body)
    messages = [{"role": "user", "content": body.prompt or ""}]
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    return _chat(body, messages, [])


def parse_ollama(
    chat: ChatBody, origin: CallOrigin, tokenizer: Tokenizer, *, is_text: bool, is_raw: bool
) -> ChatReply:
    """`is_text`: of a body with a prompt, which a model without a template, or one that is asked
    raw, gets as it is. Raises InvalidRequest."""
    if is_text and (is_raw or not tokenizer.has_chat_template):
        prompt = chat.messages[-1].content
        assert isinstance(prompt, str)
        return chat_reply(chat, origin, tokenizer.encode(prompt), None)
    return parse_chat(chat, origin, tokenizer)


def _chat(
    body: OllamaBody, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> ChatBody:
    options = body.options or Options()
    if options.mirostat:
        raise InvalidRequest(
            "options.mirostat is not supported; use top_p or min_p.", param="options.mirostat"
        )
    if options.typical_p not in (None, 0.0, 1.0):
        raise InvalidRequest(
            "options.typical_p is not supported; use top_p or min_p.", param="options.typical_p"
        )
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": messages,
        "tools": tools or None,
        "max_tokens": _max_tokens(options),
        "temperature": _given(options.temperature, _TEMPERATURE),
        "top_k": _given(options.top_k, _TOP_K),
        "top_p": _given(options.top_p, _TOP_P),
        "repetition_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "stop": options.stop,
        "response_format": _response_format(body),
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs if body.logprobs else None,
    }
    if options.seed is not None:
        fields["seed"] = options.seed
    if options.min_p is not None:
        fields["min_p"] = options.min_p
    if body.think is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": body.think is not False}
    return chat_body(body, **fields)


def _message(message: OllamaMessage, where: str) -> dict[str, Any]:
    if message.images:
        raise _no_images(f"{where}.images")
    fields: dict[str, Any] = {
        "role": message.role,
        "content": message.content,
        "reasoning_content": message.thinking,
        "name": message.tool_name,
        "tool_calls": [call.model_dump() for call in message.tool_calls or ()] or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _refuse_what_texts_lack(body: GenerateBody) -> None:
    if body.images:
        raise _no_images("images")
    if body.suffix:
        raise InvalidRequest(
            "suffix is not supported: the model writes only forward. Leave it out.", "suffix"
        )
    if body.template:
        raise InvalidRequest(
            "template is not supported: the model's own is used, or none with raw. Write the whole "
            "prompt yourself and set raw.",
            param="template",
        )
    if body.context:
        raise InvalidRequest(
            "context is not supported. Send the earlier turns as messages to /api/chat; what they "
            "have in common with earlier prompts is not computed again.",
            param="context",
        )


def _no_images(where: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: this model reads text only. Leave images out.", where)


def _max_tokens(options: Options) -> int | None:
    """Negative numbers mean: as many as the context holds."""
    wanted = options.num_predict
    if wanted == 0:
        raise InvalidRequest(
            "options.num_predict must be at least 1, or -1.", "options.num_predict"
        )
    return None if wanted is None or wanted < 0 else wanted


def _response_format(body: OllamaBody) -> dict[str, Any] | None:
    if not body.format:
        return None
    if isinstance(body.format, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"schema": body.format}}


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
