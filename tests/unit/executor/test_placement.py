from __future__ import annotations

from pathlib import Path

import pytest
import torch

from novacron.config.model import ModelConfig
from novacron.errors import ConfigError
from novacron.executor import placement
from novacron.executor.placement import (
    choose_device,
    choose_dtype,
    choose_num_threads,
    keep_freed_memory,
    threads_of_replica,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_device_is_cuda_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(ModelConfig()) == CPU
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        choose_device(ModelConfig(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device(ModelConfig()) == torch.device("cuda", 0)
    assert choose_device(ModelConfig(device="cpu")) == CPU


@pytest.mark.parametrize(
    ("checkpoint", "fast_cpu", "device", "expected"),
    [
        ("bfloat16", True, CPU, torch.bfloat16),
        ("bfloat16", False, CPU, torch.float32),
        ("float16", True, CPU, torch.float32),
        ("float32", True, CPU, torch.float32),
        ("float16", False, CUDA, torch.float16),
        ("bfloat16", False, CUDA, torch.bfloat16),
        ("float64", False, CUDA, torch.float32),
    ],
)
def test_auto_dtype(
    checkpoint: str,
    fast_cpu: bool,
    device: torch.device,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast_cpu})
    assert choose_dtype(ModelConfig(), checkpoint, device) == expected


def test_a_dtype_asked_for_is_taken() -> None:
    assert choose_dtype(ModelConfig(dtype="float16"), "float32", CPU) == torch.float16


def test_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert choose_num_threads(ModelConfig(num_threads=5)) == 5
    assert threads_of_replica(ModelConfig(num_threads=5, data_parallel_size=2)) == 2
    assert threads_of_replica(ModelConfig(num_threads=5, data_parallel_size=8)) == 1
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(placement, "_CPU_QUOTA", quota)
    counts = {True: 16, False: 8}
    monkeypatch.setattr(placement.psutil, "cpu_count", lambda logical=True: counts[logical])
    monkeypatch.setattr(placement.os, "sched_getaffinity", lambda pid: set(range(12)))
    assert choose_num_threads(ModelConfig()) == 6, "12 hardware threads are 6 cores"
    quota.write_text("max 100000\n")
    assert choose_num_threads(ModelConfig()) == 6
    quota.write_text("250000 100000\n")
    assert choose_num_threads(ModelConfig()) == 2
    quota.write_text("50000 100000\n")
    assert choose_num_threads(ModelConfig()) == 1


def test_allocator_settings_are_taken() -> None:
    keep_freed_memory()
    assert torch.ones(2**20).sum() == 2**20
