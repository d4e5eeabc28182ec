"""Facts about this machine, within the limits a container sets."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

# As /proc/cpuinfo spells them, in order of interest; those on x86 and on Arm differ in name.
_INSTRUCTION_SETS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
_FAST = {"avx2", "asimd"}


@dataclass(frozen=True)
class Memory:
    """Bytes that this process can still get, and that there are."""

    available: int
    total: int


def python_version() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def num_threads() -> int:
    """Hardware threads of the machine."""
    return os.cpu_count() or 1


def num_cores() -> float:
    """Hardware threads this process may use: affinity and the container's quota."""
    allowed = len(os.sched_getaffinity(0))
    quota = _cgroup("cpu.max")
    match = re.fullmatch(r"(\d+) (\d+)", quota or "")
    return min(allowed, round(int(match[1]) / int(match[2]), 1)) if match else allowed


def instruction_sets() -> list[str]:
    """The vector instructions that matter here."""
    text = _read(Path("/proc/cpuinfo")) or ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    present = set(line[1].split()) if line else set()
    return [name for name in _INSTRUCTION_SETS if name in present]


def is_slow(instruction_sets: list[str]) -> bool:
    return not _FAST & set(instruction_sets)


def memory() -> Memory:
    """The machine's, or the container's if that is less."""
    machine = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if not limit or not used or not limit.isdigit():
        return Memory(machine.available, machine.total)
    left = max(0, int(limit) - int(used))
    return Memory(min(machine.available, left), min(machine.total, int(limit)))


def free_disk(path: Path) -> int:
    return shutil.disk_usage(path).free


def has_nvidia_device() -> bool:
    return Path("/dev/nvidiactl").exists()


def _cgroup(name: str) -> str | None:
    """A value of our own control group, version 2; None outside of one."""
    return _read(Path("/sys/fs/cgroup") / name)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
