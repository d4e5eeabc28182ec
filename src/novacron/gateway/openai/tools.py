"""Tool calls of a chat, in OpenAI's words: what the prompt shows, what is forced, what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from novacron.engine.tokenization import Tokenizer
from novacron.errors import InvalidRequest
from novacron.gateway import tool_calls
from novacron.gateway.openai.responses import (
    ChatDelta,
    ChatMessage,
    FunctionCall,
    FunctionCallDelta,
    ToolCall,
    ToolCallDelta,
)
from novacron.gateway.openai.schema import ChatBody
from novacron.records.request import StructuredOutput


@dataclass(frozen=True)
class ToolUse:
    """How one chat may call functions. `tools` are for the prompt."""

    form: tool_calls.ToolCallForm
    tools: Sequence[Mapping[str, object]]
    constraint: StructuredOutput | None
    parallel: bool


def tool_use(body: ChatBody, tokenizer: Tokenizer) -> ToolUse | None:
    """None if the chat has no tools, or may not use them: then the prompt does not show them.

    Raises InvalidRequest if the model's template does not teach a form of call that we know.
    """
    choice = body.tool_choice or "auto"
    if not body.tools:
        if choice not in ("auto", "none"):
            raise InvalidRequest("tool_choice asks for a call, but there are no tools.", "tools")
        return None
    if choice == "none":
        return None
    form = tool_calls.detect_form(tokenizer.chat_template_source(has_tools=True))
    if form is None:
        raise InvalidRequest(
            "This model's chat template does not teach a form of tool calls known here (Hermes or "
            "Llama 3). Leave out tools, or start the server with --chat-template FILE.",
            param="tools",
        )
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
    parallel = body.parallel_tool_calls is not False
    wanted = choice if isinstance(choice, str) else choice.model_dump()
    constraint = tool_calls.constraint_for(tools, wanted, form, parallel=parallel)
    return ToolUse(form, tools, constraint, parallel)


class ToolStream:
    """The deltas of one choice whose text may hold calls, with ids of `new_id`."""

    def __init__(self, use: ToolUse, new_id: Callable[[], str]) -> None:
        self._parser = tool_calls.make_parser(use.form, new_id)
        self._parallel = use.parallel
        self.num_calls = 0

    def push(self, text: str, *, finished: bool) -> list[ChatDelta]:
        found = self._parser.push(text)
        if finished:
            found += self._parser.finish()
        deltas = map(self._chat_delta, found)
        return [delta for delta in deltas if delta is not None]

    def _chat_delta(self, delta: tool_calls.Delta) -> ChatDelta | None:
        if isinstance(delta, tool_calls.ContentDelta):
            return ChatDelta(content=delta.text)
        if delta.index > 0 and not self._parallel:
            return None
        self.num_calls = delta.index + 1
        return ChatDelta(tool_calls=(_tool_call_delta(delta),))


def whole_message(text: str, use: ToolUse, new_id: Callable[[], str]) -> ChatMessage:
    content, calls = tool_calls.parse_tool_calls(text, use.form, new_id)
    if not calls:
        return ChatMessage(content)
    wanted = calls if use.parallel else calls[:1]
    return ChatMessage(
        content=content or None,
        tool_calls=tuple(
            ToolCall(call.id, FunctionCall(call.name, call.arguments)) for call in wanted
        ),
    )


def _tool_call_delta(delta: tool_calls.ToolCallDelta) -> ToolCallDelta:
    if delta.id is None:
        return ToolCallDelta(delta.index, FunctionCallDelta(arguments=delta.arguments))
    function = FunctionCallDelta(name=delta.name or UNSET, arguments=delta.arguments)
    return ToolCallDelta(delta.index, function, id=delta.id, type="function")
