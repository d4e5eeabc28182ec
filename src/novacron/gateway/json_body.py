"""JSON in and out: strict decoding of bodies, and responses made of records."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from novacron.errors import InvalidRequest

_encode = msgspec.json.Encoder().encode


class JsonResponse(Response):
    """A record as JSON."""

    media_type = "application/json"

    def __init__(
        self,
        content: msgspec.Struct,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(_encode(content), status_code, headers)


class StrictJsonRequest(Request):
    """Decodes its body with msgspec: faster, and without NaN or half surrogate pairs, which no
    layer behind could encode again."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"The body is not valid JSON: {error}.") from error


class StrictJsonRoute(APIRoute):
    """A route whose body is read by StrictJsonRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictJsonRequest(request.scope, request.receive))

        return handle_strictly
