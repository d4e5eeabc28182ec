"""What the dialects share: each makes a ChatBody of its own body, and all further on is one path.

A ChatBody is OpenAI's form of a chat, and the only one that is turned into Requests (openai/chat).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from novacron.errors import InvalidRequest
from novacron.gateway.cache_scope import CacheSharing
from novacron.gateway.openai.schema import Body, ChatBody, Int32, Seed
from novacron.gateway.precision import PrecisionWish
from novacron.gateway.validation import describe_validation


class OurFields(Body):
    """Fields that no dialect has and each one takes. For what they mean see GenerationBody."""

    seed: Seed | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    priority: Int32 | None = None
    cache_salt: str | None = None
    cache_scope: CacheSharing | None = None
    session_id: str | None = None
    quantization: str | None = None
    quality_preference: str | float | None = None

    @property
    def wish(self) -> PrecisionWish:
        return PrecisionWish(self.quantization, self.quality_preference)


def chat_body(body: OurFields, **fields: Any) -> ChatBody:
    """`fields` of a ChatBody, with our own ones of `body`.

    Raises InvalidRequest for what a ChatBody does not take, in the words of its fields.
    """
    ours = {name: getattr(body, name) for name in OurFields.model_fields}
    try:
        return ChatBody.model_validate(ours | fields)
    except ValidationError as error:
        message, param = describe_validation(error.errors())
        raise InvalidRequest(message, param) from error
