"""The model, the workers and the health of this server, in the seeds' words."""

from __future__ import annotations

import time
from typing import Literal

from msgspec import Struct

from novacron.coordination.seat import Seat
from novacron.engine.client import EngineState, ReplicaStatus
from novacron.gateway.native.events import ModelInfo
from novacron.gateway.native.quality_health import quality_health
from novacron.gateway.native.replies import model_info
from novacron.gateway.service import Service
from novacron.observability.ratios import hit_rate, kv_cache_usage
from novacron.records.output import CanaryStats
from novacron.records.parallel_stats import LinkStats, RankLinkStats, RankStats
from novacron.records.routing import RoutingDecision

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
    """The names under which the model is served, and its variants where there are several."""

    models: tuple[NativeModel, ...]


class LoadAnswer(Struct, frozen=True):
    """Where the model is on its way; `ignored` names settings that a start decides, not a load."""

    id: str
    status: str
    ignored: tuple[str, ...] = ()


class Worker(Struct, frozen=True, kw_only=True):
    """A process that computes. Of a rank on another `host` than its engine's, no pid is told."""

    worker_id: str
    status: str
    pid: int | None
    rank: int
    device: str | None
    replica: str
    epoch: int
    host: str = ""


class Rank(Struct, frozen=True, kw_only=True):
    """What a rank has done since its engine's start. A meeting is a sum or a concatenation over the
    ranks of its stage; it waits for these, and for the stage before. `step_s`: the time of its
    steps, waiting included, where it is measured. `host` is empty where it is the engine's own."""

    rank: int
    stage: int
    steps: int
    meetings: int
    sent_bytes: int
    waited_s: float
    step_s: float = 0.0
    host: str = ""


class Link(Struct, frozen=True, kw_only=True):
    """A link to another host: to a replica's, since the server's start, or between its ranks, since
    that of its engine. `resent` are TCP segments, `dropped` messages of an epoch that was over,
    `lost` links that ended without being told to."""

    place: str
    round_trip_s: float | None
    sent: int
    received: int
    sent_bytes: int
    received_bytes: int
    resent: int
    dropped: int
    lost: int


class RankLink(Struct, frozen=True, kw_only=True):
    """The link from one rank of a replica to another one, on another host."""

    rank: int
    peer: int
    link: Link


class Canary(Struct, frozen=True, kw_only=True):
    """The small requests by which a replica is tried while it is idle. `seconds_ago`: since one has
    passed, null before the first."""

    status: Literal["untried", "passed", "failed"]
    passed: int
    wrong: int
    missing: int
    seconds_ago: float | None


class Replica(Struct, frozen=True, kw_only=True):
    """A whole engine, which may be several workers. `epoch` counts its starts from 0. `host` is
    empty where it is the server's own; `pid` is told only then. Of prompts
    that were sent to it, `queued_tokens` are yet to be computed; totals are since the server's
    start. `routed` is how many calls it was chosen for, by why, and `last_decision` the newest."""

    replica_id: str
    state: str
    epoch: int
    host: str
    pid: int | None
    num_restarts: int
    num_running: int
    num_waiting: int
    num_live: int
    queued_tokens: int
    kv_usage: float
    prompt_tokens: int
    generation_tokens: int
    hit_rate: float | None
    routed: dict[str, int]
    last_decision: RoutingDecision | None
    ranks: tuple[Rank, ...] = ()
    rank_links: tuple[RankLink, ...] = ()
    link: Link | None = None
    canary: Canary | None = None


class Cluster(Struct, frozen=True):
    status: str
    total_workers: int
    active_workers: int
    num_restarts: int


class Node(Struct, frozen=True, kw_only=True):
    """A host of the cluster that places replicas. `places`: engines that it has room for."""

    name: str
    address: str
    alive: bool
    places: float


class Coordinator(Struct, frozen=True, kw_only=True):
    """An API process with the same database. `is_this`: the one that answers. `seconds_left`: until
    it is taken to have ended, if nothing is heard of it; negative: since then."""

    coordinator_id: str
    name: str
    address: str
    version: str
    is_alive: bool
    is_this: bool
    started_at: float
    seconds_left: float


