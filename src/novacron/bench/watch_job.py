"""What crosses between the bench and watched_engine: requests, and how their answers scored.

Each as a line of JSON: a WatchJob first, answered by Watching or Refused; then one Traffic after
the other, each answered by Scored or Refused, until standard input is closed.
"""

from __future__ import annotations

import msgspec

from novacron.config.engine import EngineConfig


class WatchJob(msgspec.Struct, frozen=True):
    """An engine with the watch over quality that `config` asks for."""

    config: EngineConfig
    model_path: str


class Planted(msgspec.Struct, frozen=True):
    """The scales of matrices whose names begin with `pattern` are `factor` times as large."""

    pattern: str
    factor: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that are there at once; while they run, the weights are wrong as `planted` says."""

    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int
    temperature: float
    planted: Planted | None = None


class Watching(msgspec.Struct, frozen=True, tag=True):
    quantization: str
    reference: str
    kernels: str
    num_layers: int


class ScoredAnswer(msgspec.Struct, frozen=True, array_like=True):
    """`num_ended` requests had ended with this one. `figure` is what the detector watches, `kl` the
    mean divergence of a token."""

    num_ended: int
    figure: float
    kl: float


class Scored(msgspec.Struct, frozen=True, tag=True):
    answers: tuple[ScoredAnswer, ...]


class Refused(msgspec.Struct, frozen=True, tag=True):
    reason: str


News = Watching | Scored | Refused
