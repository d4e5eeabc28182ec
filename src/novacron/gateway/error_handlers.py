"""Turns whatever a route raises into an answer in the error shape of the path."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from novacron.engine.client import EngineClient, EngineState
from novacron.errors import NovaCronError
from novacron.gateway.error_mapping import (
    error_body,
    error_headers,
    http_error,
    other_error_body,
)
from novacron.gateway.error_shapes import ErrorResponse
from novacron.gateway.openai.responses import LoadingProgress
from novacron.gateway.validation import describe_validation

_CLIENT_GONE = 499  # nginx's; nobody reads it but the access log


def error_response(error: NovaCronError, loading: LoadingProgress | None = None) -> Response:
    return ErrorResponse(error_body(error, loading), http_error(error).status, error_headers(error))


def install_error_handlers(app: FastAPI, client: EngineClient) -> None:
    """While `client` is loading, errors tell how far it is."""

    def loading() -> LoadingProgress | None:
        if client.state is not EngineState.LOADING:
            return None
        return LoadingProgress(*client.loading_progress)

    async def novacron_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, NovaCronError)
        status = http_error(error).status
        return error_response(error, loading() if status == 503 else None)

    async def framework_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, NovaCronError):  # raised while the body was read
            return error_response(error.__cause__)
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"There is no {request.method} {request.url.path} here; /docs lists all."
        body = other_error_body(error.status_code, message)
        return ErrorResponse(body, error.status_code, error.headers)

    async def invalid_body(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        message, param = describe_validation(error.errors())
        return ErrorResponse(other_error_body(400, message, param), 400)

    async def client_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def bug(request: Request, error: Exception) -> Response:
        message = "The server failed in an unexpected way; its log says how."
        return ErrorResponse(other_error_body(500, message), 500)

    app.add_exception_handler(NovaCronError, novacron_error)
    app.add_exception_handler(HTTPException, framework_error)
    app.add_exception_handler(RequestValidationError, invalid_body)
    app.add_exception_handler(ClientDisconnect, client_gone)
    app.add_exception_handler(Exception, bug)