class HeldDuty(Struct, frozen=True, kw_only=True):
    """What one coordinator does for all. `holder` is empty while nobody does."""

    duty: str
    holder: str
    epoch: int
    seconds_left: float


class ClusterStatus(Struct, frozen=True, kw_only=True):
    """All workers of this server; the nodes that replicas may be placed on, if somebody places
    them; and the coordinators and their duties, where it has a database."""

    cluster: Cluster
    workers: tuple[Worker, ...]
    replicas: tuple[Replica, ...]
    nodes: tuple[Node, ...] = ()
    coordinators: tuple[Coordinator, ...] = ()
    duties: tuple[HeldDuty, ...] = ()


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
    _, named = model.resolve(name)
    variant = model.variant(named)
    return NativeModel(
        id=name,
        status=model.status_of(variant) if named else model.status,
        phase=phase,
        progress=progress,
        info=None if variant.spec is None else model_info(name, variant.spec),
    )


def native_models(service: Service) -> NativeModelList:
    return NativeModelList(tuple(native_model(service, name) for name in service.model.listed))


def workers(service: Service) -> tuple[Worker, ...]:
    """One per process of each replica, or one without a process where none runs."""
    return tuple(
        _worker(one, rank, pid)
        for one in service.client.replicas
        for rank, pid in enumerate((one.engine_pid, *one.rank_pids, *(None for _ in _hosts(one))))
    )


def _hosts(one: ReplicaStatus) -> tuple[str, ...]:
    """Of ranks 1 and following, if they are on other hosts than the engine."""
    return () if one.spec is None else one.spec.rank_hosts


def _host(one: ReplicaStatus, rank: int) -> str:
    hosts = _hosts(one)
    return hosts[rank - 1] if 0 < rank <= len(hosts) else ""


def _worker(one: ReplicaStatus, rank: int, pid: int | None) -> Worker:
    return Worker(
        worker_id=f"{one.replica_id}-rank-{rank}",
        status="starting" if rank in one.stats.lost_ranks else _WORKER_STATUS[one.state],
        pid=pid,
        rank=rank,
        device=None if one.spec is None else one.spec.device,
        replica=one.replica_id,
        epoch=one.epoch,
        host=_host(one, rank),
    )


def replica(one: ReplicaStatus) -> Replica:
    stats = one.stats
    return Replica(
        replica_id=one.replica_id,
        state=one.state.value,
        epoch=one.epoch,
        host="" if one.spec is None else one.spec.host,
        pid=one.engine_pid,
        num_restarts=one.num_restarts,
        num_running=stats.num_running,
        num_waiting=stats.num_waiting,
        num_live=one.num_live,
        queued_tokens=one.queued_tokens,
        kv_usage=round(kv_cache_usage(stats), 4),
        prompt_tokens=stats.prompt_tokens + stats.prefix_hits_tokens,
        generation_tokens=stats.generation_tokens,
        hit_rate=hit_rate(stats),
        routed=dict(one.num_routed),
        last_decision=one.last_decision,
        ranks=tuple(_rank(rank, _host(one, rank.rank)) for rank in stats.ranks),
        rank_links=tuple(map(_rank_link, stats.rank_links)),
        link=None if stats.link is None else _link(stats.link),
        canary=None if stats.canary is None else _canary(stats.canary),
    )


def _rank(one: RankStats, host: str) -> Rank:
    return Rank(
        rank=one.rank,
        stage=one.stage,
        steps=one.num_steps,
        meetings=one.num_meetings,
        sent_bytes=one.sent_bytes,
        waited_s=round(one.waited_s, 6),
        step_s=round(one.step_s, 6),
        host=host,
    )


def _rank_link(one: RankLinkStats) -> RankLink:
    return RankLink(rank=one.rank, peer=one.peer, link=_link(one.link))


def _link(one: LinkStats) -> Link:
    return Link(
        place=one.place,
        round_trip_s=None if one.round_trip_s is None else round(one.round_trip_s, 6),
        sent=one.num_sent,
        received=one.num_received,
        sent_bytes=one.sent_bytes,
        received_bytes=one.received_bytes,
        resent=one.num_resent,
        dropped=one.num_dropped,
        lost=one.num_lost,
    )


