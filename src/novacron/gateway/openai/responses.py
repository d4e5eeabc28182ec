"""What the OpenAI endpoints answer: msgspec records, because one is built and encoded per token.

Absent values are left out of chunks (UNSET) where OpenAI leaves them out, and null where it sends
null, so that clients with strict types are content.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class Usage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class FunctionCallDelta(Struct, frozen=True):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, frozen=True):
    """A piece of a tool call: the first one of a call has its id, type and name."""

    index: int
    function: FunctionCallDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class FunctionCall(Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(Struct, frozen=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class Logprobs(Struct, frozen=True):
    """Those of a chat (`content`) or of a completion (`tokens`, `token_logprobs`, ...)."""


class ChatLogprobs(Logprobs, frozen=True):
    content: tuple[TokenLogprob, ...]
    refusal: None = None


class PromptLogprob(Struct, frozen=True):
    logprob: float
    decoded_token: str


# One per prompt token, by token id; the first token has none. The extension is vLLM's.
PromptLogprobs = tuple[dict[str, PromptLogprob] | None, ...]


class ChatMessage(Struct, frozen=True):
    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    index: int
    message: ChatMessage
    finish_reason: str
    logprobs: ChatLogprobs | None = None
    stop_reason: str | int | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
    warnings: tuple[str, ...] | UnsetType = UNSET
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class ChatDelta(Struct, frozen=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: tuple[ToolCallDelta, ...] | UnsetType = UNSET


class ChatChunkChoice(Struct, frozen=True):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | UnsetType | None = UNSET


class ChatChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChatChunkChoice, ...]
    usage: Usage | UnsetType | None = UNSET


class CompletionLogprobs(Logprobs, frozen=True):
    """The first token of an echoed prompt has no log-probability."""

    text_offset: tuple[int, ...]
    token_logprobs: tuple[float | None, ...]
    tokens: tuple[str, ...]
    top_logprobs: tuple[dict[str, float] | None, ...]


class CompletionChoice(Struct, frozen=True):
    index: int
    text: str
    finish_reason: str
    logprobs: CompletionLogprobs | None = None
    stop_reason: str | int | None = None
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class Completion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage
    warnings: tuple[str, ...] | UnsetType = UNSET


class CompletionChunkChoice(Struct, frozen=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | UnsetType | None = UNSET


class CompletionChunk(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChunkChoice, ...]
    usage: Usage | UnsetType | None = UNSET


class Embedding(Struct, frozen=True):
    """`embedding` is a list of numbers, or base64 of little-endian 32-bit floats."""

    index: int
    embedding: tuple[float, ...] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage


class ModelStatus(Struct, frozen=True):
    value: str


class ModelCard(Struct, frozen=True, kw_only=True):
    """`status` as in llama.cpp's router; `max_model_len` as in vLLM, null until it is known."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "novacron"
    root: str
    parent: None = None
    max_model_len: int | None
    status: ModelStatus


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


class Tokenized(Struct, frozen=True):
    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class Detokenized(Struct, frozen=True):
    prompt: str


class ErrorDetail(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str | None


class LoadingProgress(Struct, frozen=True):
    """How far the start of the model is, beside an error that it causes. As LocalAI does."""

    phase: str
    progress: float


class ErrorBody(Struct, frozen=True):
    error: ErrorDetail
    loading: LoadingProgress | UnsetType = UNSET


encode = msgspec.json.Encoder().encode
