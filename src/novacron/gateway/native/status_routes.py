"""The native endpoints that tell of the server: its workers, its health and what it measures."""

from __future__ import annotations

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from novacron.gateway.handover.together import Coordination
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native import status
from novacron.gateway.native.cluster_routes import Operations, wanted_replicas
from novacron.gateway.native.history import History, InferenceMetrics
from novacron.gateway.native.resources import ResourceMetrics, ResourceProbe
from novacron.gateway.native.schema import ScaleBody
from novacron.gateway.openapi import AnswerSchemas
from novacron.gateway.service import Service


class AllMetrics(Struct, frozen=True, kw_only=True):
    """Everything measured, as JSON."""

    active_requests: int
    queued_requests: int
    inference_metrics: InferenceMetrics
    resource_metrics: ResourceMetrics


def status_routes(
    service: Service,
    history: History,
    schemas: AnswerSchemas,
    coordination: Coordination | None = None,
) -> APIRouter:
    router = APIRouter(prefix="/api/v1/llm", tags=["Native"], route_class=StrictJsonRoute)
    probe = ResourceProbe(service)
    seat = None if coordination is None else coordination.seat

    @router.get(
        "/cluster/status", response_class=Response, responses=schemas.answers(status.ClusterStatus)
    )
    async def cluster_status() -> Response:
        """How many workers there are and how many work; who coordinates, and has which duty."""
        return JsonResponse(status.cluster_status(service, seat))

    @router.get(
        "/cluster/workers", response_class=Response, responses=schemas.answers(status.WorkerList)
    )
    async def cluster_workers() -> Response:
        """The processes that compute."""
        return JsonResponse(status.WorkerList(status.workers(service)))

    operations = Operations()
    cluster_answers = schemas.answers(status.ClusterStatus)

    @router.post(
        "/cluster/scale",
        response_class=Response,
        responses={**cluster_answers, 202: cluster_answers[200]},
    )
    async def scale_cluster(body: ScaleBody, request: Request) -> Response:
        """Change the number of replicas. New ones are routed to when they are ready; those that go
        finish what they run first. 501 where the number is fixed."""
        service.caller(request).require_operator("Scaling")
        num_replicas = wanted_replicas(body, service.client.replicas)
        timeout_s = service.config.shutdown_timeout if body.timeout is None else body.timeout
        task = operations.start(service.client.scale(num_replicas, timeout_s))
        await operations.outcome(task, wait=body.wait)
        return JsonResponse(status.cluster_status(service, seat), 200 if body.wait else 202)

    @router.get("/health", response_class=Response, responses=schemas.probe(status.HealthReport))
    async def health() -> Response:
        """Health by component; 503 if the engine will not come back."""
        report = status.health_report(service)
        return JsonResponse(report, 503 if report.status == "unhealthy" else 200)

    @router.get("/metrics", response_class=Response, responses=schemas.answers(AllMetrics))
    async def metrics() -> Response:
        """Everything measured, with the history of the last minutes."""
        stats = service.client.stats
        return JsonResponse(
            AllMetrics(
                active_requests=stats.num_running,
                queued_requests=stats.num_waiting,
                inference_metrics=history.inference_metrics(),
                resource_metrics=probe.resource_metrics(),
            )
        )

    @router.get(
        "/metrics/inference", response_class=Response, responses=schemas.answers(InferenceMetrics)
    )
    async def inference_metrics() -> Response:
        """Latency, throughput, cache hits and quality over the last minutes."""
        return JsonResponse(history.inference_metrics())

    @router.get(
        "/metrics/resources", response_class=Response, responses=schemas.answers(ResourceMetrics)
    )
    async def resource_metrics() -> Response:
        """Processor, memory and KV cache in use."""
        return JsonResponse(probe.resource_metrics())

    return router
