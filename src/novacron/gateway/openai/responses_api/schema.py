"""What clients send to OpenAI's Responses API. Items and tools that we cannot take are refused by
name when they are read (prompt.py), not here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from novacron.gateway.dialect import OurFields
from novacron.gateway.openai.schema import Body, JsonObject, NonEmptyText, NumLogprobs


class InputPart(Body):
    type: Annotated[
        str, WithJsonSchema({"type": "string", "enum": ["input_text", "output_text", "refusal"]})
    ]
    text: str | None = None
    refusal: str | None = None


class InputItem(Body):
    """A message, a call of a function or its output; which fields count depends on `type`."""

    type: (
        Annotated[
            str,
            WithJsonSchema(
                {"type": "string", "enum": ["message", "function_call", "function_call_output"]}
            ),
        ]
        | None
    ) = None
    role: NonEmptyText | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None


class FunctionTool(Body):
    """A function of the client's. Tools that OpenAI runs have other types."""

    type: Annotated[str, WithJsonSchema({"type": "string", "const": "function"})]
    name: str | None = None
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class FunctionChoice(Body):
    type: str
    name: str | None = None


class TextFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: JsonObject | None = Field(None, alias="schema")


class TextConfig(Body):
    format: TextFormat | None = None


class InputBody(OurFields):
    """POST /v1/responses/input_tokens, and what it shares with POST /v1/responses."""

    model: str | None = None
    input: str | list[InputItem] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: JsonObject | None = None
    prompt: Any = None


class ResponsesBody(InputBody):
    """POST /v1/responses."""

    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: NumLogprobs | None = None
    include: list[str] | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
