"""The model, the workers and the health of this server, in the seeds' words."""

from __future__ import annotations

from msgspec import Struct

from novacron.engine.client import EngineState
from novacron.gateway.native.events import ModelInfo
from novacron.gateway.native.replies import model_info
from novacron.gateway.service import Service

_WORKER_STATUS = {
    EngineState.LOADING: "starting",
    EngineState.READY: "active",
    EngineState.DRAINING: "active",
    EngineState.UNLOADED: "idle",
    EngineState.DEAD: "failed",
}
_FULL_SHARE = 0.95  # of KV blocks held by requests, from which on we warn


class NativeModel(Struct, frozen=True, kw_only=True):
    """`status` is loading, loaded, draining, unloaded or failed; `info` is null until known."""

    id: str
    status: str
    phase: str
    progress: float
    info: ModelInfo | None


class NativeModelList(Struct, frozen=True):
    """The names under which the model is served."""

    models: tuple[NativeModel, ...]


class LoadAnswer(Struct, frozen=True):
    """Where the model is on its way; `ignored` names settings that a start decides, not a load."""

    id: str
    status: str
    ignored: tuple[str, ...] = ()


class Worker(Struct, frozen=True, kw_only=True):
    """A process that computes."""

    worker_id: str
    status: str
    pid: int | None
    rank: int
    device: str | None


class Cluster(Struct, frozen=True):
    status: str
    total_workers: int
    active_workers: int
    num_restarts: int


class ClusterStatus(Struct, frozen=True):
    """All workers of this server."""

    cluster: Cluster
    workers: tuple[Worker, ...]


class WorkerList(Struct, frozen=True):
    """The processes that compute."""

    workers: tuple[Worker, ...]


class HealthReport(Struct, frozen=True, kw_only=True):
    """Health by component. `critical` stops work; `warnings` slow it down."""

    status: str
    overall_health: str
    component_health: dict[str, str]
    warnings: tuple[str, ...]
    critical: tuple[str, ...]
    recommendations: tuple[str, ...]


def native_model(service: Service, name: str) -> NativeModel:
    """Raises ModelNotFound."""
    model = service.model
    phase, progress = service.client.loading_progress
    return NativeModel(
        id=model.resolve(name),
        status=model.status,
        phase=phase,
        progress=progress,
        info=None if model.spec is None else model_info(name, model.spec),
    )


def native_models(service: Service) -> NativeModelList:
    return NativeModelList(tuple(native_model(service, name) for name in service.model.names))


def workers(service: Service) -> tuple[Worker, ...]:
    """One per process of the engine; one without a process if none runs."""
    status = _WORKER_STATUS[service.client.state]
    spec = service.model.spec
    pids: tuple[int | None, ...] = service.worker_pids() or (None,)
    return tuple(
        Worker(
            worker_id=f"replica-0-rank-{rank}",
            status=status,
            pid=pid,
            rank=rank,
            device=None if spec is None else spec.device,
        )
        for rank, pid in enumerate(pids)
    )


def cluster_status(service: Service) -> ClusterStatus:
    all_workers = workers(service)
    num_active = sum(worker.status == "active" for worker in all_workers)
    return ClusterStatus(
        Cluster(
            status="healthy" if num_active == len(all_workers) else "degraded",
            total_workers=len(all_workers),
            active_workers=num_active,
            num_restarts=service.client.num_restarts,
        ),
        all_workers,
    )


def health_report(service: Service) -> HealthReport:
    """From what the engine says of itself; nothing is guessed."""
    stats, state = service.client.stats, service.client.state
    warnings, recommendations, critical = [], [], []
    engine, queue, cache = "healthy", "healthy", "healthy"
    if state is EngineState.DEAD:
        engine = "unhealthy"
        critical.append("The engine has ended and will not come back.")
    elif state is not EngineState.READY:
        engine = "degraded"
        warnings.append(f"The engine is {state.value}; new requests are refused.")
    if stats.num_waiting > stats.num_running:
        queue = "degraded"
        warnings.append(f"{stats.num_waiting} requests wait while {stats.num_running} run.")
        recommendations.append("Add replicas, or raise max_num_seqs if there is memory left.")
    if stats.num_blocks and stats.num_used_blocks > _FULL_SHARE * stats.num_blocks:
        cache = "degraded"
        warnings.append(f"{stats.num_used_blocks} of {stats.num_blocks} KV blocks are in use.")
        recommendations.append("Raise kv_cache_memory, or lower max_num_seqs.")
    components = {"api": "healthy", "engine": engine, "queue": queue, "kv_cache": cache}
    overall = max(components.values(), key=("healthy", "degraded", "unhealthy").index)
    return HealthReport(
        status=overall,
        overall_health=overall,
        component_health=components,
        warnings=tuple(warnings),
        critical=tuple(critical),
        recommendations=tuple(recommendations),
    )
