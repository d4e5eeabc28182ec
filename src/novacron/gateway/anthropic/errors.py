"""Errors as Anthropic's API tells them."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from novacron.errors import NovaCronError
from novacron.gateway.error_mapping import error_body, http_error
from novacron.gateway.openai.responses import ErrorBody

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorDetail(Struct, frozen=True):
    type: str
    message: str


class AnthropicError(Struct, frozen=True):
    error: AnthropicErrorDetail
    type: Literal["error"] = "error"


def anthropic_error(status: int, error: ErrorBody) -> AnthropicError:
    """The type follows the status. The field at fault, which this shape has no place for, leads the
    message unless that names it."""
    fallback = "invalid_request_error" if status < 500 else "api_error"
    detail = error.error
    message = detail.message
    if detail.param and detail.param not in message:
        message = f"{detail.param}: {message}"
    return AnthropicError(AnthropicErrorDetail(_TYPES.get(status, fallback), message))


def raised_error(error: NovaCronError) -> AnthropicError:
    return anthropic_error(http_error(error).status, error_body(error))
