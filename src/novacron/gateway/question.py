"""The question of a chat, and a digest of everything around it. Pure.

Answers may stand for each other only if all around the question is equal: system prompt, earlier
turns, tools, format, limits, and how tokens are chosen. What is not listed here as without effect
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import blake3
import msgspec

from novacron.gateway.openai.schema import ChatBody

_CONTEXT: Final = "novacron 2026-11 what stands around a question"
_WITHOUT_EFFECT: Final = {
    "model", "stream", "stream_options", "user", "priority", "session_id", "seed", "cache_scope",
    "request_id", "background", "batch_size", "quantization", "quality_preference",
    "slo_class", "ttft_slo", "tpot_slo", "metadata",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    text: str
    around: bytes


def question_of(body: ChatBody) -> Question | None:
    """None for a chat whose last message is not the text of a user, or that wants more than one
    answer."""
    last = body.messages[-1]
    if last.role != "user" or not isinstance(last.content, str) or (body.n or 1) > 1:
        return None
    told = body.model_dump(mode="json", exclude=_WITHOUT_EFFECT, exclude_none=True, by_alias=True)
    told["messages"][-1]["content"] = ""
    data = msgspec.json.encode(told, order="sorted")
    return Question(last.content, blake3.blake3(data, derive_key_context=_CONTEXT).digest())
