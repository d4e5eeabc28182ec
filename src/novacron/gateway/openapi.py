"""Answers in the OpenAPI document: msgspec records beside FastAPI's pydantic models."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from novacron.gateway.openai.responses import ErrorBody

Responses = dict[int | str, dict[str, Any]]

# Apart from the bodies that clients send, some of which have the same names.
_PREFIX = "Reply."
_REF_TEMPLATE = f"#/components/schemas/{_PREFIX}{{name}}"


class AnswerSchemas:
    """Collects the records that routes answer with, then describes them all at once."""

    def __init__(self) -> None:
        self._records: list[type[msgspec.Struct]] = [ErrorBody]

    def answers(
        self,
        record: type[msgspec.Struct],
        *,
        streams: bool | str = False,
        status: int = 200,
        error: type[msgspec.Struct] = ErrorBody,
    ) -> Responses:
        """The `responses` of a route that answers with `record` or an error.

        `streams`: server-sent events, or the media type that is named, if the client asks for them.
        """
        answer = self._answer(record)
        if streams:
            media_type = streams if isinstance(streams, str) else "text/event-stream"
            answer["content"][media_type] = {"schema": {"type": "string"}}
        return {status: answer, **self.errors(error)}

    def probe(self, record: type[msgspec.Struct]) -> Responses:
        """The `responses` of a route that says `record` whether things are well (200) or not."""
        return {**self.errors(), 200: self._answer(record), 503: self._answer(record)}

    def errors(self, record: type[msgspec.Struct] = ErrorBody) -> Responses:
        """Any route: every error has the shape of its dialect, OpenAI's unless given."""
        self._records.append(record)
        error = {"application/json": {"schema": _ref(record)}}
        retry_after = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        return {
            400: {"description": "The request must be changed", "content": error},
            503: {
                "description": "Loading, draining, or the queue is full: retry later",
                "headers": retry_after,
                "content": error,
            },
            "default": {"description": "Any other error", "content": error},
        }

    def install(self, app: FastAPI) -> None:
        """Make app.openapi() tell of the records as well."""
        generate = app.openapi

        def with_answers() -> dict[str, Any]:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(self._components())
            return document

        app.openapi = with_answers  # type: ignore[method-assign]

    def _answer(self, record: type[msgspec.Struct]) -> dict[str, Any]:
        self._records.append(record)
        return {
            "description": (record.__doc__ or record.__name__).strip().split("\n")[0],
            "content": {"application/json": {"schema": _ref(record)}},
        }

    def _components(self) -> dict[str, Any]:
        _, components = msgspec.json.schema_components(
            dict.fromkeys(self._records), ref_template=_REF_TEMPLATE
        )
        return {_PREFIX + name: schema for name, schema in components.items()}


def _ref(record: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF_TEMPLATE.format(name=record.__name__)}
