"""The native endpoints that take a replica out of service and bring it back."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Sequence
from typing import Final

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from novacron.engine.client import DrainOptions, ReplicaStatus
from novacron.errors import InvalidRequest, NovaCronError
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native.schema import DrainBody, ResumeBody, ScaleBody
from novacron.gateway.native.status import Replica, replica
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service

_ACCEPTED: Final = 202
_RANK: Final = re.compile(r"-rank-\d+$")

logger = logging.getLogger(__name__)


class DrainAnswer(Struct, frozen=True, kw_only=True):
    """`finished`: all that ran there has ended by itself; null while that is not known."""

    replica: Replica
    finished: bool | None


def cluster_routes(service: Service, schemas: AnswerSchemas) -> APIRouter:
    router = APIRouter(
        prefix="/api/v1/llm/cluster/workers", tags=["Native"], route_class=StrictJsonRoute
    )
    operations = Operations()
    answers = {
        **schemas.answers(DrainAnswer),
        _ACCEPTED: schemas.answers(DrainAnswer)[200],
    }

    def answer(replica_id: str, finished: bool | None, *, waited: bool) -> Response:
        found = next(one for one in service.client.replicas if one.replica_id == replica_id)
        body = DrainAnswer(replica=replica(found), finished=finished)
        return JsonResponse(body, 200 if waited else _ACCEPTED)

    @router.post("/{worker_id}/drain", response_class=Response, responses=answers)
    async def drain(worker_id: str, request: Request, body: DrainBody | None = None) -> Response:
        """Send a replica no new work, let it finish, and end its process; with `restart` start it
        anew. 409 for the last one that is ready, unless forced."""
        service.caller(request).require_operator("Draining a replica")
        body = body or DrainBody()
        replica_id = _RANK.sub("", worker_id)
        timeout_s = service.config.shutdown_timeout if body.timeout is None else body.timeout
        options = DrainOptions(restart=body.restart, force=body.force)
        task = operations.start(service.client.drain_replica(replica_id, timeout_s, options))
        finished = await operations.outcome(task, wait=body.wait)
        return answer(replica_id, finished, waited=body.wait)

    @router.post("/{worker_id}/resume", response_class=Response, responses=answers)
    async def resume(worker_id: str, request: Request, body: ResumeBody | None = None) -> Response:
        """Start a replica that was drained, or that died too often."""
        service.caller(request).require_operator("Resuming a replica")
        wait = body is None or body.wait
        replica_id = _RANK.sub("", worker_id)
        task = operations.start(service.client.resume_replica(replica_id))
        await operations.outcome(task, wait=wait)
        return answer(replica_id, None, waited=wait)

    return router


def wanted_replicas(body: ScaleBody, replicas: Sequence[ReplicaStatus]) -> int:
    """Raises InvalidRequest if it does not say how many, or names workers that make no replica."""
    if (body.replica_count is None) == (body.worker_count is None):
        raise InvalidRequest("Give replica_count or worker_count, and not both.", "replica_count")
    if body.worker_count is None:
        assert body.replica_count is not None
        return body.replica_count
    num_ranks = max((len(one.rank_pids) for one in replicas), default=0) + 1
    if body.worker_count % num_ranks:
        raise InvalidRequest(
            f"worker_count is {body.worker_count}, and each replica has {num_ranks} workers: give "
            "a multiple of it, or replica_count.",
            "worker_count",
        )
    return body.worker_count // num_ranks


class Operations:
    """What goes on though its caller has gone away."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[bool | None]] = set()

    def start(self, operation: Coroutine[None, None, bool | None]) -> asyncio.Task[bool | None]:
        task = asyncio.create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    async def outcome(self, task: asyncio.Task[bool | None], *, wait: bool) -> bool | None:
        """None if it is not waited for. Raises what the operation does, as far as it is known."""
        if not wait:
            await asyncio.sleep(0)  # so that what is refused is refused
            return task.result() if task.done() else None
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[bool | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), NovaCronError):
            logger.warning("%s", task.exception())
