"""FastAPI without what it puts around every request and this gateway does not use.

That is: traces by OpenTelemetry, and a limit on bodies (BodyLimit is ours).
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


class SlimFastAPI(FastAPI):
    """Routes, schemas and handlers of errors as ever; around them, only `middleware`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Starlette.__call__(self, scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        return Starlette.build_middleware_stack(self)
