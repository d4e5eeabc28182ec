"""What this server uses of the machine: GET /api/v1/llm/metrics/resources."""

from __future__ import annotations

import os

import psutil
from msgspec import Struct

from novacron.gateway.service import Service
from novacron.observability.ratios import kv_cache_usage


class ProcessUsage(Struct, frozen=True, kw_only=True):
    """`cpu_fraction` counts cores, since the last look; 0 at the first."""

    role: str
    pid: int
    cpu_fraction: float
    memory_bytes: int
    num_threads: int


class MachineUsage(Struct, frozen=True, kw_only=True):
    num_cpus: int
    load_average_1m: float
    memory_total_bytes: int
    memory_available_bytes: int


class KVCacheUsage(Struct, frozen=True, kw_only=True):
    num_blocks: int
    num_used_blocks: int
    num_cached_blocks: int
    used_fraction: float
    total_bytes: int | None


class ResourceMetrics(Struct, frozen=True, kw_only=True):
    """Processes of this server, the machine they run on, and the KV cache."""

    processes: tuple[ProcessUsage, ...]
    machine: MachineUsage
    kv_cache: KVCacheUsage
    device: str | None
    weight_bytes: int | None


class ResourceProbe:
    """Remembers processes between looks, since CPU use is a difference."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._processes: dict[int, psutil.Process] = {}

    def resource_metrics(self) -> ResourceMetrics:
        spec = self._service.model.spec
        stats = self._service.client.stats
        return ResourceMetrics(
            processes=self._usages(),
            machine=_machine(),
            kv_cache=KVCacheUsage(
                num_blocks=stats.num_blocks,
                num_used_blocks=stats.num_used_blocks,
                num_cached_blocks=stats.num_cached_blocks,
                used_fraction=round(kv_cache_usage(stats), 4),
                total_bytes=None if spec is None else self._kv_cache_bytes(),
            ),
            device=None if spec is None else spec.device,
            weight_bytes=None if spec is None else spec.weight_bytes,
        )

    def _kv_cache_bytes(self) -> int:
        """Of all replicas that are loaded."""
        specs = (one.spec for one in self._service.client.replicas if one.stats.num_blocks)
        return sum(spec.kv_cache_bytes for spec in specs if spec is not None)

    def _usages(self) -> tuple[ProcessUsage, ...]:
        roles = dict.fromkeys(self._service.worker_pids(), "worker") | {os.getpid(): "api"}
        self._processes = {pid: p for pid, p in self._processes.items() if pid in roles}
        usages = (self._usage(pid, role) for pid, role in roles.items())
        return tuple(usage for usage in usages if usage is not None)

    def _usage(self, pid: int, role: str) -> ProcessUsage | None:
        """None for a process that has just ended."""
        try:
            process = self._processes.get(pid) or psutil.Process(pid)
            self._processes[pid] = process
            with process.oneshot():
                return ProcessUsage(
                    role=role,
                    pid=pid,
                    cpu_fraction=round(process.cpu_percent() / 100, 4),
                    memory_bytes=process.memory_info().rss,
                    num_threads=process.num_threads(),
                )
        except psutil.Error:
            self._processes.pop(pid, None)
            return None


def _machine() -> MachineUsage:
    memory = psutil.virtual_memory()
    return MachineUsage(
        num_cpus=psutil.cpu_count() or 1,
        load_average_1m=psutil.getloadavg()[0],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
    )
