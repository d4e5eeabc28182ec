"""What a result was measured on: hardware, software, commit, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import psutil

_VERSIONED = ("torch", "numpy", "tokenizers", "fastapi", "uvicorn", "uvloop", "pyzmq", "msgspec")
_FLAGS_THAT_MATTER = re.compile(r"avx2|avx512\w*|avx_vnni|amx_\w+|f16c|fma|sve2?|i8mm|bf16|asimd")
_PROBE_BYTES_PER_THREAD = 128 * 2**20  # far beyond any cache a thread has to itself
_PROBE_REPEATS = 5


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    cpu_model: str
    cpu_flags: tuple[str, ...]
    num_physical_cores: int
    num_usable_cpus: int  # that this process may run on
    memory_bytes: int
    system: str

    @property
    def slug(self) -> str:
        """A short name for file names."""
        model = re.sub(r"\(.*?\)|processor|cpu|@.*", "", self.cpu_model.lower())
        words = "-".join(re.findall(r"[a-z0-9]+", model))
        return f"{words or platform.machine()}-{self.num_usable_cpus}c"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about the place of measurement that a reader needs to judge a result."""

    commit: str  # with "+changes" if files differ from it; empty outside a checkout
    python: str
    versions: dict[str, str]
    hardware: Hardware


def describe() -> Environment:
    return Environment(
        commit=_commit(),
        python=platform.python_version(),
        versions=_versions(),
        hardware=_hardware(),
    )


def load_average() -> float:
    """Of the last minute: other work shows here, and so does ours."""
    return round(os.getloadavg()[0], 2)


def usable_cpus() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0))


def read_bandwidth_bytes_per_s(
    num_threads: int | None = None, *, repeats: int = _PROBE_REPEATS
) -> float:
    """How fast the usable cores, or so many threads, read memory; the median of a few readings.

    The limit of decoding, which reads every weight once a step. Takes about a tenth of a second.
    """
    num_threads = num_threads or usable_cpus()
    data = np.ones(num_threads * _PROBE_BYTES_PER_THREAD // 8, dtype=np.int64)
    parts = np.array_split(data, num_threads)
    readings = []
    with ThreadPoolExecutor(num_threads) as threads:
        for _ in range(repeats):
            started_s = time.perf_counter()
            list(threads.map(np.max, parts))
            readings.append(data.nbytes / (time.perf_counter() - started_s))
    return statistics.median(readings)


def _hardware() -> Hardware:
    model, flags = _cpu()
    return Hardware(
        cpu_model=model,
        cpu_flags=flags,
        num_physical_cores=psutil.cpu_count(logical=False) or 0,
        num_usable_cpus=usable_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def _cpu() -> tuple[str, tuple[str, ...]]:
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    matching = {
        flag for flag in (flags[1] if flags else "").split() if _FLAGS_THAT_MATTER.fullmatch(flag)
    }
    return (model[1].strip() if model else platform.machine()), tuple(sorted(matching))


def _versions() -> dict[str, str]:
    versions = {"novacron": metadata.version("novacron")}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    """The commit of the checkout that this file is tracked in, if it is."""
    here = Path(__file__)
    if _git(here, "ls-files", "--error-unmatch", here.name) is None:
        return ""
    commit = _git(here, "rev-parse", "--short=12", "HEAD") or ""
    return f"{commit}+changes" if _git(here, "status", "--porcelain", "-uno") else commit


def _git(here: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
