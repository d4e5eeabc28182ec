"""The console at `/`: a route for each of its files. Ollama's command asks by HEAD whether a server
is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from novacron.gateway.console.pages import FILES, headers_of

_NOT_MODIFIED = 304


def console_routes() -> APIRouter:
    router = APIRouter()
    for path, file in FILES.items():
        router.add_api_route(path, _send(file), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _send(file: Path) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        content = file.read_bytes()
        headers = headers_of(file, content)
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=_NOT_MODIFIED, headers=headers)
        return Response(content, headers=headers)

    return send
