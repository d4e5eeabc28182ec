"""Taking an engine out of service and back, for clients that have one and for those that have
several."""

from __future__ import annotations

from typing import Final

from novacron.engine.client import DrainOptions, EngineClient, ReplicaStatus, status_of
from novacron.errors import LastReplica, ReplicaNotFound, Unsupported

ONLY_REPLICA: Final = "replica-0"


async def drain_client(client: EngineClient, timeout_s: float) -> bool:
    """Let it finish, and end its engine process. True if it did finish in time."""
    finished = await client.drain(timeout_s)
    await client.unload(0.0)
    return finished


def only_replica(client: EngineClient) -> tuple[ReplicaStatus, ...]:
    """Of a client with one engine."""
    one = status_of(client, ONLY_REPLICA)
    return (
        ReplicaStatus(
            replica_id=ONLY_REPLICA,
            state=one.state,
            epoch=one.num_restarts,
            spec=one.spec,
            stats=one.stats,
            num_restarts=one.num_restarts,
            engine_pid=one.engine_pid,
            num_live=one.stats.num_running + one.stats.num_waiting,
        ),
    )


async def drain_only_replica(
    client: EngineClient, replica_id: str, timeout_s: float, options: DrainOptions
) -> bool:
    """Raises ReplicaNotFound, and LastReplica unless forced."""
    _check_id(replica_id)
    if not options.force:
        raise LastReplica(
            f"{ONLY_REPLICA} is the only replica: without it, requests would be refused. Start the "
            "server with --data-parallel-size 2 or more, or force it."
        )
    finished = await drain_client(client, timeout_s)
    if options.restart:
        await client.load()
    return finished


async def resume_only_replica(client: EngineClient, replica_id: str) -> None:
    _check_id(replica_id)
    await client.load()


async def scale_only_replica(num_replicas: int) -> bool:
    """Raises Unsupported for any other number than one."""
    if num_replicas != 1:
        raise Unsupported(
            f"This server was started with one engine, and cannot have {num_replicas} while it "
            "runs. Start it with --data-parallel-size 2 or more: then it may have one, too."
        )
    return True


def _check_id(replica_id: str) -> None:
    if replica_id != ONLY_REPLICA:
        raise ReplicaNotFound(replica_id, (ONLY_REPLICA,))
