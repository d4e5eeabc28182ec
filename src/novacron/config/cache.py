"""Settings of the KV cache and its tiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from novacron.config.kv_layers import check_kv_precision
from novacron.config.privacy import check_encryption_key, check_region
from novacron.config.remote_tiers import TIER_KINDS, check_remote_tiers
from novacron.config.setting import require, setting


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The KV cache on the device."""

    block_size: int = setting(16, "tokens per KV block")
    kv_cache_dtype: str = setting(
        "auto",
        "precision of cached keys and values, or KEYS/VALUES, as in int8/int4: float32, bfloat16, "
        "float16, int8, fp8 (e4m3), int4; auto: what the profile in quantization has, else the "
        "model's own. With 8 and 4 bits more tokens fit, with scales per token and head",
    )
    kv_cache_dtype_layers: tuple[str, ...] = setting(
        (),
        "layers of another precision, as LAYERS=DTYPE or LAYERS=KEYS/VALUES with an index or a "
        "slice as in Python: 0=bf16,-2:=bf16/int8",
    )
    kv_cache_memory: int | None = setting(
        None,
        "bytes of KV cache, of all variants and replicas together; empty: what the device can "
        "spare, but no more than can be used",
        unit="bytes",
    )  # fmt: skip
    gpu_memory_utilization: float = setting(
        0.9, "share of a GPU's memory we may use, weights included"
    )
    cpu_memory_utilization: float = setting(0.5, "share of the free RAM that the KV cache may use")
    enable_prefix_caching: bool = setting(True, "reuse blocks of equal prompt prefixes")
    kv_ram_size: int | None = setting(
        None,
        "most bytes of RAM for KV blocks beside those on the device, of all replicas together; 0: "
        "none; empty: 4Gi, but no more than an eighth of the free RAM",
        unit="bytes",
    )
    kv_eviction_policy: Literal["lru", "lfu", "ttl", "arc", "cost", "learned"] = setting(
        "learned",
        "which KV blocks leave a full tier in RAM or on disk first: used longest ago, least often, "
        "not for an hour (whether it is full or not), ARC, by several factors, or by what was "
        "learned of when blocks come back",
    )
    kv_eviction_weights: str = setting(
        "",
        "with the policy cost: what each factor counts, as temporal=0.5,prediction=0.5, of "
        "temporal, frequency, prediction, size, recompute and context; empty: its own",
    )
    kv_eviction_ttl: float = setting(
        3600.0, "with the policy ttl: how long a KV block stays after its last use", unit="s"
    )
    kv_disk_size: int | None = setting(
        None,
        "most bytes on disk for KV blocks, which a later start finds again; 0: none; empty: 20Gi, "
        "but no more than a tenth of the free disk",
        unit="bytes",
    )
    kv_disk_path: str = setting(
        "", "folder for KV blocks, which servers may share; empty: novacron/kv in cache_dir"
    )
    kv_redis_url: str = setting(
        "",
        "Redis or Valkey server for KV blocks, which servers share: redis://host:6379/0, "
        "rediss://user:password@host, unix:///run/redis.sock; empty: none",
        secret=True,
    )
    kv_redis_size: int | None = setting(
        None,
        "most bytes of KV blocks there, of one model and precision, of all servers together; "
        "empty: what the Redis server takes",
        unit="bytes",
    )
    kv_redis_compression: Literal["raw", "zstd", "int8", "fp8", "int8/int4", "int4"] = setting(
        "raw",
        "what KV blocks there are stored in; zstd loses nothing, with the others answers depend a "
        "little on hits",
    )
    kv_redis_ttl: float = setting(
        86400.0, "how long a block stays there after its last use; 0: for ever", unit="s"
    )
    kv_redis_region: str = setting(
        "", "where the Redis server is; blocks of tenants that may not be there are not put there"
    )
    kv_redis_prefix: str = setting(
        "novacron", "what the names of KV blocks there begin with; servers that share have the same"
    )
    kv_redis_deadline: float = setting(
        0.5,
        "longest that a request waits for the Redis server to tell what it has, and for its "
        "blocks; what is not there by then is computed",
        unit="s",
    )
    kv_object_url: str = setting(
        "",
        "bucket for KV blocks, to archive or to move them: s3://bucket/prefix, gs://, az://, or "
        "file:///folder; its keys and region come from the environment, as for the store's own "
        "tools; empty: none",
        secret=True,
    )
    kv_object_region: str = setting("", "where the bucket is")
    kv_object_size: int | None = setting(
        None,
        "most bytes of KV blocks there, of one model and precision; empty: no limit",
        unit="bytes",
    )
    kv_object_compression: Literal["raw", "zstd", "int8", "fp8", "int8/int4", "int4"] = setting(
        "raw", "the same of KV blocks in the bucket"
    )
    kv_object_deadline: float = setting(
        3.0, "longest that a request waits for blocks from the bucket", unit="s"
    )
    kv_object_refresh: float = setting(
        300.0, "time between two looks at what others have put into the bucket", unit="s"
    )
    kv_tier_order: tuple[str, ...] = setting(
        TIER_KINDS,
        "KV tiers from the fastest to the slowest: a block is taken from the first that has it",
    )
    kv_prefetch: Literal["off", "conservative", "aggressive", "adaptive"] = setting(
        "off",
        "bring blocks from disk into an eighth of kv_ram_size before they are needed; "
        "conservative: those of waiting requests, and pinned ones at start, when what was used "
        "most also fills a quarter of the RAM tier; "
        "aggressive: also of sessions whose next turn is due; "
        "adaptive: of these only while enough of them were used",
    )
    kv_prefetch_bandwidth: int = setting(
        256 * 2**20, "most bytes a second that are fetched ahead", unit="bytes"
    )
    kv_trace: str = setting(
        "",
        "file to write when requests came and what they have in common to, for novacron cache "
        "simulate and tune: no text, and digests under a key that is kept nowhere; where it "
        "exists, one with .1 and so on",
    )
    kv_pin_share: float = setting(
        0.5, "most of the smallest KV tier that pinned prefixes may take; 0: nothing can be pinned"
    )
    kv_scope_share: float = setting(
        0.5,
        "most that one API key of several, or one cache_salt, may take of the pins, and of a KV "
        "tier while others want room there, who have equal shares at least",
    )
    kv_tier_profile: Literal["lossless", "ladder"] = setting(
        "lossless",
        "what KV blocks are stored in below the device; lossless: as they are, so that a hit gives "
        "the tokens of computing anew; ladder: int8 in RAM, int8/int4 on disk, where "
        "novacron bench kv-codecs has measured that the model bears it",
    )
    kv_ram_compression: Literal["auto", "raw", "int8", "fp8", "int8/int4", "int4"] = setting(
        "auto",
        "what KV blocks are stored in in RAM: raw, int8, fp8, int8/int4 (keys/values) or int4; "
        "answers then depend a little on hits; auto: what kv_tier_profile has",
    )
    kv_ram_max_error: float | None = setting(
        None,
        "relative error of its keys or values above which a block is stored finer; empty: about "
        "three times that of ordinary blocks",
    )
    kv_disk_compression: Literal["auto", "raw", "int8", "fp8", "int8/int4", "int4"] = setting(
        "auto", "the same of KV blocks on disk"
    )
    kv_disk_max_error: float | None = setting(None, "the same of KV blocks on disk")
    encryption_key: str = setting(
        "",
        "where the master key is that all that is kept is encrypted with (KV blocks on disk, in "
        "Redis and in buckets, answers of the response cache, prompts, streams on record): "
        "env:VARIABLE, file:/path/of/key, or vault:https://HOST:8200/v1/MOUNT/data/NAME#FIELD; "
        "empty: it is not",
    )

    def __post_init__(self) -> None:
        size = self.block_size
        require(size in (8, 16, 32, 64, 128), "block_size", size, "choose 8, 16, 32, 64 or 128")
        check_kv_precision(self)
        for key in ("gpu_memory_utilization", "cpu_memory_utilization"):
            share = getattr(self, key)
            require(0 < share <= 1, key, share, "give a fraction above 0 and up to 1")
        require(
            self.kv_cache_memory is None or self.kv_cache_memory > 0,
            "kv_cache_memory", self.kv_cache_memory, "give a size such as 4Gi, or leave it out",
        )  # fmt: skip
        check_remote_tiers(self)
        check_encryption_key(self.encryption_key)
        check_region("kv_redis_region", self.kv_redis_region)
        check_region("kv_object_region", self.kv_object_region)
        require(
            not self.kv_trace or self.enable_prefix_caching,
            "kv_trace", self.kv_trace, "leave enable_prefix_caching on, which hashes blocks",
        )  # fmt: skip
        require(
            self.kv_prefetch_bandwidth > 0, "kv_prefetch_bandwidth", self.kv_prefetch_bandwidth,
            "give a size such as 256Mi",
        )  # fmt: skip
        require(
            self.kv_eviction_ttl > 0, "kv_eviction_ttl", self.kv_eviction_ttl,
            "give a duration such as 1h",
        )  # fmt: skip
        for key in ("kv_pin_share", "kv_scope_share"):
            share = getattr(self, key)
            require(0 <= share <= 1, key, share, "give a fraction from 0 to 1")
        for key in ("kv_ram_size", "kv_disk_size", "kv_redis_size", "kv_object_size"):
            size_bytes = getattr(self, key)
            require(
                size_bytes is None or size_bytes >= 0,
                key, size_bytes, "give a size such as 20Gi, or 0, or leave it out",
            )  # fmt: skip
        for key in ("kv_ram_max_error", "kv_disk_max_error"):
            error = getattr(self, key)
            require(
                error is None or 0 <= error <= 1,
                key, error, "give a fraction from 0 to 1, or leave it out",
            )  # fmt: skip
