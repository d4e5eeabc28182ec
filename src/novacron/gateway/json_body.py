"""JSON in and out: strict decoding of bodies, and responses made of records."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from inspect import signature
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

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
    """A route whose body is read by StrictJsonRequest.

    An endpoint that asks for nothing but a body and the request is called without FastAPI's solving
    of dependencies and what it opens for them, which takes as long as all else that we do for a
    short call. What it raises goes to the handlers of the application.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        direct = _direct_handler(self)
        if direct is not None:
            self.app = _application(direct)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictJsonRequest(request.scope, request.receive))

        return handle_strictly


def _application(handle: Callable[[StrictJsonRequest], Coroutine[Any, Any, Response]]) -> ASGIApp:
    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(StrictJsonRequest(scope, receive))
        await response(scope, receive, send)

    return run


def _direct_handler(
    route: APIRoute,
) -> Callable[[StrictJsonRequest], Coroutine[Any, Any, Response]] | None:
    """Validates the body and calls the endpoint; None if the endpoint asks for other things."""
    asked = route.dependant
    model = asked.body_params[0].field_info.annotation if len(asked.body_params) == 1 else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None
    body_name, request_name = asked.body_params[0].name, asked.request_param_name
    parameters = signature(route.endpoint).parameters
    if request_name is None or set(parameters) != {body_name, request_name}:
        return None

    async def handle(request: StrictJsonRequest) -> Response:
        is_there = await request.body() and _is_json(request)
        content = await request.json() if is_there else None
        try:
            body = model.model_validate(content)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            located = [{**problem, "loc": ("body", *problem["loc"])} for problem in problems]
            raise RequestValidationError(located) from None
        response: Response = await route.endpoint(**{body_name: body, request_name: request})
        return response

    return handle


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type.startswith("application/") and media_type.endswith(("/json", "+json"))
