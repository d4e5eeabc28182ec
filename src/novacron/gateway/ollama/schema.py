"""What clients send to Ollama's endpoints. There, answers stream unless a body says otherwise."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from novacron.gateway.dialect import OurFields
from novacron.gateway.openai.schema import (
    Body,
    Int32,
    JsonObject,
    NonEmptyText,
    NumLogprobs,
    Seed,
    Tool,
)


class Options(Body):
    """Settings of one request. Those of a model that Ollama loads (`num_ctx`, `num_gpu`, ...) are
    settings of this server's start, and are passed over."""

    num_predict: Int32 | None = None
    temperature: Annotated[float, Field(ge=0, le=1e6)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: float | None = None
    mirostat: int | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=1e6)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Seed | None = None
    stop: str | list[NonEmptyText] | None = None


class OllamaFunctionCall(Body):
    name: str
    arguments: JsonObject = Field(default_factory=dict)


class OllamaToolCall(Body):
    function: OllamaFunctionCall


class OllamaMessage(Body):
    role: NonEmptyText
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_name: str | None = None
    tool_calls: list[OllamaToolCall] | None = None


class OllamaBody(OurFields):
    """Fields that chats and texts share."""

    model: NonEmptyText
    stream: bool | None = None
    format: Literal["", "json"] | JsonObject | None = None
    options: Options | None = None
    keep_alive: str | float | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None


class OllamaChatBody(OllamaBody):
    """POST /api/chat. Without messages it only asks whether the model is loaded."""

    messages: list[OllamaMessage] | None = None
    tools: list[Tool] | None = None


class GenerateBody(OllamaBody):
    """POST /api/generate: one prompt, written as the model's template does unless `raw`."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[Any] | None = None


class EmbedBody(OurFields):
    """POST /api/embed. `truncate` true cuts texts that are too long; else they are refused."""

    model: NonEmptyText
    input: str | list[str]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class OldEmbedBody(OurFields):
    """POST /api/embeddings, the older form for one text."""

    model: NonEmptyText
    prompt: str = ""


class ShowBody(Body):
    """POST /api/show. `name` is the older word for `model`."""

    model: str | None = None
    name: str | None = None
