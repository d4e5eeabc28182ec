from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.config.cache import CacheConfig
from novacron.executor import device_memory
from novacron.executor.device_memory import measure_device_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [("1000", "inactive_file 100\nanon 5", 400), ("max", "", 2**63), ("100", "anon 5", 0)],
)
def test_a_container_bounds_the_free_memory(
    limit: str, stat: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text(stat)
    monkeypatch.setattr(device_memory, "_CGROUP", tmp_path)
    found = measure_device_memory(CPU, CacheConfig(cpu_memory_utilization=0.25))
    assert (found.name, found.is_own, found.usable_share) == ("cpu", False, 0.25)
    assert found.free_bytes == expected if expected < 2**40 else found.free_bytes < 2**63
    assert found.free_bytes <= found.total_bytes or limit == "100"


def test_a_gpu_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    found = measure_device_memory(torch.device("cuda", 1), CacheConfig(gpu_memory_utilization=0.8))
    assert (found.name, found.free_bytes, found.total_bytes) == ("cuda:1", 600, 1000)
    assert (found.is_own, found.usable_share) == (True, 0.8)
    assert found.left_for_cache(weight_bytes=100, step_bytes=50) == 250
