"""The native endpoints that tell of the server: its workers, its health and what it measures."""

from __future__ import annotations

from fastapi import APIRouter
from msgspec import Struct
from starlette.responses import Response

from novacron.errors import Unsupported
from novacron.gateway.handover.together import Coordination
from novacron.gateway.json_body import JsonResponse, StrictJsonRoute
from novacron.gateway.native import status
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

    @router.post(
        "/cluster/scale", response_class=Response, responses=schemas.answers(status.ClusterStatus)
    )
    async def scale_cluster(body: ScaleBody) -> Response:
        """Change the number of workers: 501 for any other than there are."""
        cluster = status.cluster_status(service)
        if body.worker_count != cluster.cluster.total_workers:
            raise Unsupported(
                f"This server runs on one machine with {cluster.cluster.total_workers} worker(s) "
                f"and cannot change to {body.worker_count} while it runs. Start it with "
                "--data-parallel-size, or start more servers and put a load balancer in front."
            )
        return JsonResponse(cluster)

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
