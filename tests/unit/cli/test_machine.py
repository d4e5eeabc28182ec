"""Facts about the machine, read from files that tests can write."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from novacron.cli import machine


@pytest.fixture
def cgroup(monkeypatch):
    values: dict[str, str] = {}
    monkeypatch.setattr(machine, "_cgroup", values.get)
    return values


def test_a_memory_limit_counts(cgroup) -> None:
    whole = machine.memory()
    assert whole.total == psutil.virtual_memory().total
    cgroup |= {"memory.max": "1000000", "memory.current": "400000"}
    assert machine.memory() == machine.Memory(available=600000, total=1000000)
    cgroup["memory.current"] = "2000000"
    assert machine.memory().available == 0
    cgroup["memory.max"] = "max"
    assert machine.memory().total == whole.total


def test_a_processor_quota_counts(cgroup, monkeypatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert machine.num_cores() == 8
    cgroup["cpu.max"] = "150000 100000"
    assert machine.num_cores() == 1.5
    cgroup["cpu.max"] = "max 100000"
    assert machine.num_cores() == 8


@pytest.mark.parametrize(
    ("cpuinfo", "expected", "slow"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 fma avx512f\n", ["avx2", "fma", "avx512f"], False),
        ("Features\t: fp asimd i8mm\n", ["asimd", "i8mm"], False),
        ("flags : fpu sse2\n", [], True),
        ("", [], True),
    ],
)
def test_instruction_sets(monkeypatch, cpuinfo: str, expected: list[str], slow: bool) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: cpuinfo)
    assert machine.instruction_sets() == expected
    assert machine.is_slow(expected) is slow


def test_what_cannot_be_read_is_nothing() -> None:
    assert machine._read(Path("/absent/file")) is None


def test_the_real_machine_has_something() -> None:
    assert 0 < machine.num_cores() <= machine.num_threads()
    assert machine.free_disk(Path("/")) > 0
    assert machine.python_version()
