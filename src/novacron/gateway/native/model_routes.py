"""The native endpoints of the model: what it is, and loading and unloading it."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter
from starlette.responses import Response

from novacron.engine.client import EngineClient, EngineState
from novacron.errors import NovaCronError
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native import status
from novacron.gateway.native.schema import LoadBody
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service

_ACCEPTED = 202

logger = logging.getLogger(__name__)


class ModelLoader:
    """Loads and unloads in the background: either takes longer than a client should wait."""

    def __init__(self, client: EngineClient, drain_timeout_s: float) -> None:
        self._client = client
        self._drain_timeout_s = drain_timeout_s
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        if self._client.state is EngineState.UNLOADED:
            self._task = asyncio.create_task(self._until_done(load=True))

    def unload(self) -> None:
        if self._client.state in (EngineState.READY, EngineState.LOADING):
            self._task = asyncio.create_task(self._until_done(load=False))

    async def _until_done(self, *, load: bool) -> None:
        """Failures show as the model's status; the log has the reason."""
        try:
            if load:
                await self._client.load()
            else:
                await self._client.unload(self._drain_timeout_s)
        except NovaCronError as error:
            logger.error("%s", error)


def model_routes(service: Service, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(prefix="/api/v1/llm", tags=["Native"], route_class=StrictJsonRoute)
    loader = ModelLoader(service.client, service.config.shutdown_timeout)

    @router.get(
        "/models", response_class=Response, responses=schemas.answers(status.NativeModelList)
    )
    async def list_models() -> Response:
        """The names under which the model is served, and whether it is loaded."""
        return JsonResponse(status.native_models(service))

    load_answers = {
        **schemas.answers(status.LoadAnswer),
        _ACCEPTED: schemas.answers(status.LoadAnswer)[200],
    }

    @router.post("/models/{model_id:path}/load", response_class=Response, responses=load_answers)
    async def load_model(model_id: str, body: LoadBody | None = None) -> Response:
        """Bring the model back into memory. 200 if it is there, 202 while it loads."""
        name, _ = service.model.resolve(model_id)  # its variants are loaded together
        loader.load()
        await asyncio.sleep(0)
        ignored = () if body is None else tuple(body.model_dump(exclude_none=True))
        answer = status.LoadAnswer(name, service.model.status, ignored)
        return JsonResponse(answer, 200 if answer.status == "loaded" else _ACCEPTED)

    async def unload_model(model_id: str) -> Response:
        """Finish running requests, then free the model's memory. 202 until it is done."""
        name, _ = service.model.resolve(model_id)
        loader.unload()
        await asyncio.sleep(0)
        answer = status.LoadAnswer(name, service.model.status)
        return JsonResponse(answer, 200 if answer.status == "unloaded" else _ACCEPTED)

    for path, method in (("/unload", "POST"), ("/unload", "DELETE"), ("", "DELETE")):
        router.add_api_route(
            f"/models/{{model_id:path}}{path}",
            unload_model,
            methods=[method],
            response_class=Response,
            responses=load_answers,
        )

    @router.get(
        "/models/{model_id:path}",
        response_class=Response,
        responses=schemas.answers(status.NativeModel),
    )
    async def show_model(model_id: str) -> Response:
        """One of the names."""
        return JsonResponse(status.native_model(service, model_id))

    return router
