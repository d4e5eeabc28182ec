"""The Responses API's form of a conversation as a ChatBody. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from novacron.errors import InvalidRequest
from novacron.gateway.dialect import chat_body
from novacron.gateway.openai.responses_api.schema import (
    FunctionTool,
    InputBody,
    InputItem,
    InputPart,
    ResponsesBody,
)
from novacron.gateway.openai.schema import ChatBody

Message = dict[str, Any]

_SYSTEM = ("system", "developer")
LOGPROBS = "message.output_text.logprobs"  # of `include`


def as_chat(body: InputBody, messages: Sequence[Message]) -> ChatBody:
    """`messages` are those of the whole conversation, see `messages_of`. Raises InvalidRequest."""
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": _with_instructions(body.instructions, messages),
        "tools": _tools(body.tools),
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _response_format(body),
    }
    if isinstance(body, ResponsesBody):
        wants_logprobs = LOGPROBS in (body.include or ())
        fields |= {
            "max_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "user": body.user,
            "logprobs": wants_logprobs,
            "top_logprobs": body.top_logprobs if wants_logprobs else None,
        }
    return chat_body(body, **fields)


def refuse_what_is_not_here(body: InputBody) -> None:
    """Raises InvalidRequest for what would need things that this server does not keep or run."""
    if isinstance(body, ResponsesBody) and body.background:
        raise InvalidRequest(
            "background responses are not supported. Leave background out, and read the stream; "
            "the native API (/api/v1/llm/chat/completions) has background calls.",
            param="background",
        )
    if body.conversation is not None:
        raise InvalidRequest(
            "Conversations are not kept here. Send the items as input, or previous_response_id.",
            param="conversation",
        )
    if body.prompt is not None:
        raise InvalidRequest(
            "Prompt templates are not kept here. Send instructions and input.", param="prompt"
        )


def messages_of(body: InputBody) -> list[Message]:
    """The input as messages of a chat: calls join the assistant's message before them."""
    if isinstance(body.input, str):
        return [{"role": "user", "content": body.input}] if body.input else []
    messages: list[Message] = []
    for i, item in enumerate(body.input):
        where = f"input.{i}"
        match item.type or "message":
            case "message":
                messages.append(_message(item, where))
            case "function_call":
                _add_call(messages, item)
            case "function_call_output":
                content = _text(item.output or "", f"{where}.output")
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": content})
            case "reasoning":
                pass  # written for its author's eyes
            case other:
                raise InvalidRequest(
                    f"{where} is of type {other[:40]!r}, which is not taken here: send messages, "
                    "function_call and function_call_output items.",
                    param=where,
                )
    return messages


def _message(item: InputItem, where: str) -> Message:
    if item.role is None:
        raise InvalidRequest(f"{where} has neither a role nor a type.", param=where)
    return {"role": item.role, "content": _text(item.content or "", f"{where}.content")}


def _add_call(messages: list[Message], item: InputItem) -> None:
    call = {
        "id": item.call_id,
        "function": {"name": item.name or "", "arguments": item.arguments or ""},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _text(content: str | Sequence[InputPart], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        if part.type not in ("input_text", "output_text", "text", "refusal"):
            raise InvalidRequest(
                f"{where}.{i} is of type {part.type[:40]!r}. This model takes text only: send "
                "parts of type input_text.",
                param=f"{where}.{i}",
            )
        texts.append(part.text or part.refusal or "")
    return "\n".join(texts)


def _with_instructions(instructions: str | None, messages: Sequence[Message]) -> list[Message]:
    """One system message at the front, which is all that many templates know."""
    num_leading = next(
        (i for i, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages)
    )
    texts = [instructions] if instructions else []
    texts += [message["content"] for message in messages[:num_leading]]
    if num_leading == len(messages):
        raise InvalidRequest(
            "input is empty: send a text, or items with a message of the user.", param="input"
        )
    system = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return system + list(messages[num_leading:])


def _tools(tools: Sequence[FunctionTool] | None) -> list[dict[str, Any]] | None:
    if tools is None:
        return None
    for i, tool in enumerate(tools):
        if tool.type != "function":
            raise InvalidRequest(
                f"tools.{i} is of type {tool.type[:40]!r}, a tool that OpenAI runs. This server "
                "runs none: describe functions of your own.",
                param=f"tools.{i}.type",
            )
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in tools
    ]


def _tool_choice(body: InputBody) -> str | dict[str, Any] | None:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice if body.tools else None
    if choice.type != "function" or not choice.name:
        raise InvalidRequest(
            f"tool_choice of type {choice.type[:40]!r} is not supported: give none, auto, required "
            'or {"type": "function", "name": "..."}.',
            param="tool_choice",
        )
    return {"type": "function", "function": {"name": choice.name}}


def _response_format(body: InputBody) -> dict[str, Any] | None:
    wanted = body.text.format if body.text else None
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.json_schema is None:
        raise InvalidRequest(
            "text.format of type json_schema needs a schema.", param="text.format.schema"
        )
    return {"type": "json_schema", "json_schema": {"schema": wanted.json_schema}}
