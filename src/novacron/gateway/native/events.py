"""What the native endpoints answer and stream: the seeds' records."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from novacron.gateway.openai.responses import (
    ChatDelta,
    ChatMessage,
    ErrorDetail,
    Logprobs,
    Usage,
)

EventType = Literal["token", "metadata", "error", "complete", "health"]


class ModelInfo(Struct, frozen=True, kw_only=True):
    id: str
    architecture: str
    version: str
    dtype: str
    quantization: str
    device: str
    max_model_len: int
    num_parameters: int


class Performance(Struct, frozen=True, kw_only=True):
    """Times of one call; null where the engine did not tell. Rates count generated tokens."""

    queue_time_ms: float | None
    time_to_first_token_ms: float | None
    total_time_ms: float
    tokens_per_second: float


class NativeChoice(Struct, frozen=True, kw_only=True):
    """`message` for chats; `text` for both."""

    index: int
    text: str
    message: ChatMessage | UnsetType = UNSET
    finish_reason: str
    stop_reason: str | int | None = None
    logprobs: Logprobs | None = None


class InferenceResponse(Struct, frozen=True, kw_only=True):
    """A chat or a completion, with everything OpenAI's clients look for, too. `warnings` are wishes
    that the variant which answered does not meet, in sentences."""

    request_id: str
    session_id: str | None = None
    id: str
    object: str
    created: int
    model: str
    choices: tuple[NativeChoice, ...]
    usage: Usage
    model_info: ModelInfo
    performance: Performance
    warnings: tuple[str, ...] = ()


class Accepted(Struct, frozen=True):
    """A call that runs in the background, and where its events are."""

    request_id: str
    stream_url: str
    status: Literal["accepted"] = "accepted"


class Cancelled(Struct, frozen=True):
    request_id: str
    status: Literal["cancelled"] = "cancelled"


class MetadataData(Struct, frozen=True, kw_only=True):
    """First event of a stream: what will be generated."""

    object: str
    model: str
    created: int
    session_id: str | None
    num_choices: int
    prompt_tokens: int


class TokenData(Struct, frozen=True, kw_only=True):
    """A piece of one choice; `delta` in OpenAI's form for chats, `text` for both."""

    index: int
    text: str
    delta: ChatDelta | UnsetType = UNSET
    logprobs: Logprobs | UnsetType | None = UNSET
    finish_reason: str | UnsetType | None = UNSET


class FinishedChoice(Struct, frozen=True):
    index: int
    finish_reason: str
    stop_reason: str | int | None


class CompleteData(Struct, frozen=True):
    """Last event of a stream that went well. `warnings` as in InferenceResponse."""

    choices: tuple[FinishedChoice, ...]
    usage: Usage
    performance: Performance
    warnings: tuple[str, ...] = ()


class HealthData(Struct, frozen=True):
    """Sent on a silent stream, so that clients know it lives. Has the number of the next event."""

    status: str
    requests_running: int
    requests_waiting: int


EventData = MetadataData | TokenData | CompleteData | HealthData | ErrorDetail


class StreamEvent(Struct, frozen=True):
    """`timestamp` is Unix time in milliseconds."""

    type: EventType
    request_id: str
    sequence_number: int
    timestamp: int
    data: EventData


class BatchResult(Struct, frozen=True, kw_only=True):
    """One request's outcome: `response` or `error`, never both."""

    index: int
    request_id: str | None
    status: Literal["completed", "failed"]
    response: InferenceResponse | None = None
    error: ErrorDetail | None = None


class BatchResponse(Struct, frozen=True, kw_only=True):
    """The results in the order of the requests."""

    batch_id: str
    num_completed: int
    num_failed: int
    results: tuple[BatchResult, ...]


encode = msgspec.json.Encoder().encode
