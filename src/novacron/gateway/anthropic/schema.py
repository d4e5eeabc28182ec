"""What clients send to Anthropic's endpoints. Blocks that we cannot take are refused by name when
they are read (prompt.py), not here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from novacron.gateway.dialect import OurFields
from novacron.gateway.openai.schema import Body, JsonObject, NonEmptyText

KindOfBlock = Annotated[
    str,
    WithJsonSchema({"type": "string", "enum": ["text", "tool_use", "tool_result", "thinking"]}),
]


class TextBlock(Body):
    type: Annotated[str, WithJsonSchema({"type": "string", "const": "text"})]
    text: str | None = None


class ContentBlock(Body):
    """Which fields count depends on `type`."""

    type: KindOfBlock
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: JsonObject | None = None
    tool_use_id: str | None = None
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


class InputMessage(Body):
    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class ClientTool(Body):
    """A tool that the client runs. Those that a provider runs have other types."""

    name: str
    type: Annotated[str, WithJsonSchema({"type": "string", "const": "custom"})] | None = None
    description: str | None = None
    input_schema: JsonObject | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonObject = Field(alias="schema")


class OutputConfig(Body):
    format: OutputFormat | None = None


class Thinking(Body):
    type: str


class Metadata(Body):
    user_id: str | None = None


class PromptBody(OurFields):
    """POST /v1/messages/count_tokens, and what it shares with POST /v1/messages."""

    model: str
    messages: Annotated[list[InputMessage], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None  # the older place


class MessagesBody(PromptBody):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)]
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: list[NonEmptyText] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
