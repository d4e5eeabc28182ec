"""Errors as Ollama's API tells them: one sentence."""

from __future__ import annotations

from msgspec import Struct

from novacron.gateway.openai.responses import ErrorBody


class OllamaError(Struct, frozen=True):
    error: str


def ollama_error(error: ErrorBody) -> OllamaError:
    return OllamaError(error.error.message)
