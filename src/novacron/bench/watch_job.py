"""What crosses between the bench and watched_engine: requests, and how their answers scored.

Each as a line of JSON: a WatchJob first, answered by Watching or Refused; then one Traffic after
the other, each answered by Scored or Refused, or Slices, answered by SliceRates or Refused, until
standard input is closed.
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


class Traffic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests that are there at once; while they run, the weights are wrong as `planted` says."""

    prompts: tuple[tuple[int, ...], ...]
    max_tokens: int
    temperature: float
    planted: Planted | None = None


class Slices(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Streams that always run, cut into rounds of two slices of time: one with the watch, and one
    in which it stands still."""

    prompts: tuple[tuple[int, ...], ...]
    num_streams: int
    num_rounds: int
    slice_s: float


Order = Traffic | Slices


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


class SliceRates(msgspec.Struct, frozen=True, tag=True):
    """Tokens per second of each slice, by rounds, and the share of the watched slices' time in
    which answers were scored."""

    watched: tuple[float, ...]
    plain: tuple[float, ...]
    busy: float


class Refused(msgspec.Struct, frozen=True, tag=True):
    reason: str


News = Watching | Scored | SliceRates | Refused
