"""Anthropic's form of a chat as a ChatBody. Pure.

A message there is a list of blocks; here, results of tools are messages of their own, and calls
stand beside the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from novacron.errors import InvalidRequest
from novacron.gateway.anthropic.schema import (
    ClientTool,
    ContentBlock,
    InputMessage,
    MessagesBody,
    PromptBody,
    TextBlock,
    ToolChoice,
)
from novacron.gateway.dialect import chat_body
from novacron.gateway.openai.schema import ChatBody

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def as_chat(body: PromptBody) -> ChatBody:
    """Raises InvalidRequest for what has no meaning for a model of text: images, documents, tools
    that run elsewhere."""
    messages = list(_messages(body))
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": messages,
        "tools": _tools(body.tools),
        "response_format": _response_format(body),
        "chat_template_kwargs": _template_kwargs(body),
    }
    if body.tool_choice is not None:
        fields["tool_choice"] = _tool_choice(body.tool_choice)
        fields["parallel_tool_calls"] = not body.tool_choice.disable_parallel_tool_use
    if messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls"):
        fields["continue_final_message"] = True  # the client has begun the answer
    if isinstance(body, MessagesBody):
        fields |= {
            "max_tokens": body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stop": body.stop_sequences,
            "user": body.metadata.user_id if body.metadata else None,
        }
    return chat_body(body, **fields)


def _messages(body: PromptBody) -> Iterator[dict[str, Any]]:
    if body.system:
        yield {"role": "system", "content": _text(body.system, "system")}
    for i, message in enumerate(body.messages):
        where = f"messages.{i}.content"
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif message.role == "assistant":
            yield _assistant_message(message.content, where)
        else:
            yield from _other_messages(message, message.content, where)


def _assistant_message(blocks: Sequence[ContentBlock], where: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for i, block in enumerate(blocks):
        match block.type:
            case "text":
                texts.append(block.text or "")
            case "thinking":
                thoughts.append(block.thinking or "")
            case "redacted_thinking":
                pass  # only its author could read it
            case "tool_use":
                calls.append(
                    {
                        "id": block.id,
                        "function": {"name": block.name or "", "arguments": block.input or {}},
                    }
                )
            case _:
                raise _not_taken(block.type, f"{where}.{i}")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _other_messages(
    message: InputMessage, blocks: Sequence[ContentBlock], where: str
) -> Iterator[dict[str, Any]]:
    """Text that stands together is one message, each result of a tool is one."""
    texts: list[str] = []
    for i, block in enumerate(blocks):
        match block.type:
            case "text":
                texts.append(block.text or "")
            case "tool_result":
                if texts:
                    yield {"role": message.role, "content": "\n".join(texts)}
                    texts = []
                yield _tool_result(block, f"{where}.{i}")
            case _:
                raise _not_taken(block.type, f"{where}.{i}")
    if texts or not blocks:
        yield {"role": message.role, "content": "\n".join(texts)}


def _tool_result(block: ContentBlock, where: str) -> dict[str, Any]:
    text = _text(block.content or "", f"{where}.content")
    if block.is_error:
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}


def _text(content: str | Sequence[TextBlock], where: str) -> str:
    if isinstance(content, str):
        return content
    for i, block in enumerate(content):
        if block.type != "text":
            raise _not_taken(block.type, f"{where}.{i}")
    return "\n".join(block.text or "" for block in content)


def _not_taken(kind: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} is a block of type {kind[:40]!r}, which is not taken here. This model reads "
        "text: send text, tool_use (assistant) and tool_result (user) blocks.",
        param=where,
    )


def _tools(tools: Sequence[ClientTool] | None) -> list[dict[str, Any]] | None:
    if tools is None:
        return None
    for i, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            raise InvalidRequest(
                f"tools.{i} is of type {tool.type[:40]!r}, a tool that Anthropic runs. This server "
                "runs none: describe tools of your own, with name and input_schema.",
                param=f"tools.{i}.type",
            )
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
            },
        }
        for tool in tools
    ]


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if not choice.name:
        raise InvalidRequest("tool_choice of type tool needs a name.", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _response_format(body: PromptBody) -> dict[str, Any] | None:
    wanted = (body.output_config and body.output_config.format) or body.output_format
    if wanted is None:
        return None
    return {"type": "json_schema", "json_schema": {"schema": wanted.json_schema}}


def _template_kwargs(body: PromptBody) -> dict[str, Any] | None:
    """By the name that templates of models with two modes have for it; others do not read it."""
    if body.thinking is None:
        return None
    return {"enable_thinking": body.thinking.type != "disabled"}
