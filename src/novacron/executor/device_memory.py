"""What memory a device has, within the limit of a container."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from novacron.config.cache import CacheConfig
from novacron.executor.memory_plan import DeviceMemory

_CGROUP = Path("/sys/fs/cgroup")


def measure_device_memory(device: torch.device, cache: CacheConfig) -> DeviceMemory:
    """Now: before the model is loaded."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(str(device), free, total, cache.gpu_memory_utilization, is_own=True)
    memory = psutil.virtual_memory()
    limit, left = _cgroup_bytes(_CGROUP)
    return DeviceMemory(
        str(device),
        min(memory.available, left),
        min(memory.total, limit),
        cache.cpu_memory_utilization,
        is_own=False,
    )


def _cgroup_bytes(cgroup: Path) -> tuple[int, int]:
    """A container's memory limit, and what it leaves, file pages that can be dropped counted as
    free; without a limit, no bounds."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(
            line.split() for line in (cgroup / "memory.stat").read_text().splitlines()
        )
        return limit, max(0, limit - used + int(statistics.get("inactive_file", 0)))
    except (OSError, ValueError):  # another kind of cgroup, or "max"
        return 2**63, 2**63
