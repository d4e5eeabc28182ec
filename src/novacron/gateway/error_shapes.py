"""Errors in the shape of the dialect that the called path belongs to.

Whoever makes an error knows neither path nor dialect: all make OpenAI's, and the shape is chosen
where it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.types import Receive, Scope, Send

from novacron.gateway.anthropic.errors import anthropic_error
from novacron.gateway.json_body import JsonResponse
from novacron.gateway.ollama.errors import ollama_error
from novacron.gateway.openai.responses import ErrorBody


class ErrorResponse(JsonResponse):
    """An answer that is an error."""

    def __init__(
        self, error: ErrorBody, status_code: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error, status_code, headers)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shaped = error_in_dialect(scope.get("path", ""), self.status_code, self._error)
        if shaped is not self._error:
            self.body = msgspec.json.encode(shaped)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def error_in_dialect(path: str, status: int, error: ErrorBody) -> msgspec.Struct:
    """`error` itself where OpenAI's shape is right."""
    if path.startswith("/v1/messages"):
        return anthropic_error(status, error)
    if path.startswith("/api/") and not path.startswith("/api/v1/"):
        return ollama_error(error)
    return error
