"""Settings of the engine, one frozen dataclass per component; the larger ones lie beside this file.

A component receives its own dataclass and never the root. What is learnt at run time (blocks that
fit, end-of-sequence ids) is a value passed on, never written back here. The metadata of a field is
what `novacron config explain` and `--help` print.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.config.setting import require, setting
from novacron.config.variants import Variant


@dataclass(frozen=True, kw_only=True)
class SpeculativeConfig:
    """Guessing tokens ahead and checking several in one step. Changes speed, never tokens."""

    speculative_method: Literal["off", "ngram", "draft"] = setting(
        "off",
        "where guesses come from; ngram: from what followed the same tokens before; "
        "draft: from a smaller model",
    )
    speculative_model: str = setting(
        "", "draft: Hugging Face folder of a model with the same vocabulary; empty: the bundled one"
    )
    num_speculative_tokens: int = setting(
        8, "most tokens guessed ahead of a request; fewer, or none, where more do not pay"
    )
    prompt_lookup_min: int = setting(2, "fewest last tokens that must have occurred before")
    prompt_lookup_max: int = setting(8, "most last tokens compared to find the best place")

    def __post_init__(self) -> None:
        for key in ("num_speculative_tokens", "prompt_lookup_min"):
            require(getattr(self, key) > 0, key, getattr(self, key), "give a positive number")
        require(
            self.prompt_lookup_max >= self.prompt_lookup_min,
            "prompt_lookup_max", self.prompt_lookup_max,
            f"must be at least prompt_lookup_min ({self.prompt_lookup_min})",
        )  # fmt: skip


NO_SPECULATION: Final = SpeculativeConfig()


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Watching, while the model serves, what its precision loses. Changes no answer."""

    quality_watch: float = setting(
        0.0,
        "share of finished answers that the unrounded model scores again in idle time, its weights "
        "mapped from disk: 0.05; 0: none",
    )
    quality_floor: float = setting(
        0.97,
        "with quality_watch: quality, exp(-KL from the unrounded model) per token, below which an "
        "alert is logged, and new requests go to the next finer of several variants",
    )

    def __post_init__(self) -> None:
        for key in ("quality_watch", "quality_floor"):
            share = getattr(self, key)
            require(0 <= share <= 1, key, share, "give a fraction from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class SharedDevice:
    """The other variants that this server loads onto the same device, and what was free there
    before the first engine (None: measure it), so that all of them share out the same bytes."""

    others: tuple[Variant, ...] = ()
    free_bytes: int | None = None


ALONE: Final = SharedDevice()


@dataclass(frozen=True, kw_only=True)
class RanksApart:
    """The stages of a pipeline that are on other hosts, and the links to them: see ClusterConfig.
    Without `hosts`, all ranks are where the engine is."""

    hosts: tuple[str, ...] = ()
    link_key: str = ""
    link_timeout: float = 5.0
    compression: Literal["none", "int8"] = "none"


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """All that one engine process needs. Crosses the process line as JSON."""

    model: ModelConfig = field(default_factory=ModelConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    speculative: SpeculativeConfig = field(default_factory=SpeculativeConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    shared: SharedDevice = field(default_factory=SharedDevice)
    apart: RanksApart = field(default_factory=RanksApart)
    stream_flush_interval: float = 0.0
    heartbeat_timeout: float = 30.0
    step_timeout: float = 600.0
    canary_interval: float = 0.0
    canary_timeout: float = 20.0
    log_level: str = "info"
    log_format: Literal["auto", "text", "json"] = "auto"

    def after_measuring(self, free_bytes: int) -> EngineConfig:
        """For an engine that starts once a first one has found so much free. The same for one that
        shares its device with no other of ours: it measures for itself, whenever it starts."""
        is_alone = not self.shared.others and self.model.data_parallel_size == 1
        if is_alone or self.shared.free_bytes is not None:
            return self
        return replace(self, shared=replace(self.shared, free_bytes=free_bytes))