def _canary(one: CanaryStats) -> Canary:
    ago_s = time.monotonic() - one.last_passed_s if one.last_passed_s else None
    return Canary(
        status="failed" if one.is_failing else "passed" if one.num_passed else "untried",
        passed=one.num_passed,
        wrong=one.num_wrong,
        missing=one.num_missing,
        seconds_ago=None if ago_s is None else round(ago_s, 1),
    )


def coordinators(seat: Seat) -> tuple[Coordinator, ...]:
    """As they were at our last sign of life."""
    picture = seat.picture
    return tuple(
        Coordinator(
            coordinator_id=one.id,
            name=one.name,
            address=one.address,
            version=one.version,
            is_alive=one.is_alive(picture.now_ms),
            is_this=one.id == seat.member_id,
            started_at=one.started_at_ms / 1000,
            seconds_left=(one.alive_until_ms - picture.now_ms) / 1000,
        )
        for one in sorted(picture.members.values(), key=lambda one: (one.started_at_ms, one.id))
    )


def duties(seat: Seat) -> tuple[HeldDuty, ...]:
    now_ms = seat.picture.now_ms
    return tuple(
        HeldDuty(
            duty=lease.duty,
            holder=lease.holder if lease.is_held(now_ms) else "",
            epoch=lease.epoch,
            seconds_left=max(0, lease.expires_ms - now_ms) / 1000,
        )
        for lease in seat.picture.leases
    )


def cluster_status(service: Service, seat: Seat | None = None) -> ClusterStatus:
    all_workers = workers(service)
    num_active = sum(worker.status == "active" for worker in all_workers)
    return ClusterStatus(
        cluster=Cluster(
            status="healthy" if num_active == len(all_workers) else "degraded",
            total_workers=len(all_workers),
            active_workers=num_active,
            num_restarts=service.client.num_restarts,
        ),
        workers=all_workers,
        replicas=tuple(map(replica, service.client.replicas)),
        nodes=tuple(
            Node(name=one.name, address=one.address, alive=one.is_alive, places=one.num_places)
            for one in service.client.nodes
        ),
        coordinators=() if seat is None else coordinators(seat),
        duties=() if seat is None else duties(seat),
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
        warnings.append(f"The engine is {state.value}; nothing new is computed for now.")
    for variant in service.client.variants[1:]:
        if variant.state is not EngineState.READY:
            warnings.append(
                f"The variant {variant.name} is {variant.state.value}; requests that wish for its "
                "precision get another."
            )
    replicas = service.client.replicas
    if len(replicas) > len(service.client.variants):
        for one in replicas:
            if one.state is not EngineState.READY:
                warnings.append(f"{one.replica_id} is {one.state.value}; others do its work.")
    for one in replicas:
        if one.stats.lost_ranks:
            engine = "degraded"
            ranks = ", ".join(map(str, one.stats.lost_ranks))
            warnings.append(f"{one.replica_id} replaces rank {ranks}; its requests wait for that.")
        if one.stats.canary is not None and one.stats.canary.is_failing:
            engine = "degraded" if engine == "healthy" else engine
            warnings.append(f"{one.replica_id} failed when it was tried, and is started anew.")
    if stats.num_waiting > stats.num_running:
        queue = "degraded"
        warnings.append(f"{stats.num_waiting} requests wait while {stats.num_running} run.")
        recommendations.append("Add replicas, or raise max_num_seqs if there is memory left.")
    if stats.num_blocks and stats.num_used_blocks > _FULL_SHARE * stats.num_blocks:
        cache = "degraded"
        warnings.append(f"{stats.num_used_blocks} of {stats.num_blocks} KV blocks are in use.")
        recommendations.append("Raise kv_cache_memory, or lower max_num_seqs.")
    components = {"api": "healthy", "engine": engine, "queue": queue, "kv_cache": cache}
    quality = quality_health(service.client.variants)
    if quality.component:
        components["quality"] = quality.component
    warnings += quality.warnings
    recommendations += quality.recommendations
    overall = max(components.values(), key=("healthy", "degraded", "unhealthy").index)
    return HealthReport(
        status=overall,
        overall_health=overall,
        component_health=components,
        warnings=tuple(warnings),
        critical=tuple(critical),
        recommendations=tuple(recommendations),
    )
