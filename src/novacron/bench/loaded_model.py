"""Loads a model as an engine does, and tells what that took: `python -m` this file, see load_job.

Imports torch, as the rest of the bench must not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import torch

from novacron.bench.forced_job import Refused
from novacron.bench.load_job import Load, LoadJob, LoadNews
from novacron.errors import NovaCronError
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.placement import choose_num_threads
from novacron.models.loading import load_weights

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_THE_PEAK = "5"  # proc(5)


def load(job: LoadJob) -> Load:
    """From the checkpoint, never from the cache of packed weights. Raises ConfigError and
    ModelLoadError."""
    path = Path(job.model_path)
    blueprint = draw_blueprint(job.model, path, choose_num_threads(job.model))
    torch.nn.functional.linear(torch.zeros(8, 8), torch.zeros(8, 8))  # what torch allocates once
    _CLEAR.write_text(_FORGET_THE_PEAK)
    before, started_s = _resident("VmRSS"), time.perf_counter()
    decoder = blueprint.build(blueprint.device)
    load_weights(decoder, blueprint.checkpoint, blueprint.family, lambda fraction: None)
    return Load(
        precision=decoder.precision,
        weight_bytes=decoder.weight_bytes,
        largest_file_bytes=max(file.stat().st_size for file in _files(path)),
        peak_bytes=_resident("VmHWM") - before,
        left_bytes=_resident("VmRSS") - before,
        seconds=time.perf_counter() - started_s,
    )


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def _resident(key: str) -> int:
    """In bytes: VmRSS what is resident now, VmHWM the most that was."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    news: LoadNews
    try:
        news = load(msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadJob))
    except NovaCronError as error:
        news = Refused(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")


if __name__ == "__main__":
    main()
