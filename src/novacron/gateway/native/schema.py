"""What clients send to the native endpoints: OpenAI's bodies, with the seeds' fields and names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema

from novacron.config.key_shares import PRIORITIES
from novacron.gateway.openai.schema import (
    Body,
    ChatBody,
    CompletionBody,
    GenerationBody,
    Int32,
    JsonObject,
    NonEmptyText,
)

RequestIdText = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


def priority_number(priority: Any) -> Any:
    """Names as numbers; everything else as it is. The lower number runs earlier, as in vLLM."""
    if isinstance(priority, str):
        return PRIORITIES.get(priority.lower(), priority)
    return priority


Priority = Annotated[
    Int32,
    BeforeValidator(priority_number),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": list(PRIORITIES)},
                {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
            ],
            "description": f"{PRIORITIES}; the lower number runs earlier",
        }
    ),
]


class NativeFields(GenerationBody):
    """The seeds' fields that OpenAI does not have, and their names for those that it has.

    `background`: run to the end though no client listens; the stream can be read later.
    `batch_size` has no effect: batching is the server's decision.
    """

    model: str | None = Field(
        None,
        validation_alias=AliasChoices("model", "model_id"),
        description="also accepted: model_id",
    )
    stop: str | list[NonEmptyText] | None = Field(
        None,
        validation_alias=AliasChoices("stop", "stop_sequences"),
        description="also accepted: stop_sequences",
    )
    priority: Priority | None = None

    request_id: RequestIdText | None = None
    background: bool | None = None
    batch_size: int | None = None


class NativeChatBody(NativeFields, ChatBody):
    """POST /api/v1/llm/chat/completions."""


class NativeCompletionBody(NativeFields, CompletionBody):
    """POST /api/v1/llm/completions."""


class BatchBody(Body):
    """POST /api/v1/llm/batch/completions: chats (with `messages`) and completions (with `prompt`).

    Each is checked by itself, so that one that is wrong does not take the others along. `defaults`
    are fields for all that do not say otherwise.
    """

    requests: Annotated[list[JsonObject], Field(min_length=1, max_length=1024)]
    defaults: JsonObject = Field(default_factory=dict)


class LoadBody(Body):
    """POST /api/v1/llm/models/{id}/load. What the running server cannot change is reported back
    as ignored."""

    quantization: str | None = None
    worker_count: int | None = None
    performance_profile: Literal["latency", "throughput", "balanced"] | str | None = None


class DrainBody(Body):
    """POST /api/v1/llm/cluster/workers/{id}/drain. `timeout`: seconds for what runs to end, empty:
    shutdown_timeout; `restart`: start the replica anew afterwards; `force`: also the last one;
    `wait`: answer when it is done, else at once."""

    timeout: Annotated[float, Field(ge=0, le=1e6)] | None = None
    restart: bool = False
    force: bool = False
    wait: bool = True


class ResumeBody(Body):
    """POST /api/v1/llm/cluster/workers/{id}/resume. `wait`: answer when it is ready."""

    wait: bool = True


class ScaleBody(Body):
    """POST /api/v1/llm/cluster/scale. `replica_count`, or `worker_count`, which counts every rank
    of each. `timeout`: seconds for what runs on replicas that go to end, empty: shutdown_timeout;
    `wait`: answer when it is done, else at once."""

    replica_count: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    worker_count: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    timeout: Annotated[float, Field(ge=0, le=1e6)] | None = None
    wait: bool = True
