"""Ray: where engines of a cluster are placed, and who starts them again when their node ends. The
only module that imports it.

Runs in a process of its own, which a server starts (cluster/ray_hosts.py) and speaks to in lines of
JSON: Ray's driver is native code with threads of its own and ends its process if it loses the
cluster for long, neither of which a server should share. Each replica is a placement group and an
actor in it, which starts `novacron engine` on its node and tells where that listens. Nothing else
goes through Ray: no prompt, no token, no secret.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from novacron.cluster.ray_hosts import Find, Found, Nodes, RayNode, RaySettings

_READY: Final = "ready: "
_MOST_REPLICAS: Final = 64
_NODES_EVERY_S: Final = 2.0


class EngineNode:
    """An actor: keeps a `novacron engine` on its node, which ends with it."""

    def __init__(self, allow: str, listen: str) -> None:
        self._arguments = ["--allow", allow, "--new-key", "--end-with-stdin"]
        self._ports = listen
        self._host: subprocess.Popen[str] | None = None
        self._address = ""

    def where(self) -> str:
        """Of a new one, if it is asked again: who asks has lost the link to the last one, which may
        hang, or have an engine that does. Raises RuntimeError if it does not start."""
        if self._host is not None:
            self._host.kill()
            self._host.wait()
        self._start()
        return self._address

    def _start(self) -> None:
        util: Any = ray.util  # has no types
        listen = f"tcp://{util.get_node_ip_address()}:{self._ports}"
        command = ["-m", "novacron.cli.main", "engine", "--listen", listen, *self._arguments]
        self._host = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        )
        assert self._host.stdout is not None
        line = self._host.stdout.readline()
        if not line.startswith(_READY):
            raise RuntimeError(
                f"novacron engine does not start on this node (exit code {self._host.wait()})"
            )
        self._address = line.removeprefix(_READY).strip()


class _Replica:
    """A placement group and its actor."""

    def __init__(self, settings: RaySettings) -> None:
        resources = dict(settings.resources)
        self._group: PlacementGroup = placement_group([resources], strategy="PACK")
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=self._group, placement_group_bundle_index=0
        )
        actor: Any = ray.remote(EngineNode)
        self._actor = actor.options(
            num_cpus=resources.pop("CPU", 0),
            num_gpus=resources.pop("GPU", 0),
            resources=resources,
            scheduling_strategy=strategy,
            max_restarts=-1,
            max_task_retries=-1,
        ).remote(settings.allow, settings.listen)

    def where(self) -> str:
        """Waits for a node, for as long as it takes."""
        address: str = ray.get(self._actor.where.remote())
        return address

    def remove(self) -> None:
        ray.kill(self._actor)
        remove_placement_group(self._group)


class _Platform:
    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._replicas: dict[str, _Replica] = {}
        self._lock = threading.Lock()

    def answer(self, find: Find) -> Found:
        try:
            with self._lock:
                if find.replica not in self._replicas:
                    self._replicas[find.replica] = _Replica(self._settings)
            return Found(find.number, self._replicas[find.replica].where())
        except Exception as error:  # Ray's are many: whoever asked is to hear of it, whatever it is
            with self._lock:
                failed = self._replicas.pop(find.replica, None)
            if failed is not None:
                failed.remove()
            return Found(find.number, error=_last_line(error))


def _nodes(resource: str) -> Nodes:
    """`resource`: what a place for an engine is counted in."""
    untyped: Any = ray
    return Nodes(
        tuple(
            RayNode(
                name=str(one.get("NodeManagerHostname", "")),
                address=str(one.get("NodeManagerAddress", "")),
                is_alive=bool(one.get("Alive")),
                num_places=float(one.get("Resources", {}).get(resource, 0.0)),
            )
            for one in untyped.nodes()
        )
    )


def _last_line(error: Exception) -> str:
    """Ray's messages hold the traceback of the other side; it ends with what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)


def main() -> None:
    """Until standard input ends; with this process the actors end, and so do their hosts."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=RaySettings)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is no answer
    lock = threading.Lock()

    def answer(found: Found | Nodes) -> None:
        with lock:
            answers.write(msgspec.json.encode(found) + b"\n")

    try:
        ray.init(address=settings.address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # again: of many kinds
        answer(Found(0, error=_last_line(error)))
        sys.exit(1)
    platform = _Platform(settings)

    def work(find: Find) -> None:
        answer(platform.answer(find))

    def tell_nodes() -> None:
        resource = next(iter(settings.resources), "CPU")
        while True:
            try:
                answer(_nodes(resource))
            except Exception as error:  # Ray's are many, and its head may just be away
                logging.getLogger(__name__).warning("Ray does not tell its nodes: %s", error)
            time.sleep(_NODES_EVERY_S)

    threading.Thread(target=tell_nodes, daemon=True, name="nodes").start()
    workers = ThreadPoolExecutor(_MOST_REPLICAS, thread_name_prefix="find")
    for line in sys.stdin.buffer:
        workers.submit(work, msgspec.json.decode(line, type=Find))
    ray.shutdown()
    os._exit(0)  # threads may wait for a node that never comes
