"""What Ollama's endpoints answer. Durations are in nanoseconds, times RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from novacron.gateway.openai.responses import TokenLogprob


class OllamaCalledFunction(Struct, frozen=True):
    name: str
    arguments: dict[str, Any]


class OllamaCall(Struct, frozen=True):
    function: OllamaCalledFunction


class OllamaAnswerMessage(Struct, frozen=True):
    content: str
    role: str = "assistant"
    tool_calls: tuple[OllamaCall, ...] | UnsetType = UNSET


class OllamaAnswer(Struct, frozen=True, kw_only=True):
    """An answer, or a line of one that streams. Counts and durations stand in the last line."""

    model: str
    created_at: str
    message: OllamaAnswerMessage | UnsetType = UNSET  # of a chat
    response: str | UnsetType = UNSET  # of a text
    logprobs: tuple[TokenLogprob, ...] | UnsetType = UNSET
    done: bool
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaEmbeddings(Struct, frozen=True, kw_only=True):
    model: str
    embeddings: tuple[tuple[float, ...], ...]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaEmbedding(Struct, frozen=True):
    embedding: tuple[float, ...]


class OllamaDetails(Struct, frozen=True, kw_only=True):
    parent_model: str = ""
    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization_level: str


class OllamaModel(Struct, frozen=True, kw_only=True):
    """Of a model that is not loaded yet, size and details are not known."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaModels(Struct, frozen=True):
    models: tuple[OllamaModel, ...]


class OllamaRunningModel(Struct, frozen=True, kw_only=True):
    name: str
    model: str
    size: int
    size_vram: int
    digest: str
    details: OllamaDetails
    context_length: int
    expires_at: str


class OllamaRunningModels(Struct, frozen=True):
    models: tuple[OllamaRunningModel, ...]


class OllamaModelFacts(Struct, frozen=True, kw_only=True):
    modelfile: str = ""
    parameters: str = ""
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: tuple[str, ...]
    modified_at: str


class OllamaVersion(Struct, frozen=True):
    version: str


_encode = msgspec.json.Encoder().encode


def line(record: Struct) -> bytes:
    return _encode(record) + b"\n"


def rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")
