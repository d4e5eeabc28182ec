"""Settings of the engine, one frozen dataclass per component.

A component receives its own dataclass and never the root. What is learnt at run time (blocks that
fit, end-of-sequence ids) is a value passed on, never written back here. The metadata of a field is
what `novacron config explain` and `--help` print.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from novacron.config.kv_layers import check_kv_precision
from novacron.config.privacy import check_encryption_key, check_region
from novacron.config.remote_tiers import TIER_KINDS, check_remote_tiers
from novacron.config.variants import Variant, parse_variants
from novacron.config.weight_layers import parse_weight_layers
from novacron.errors import ConfigError

MOST_REPLICAS: Final = 64


def setting(
    default: Any, help: str, *, flags: tuple[str, ...] = (), unit: str = "", secret: bool = False
) -> Any:
    """A documented dataclass field. `flags` are extra spellings; `unit` is "bytes" or "s" where
    the value may be written as a quantity or a duration; a secret is never shown."""
    metadata = {"help": help, "flags": flags, "unit": unit, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


def require(condition: bool, key: str, value: object, remedy: str) -> None:
    """The message starts with the key: `load` finds the origin of the value by it."""
    if not condition:
        raise ConfigError(f"{key} is {value!r}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how its weights are held."""

    model: str = setting(
        "", "Hugging Face folder, name or GGUF file; empty: the bundled model", flags=("--model",)
    )
    served_model_name: tuple[str, ...] = setting(
        (), "names clients may use; empty: that of the folder or file"
    )
    tokenizer: str = setting("", "folder of the tokenizer; empty: the model's")
    chat_template: str = setting("", "file with a chat template that replaces the tokenizer's")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "precision of weights and activations; auto: the checkpoint's, if the device is fast at it",
    )
    quantization: Literal[
        "auto", "none", "fp32", "fp16", "bf16", "fp8", "int8", "int4",
        "memory_critical", "balanced", "quality_critical",
    ] = setting(
        "auto",
        "precision of weights, made at load: one level for all of them, or a profile with a level "
        "for each part of a model, see novacron quantize --explain; auto: that of a folder which "
        "novacron quantize wrote, else none; inputs of int8 and int4 weights are rounded to int8",
        flags=("-q",),
    )  # fmt: skip
    quantization_layers: tuple[str, ...] = setting(
        (),
        "matrices of another precision, as PATTERN=LEVEL with a glob over their names in a Llama "
        "checkpoint: model.layers.0.*=int8,*.down_proj.weight=int4/64 (in groups of 64)",
    )
    quantization_group_size: int | None = setting(
        None,
        "neighbouring weights that share a scale in int8 and int4: 32, 64 or 128; empty: 32 in "
        "int4, and in int8 the largest that divides a row",
    )
    variants: tuple[str, ...] = setting(
        (),
        "further precisions of the model, each loaded beside it in a process of its own, as "
        "QUANTIZATION or QUANTIZATION:KV_CACHE_DTYPE: int8,none. Requests choose among them, and "
        "with quality_watch new requests go to the next finer one while quality is below the floor",
    )
    packed_cache_size: int = setting(
        32 * 2**30,
        "most bytes on disk of weights packed for the CPU, which later starts map; 0: keep none",
        unit="bytes",
    )
    cache_dir: str = setting(
        "", "folder for what can be made again, below novacron/ in it; empty: ~/.cache"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: cuda if there is one, else cpu")
    max_model_len: int | None = setting(
        None,
        "longest prompt plus output, in tokens; empty: what the model was made for",
        flags=("-c",),
    )
    seed: int | None = setting(
        None, "makes the seeds drawn for requests that bring none repeatable; empty: random"
    )
    region: str = setting(
        "",
        "where this server (or engine, with novacron engine) and its disk are, such as "
        "eu-central: data of tenants that may not be there never gets there; empty: not said",
    )
    num_threads: int = setting(
        0,
        "threads for computing on CPU, of each variant and of all its replicas together; 0: one "
        "per physical core we may use",
    )
    tensor_parallel_size: int = setting(
        1,
        "processes that compute each step together, every one with its slice of the weights and of "
        "the KV cache: 1, 2 or 4, on this host, where they share num_threads, or one on each of "
        "rank_hosts; on CPU only so far",
        flags=("-tp",),
    )
    context_parallel_size: int = setting(
        1,
        "processes that share the tokens of long prompts out: each has all weights, and computes "
        "some rows of every chunk, on KV blocks that all share; what is short, such as the next "
        "token of each request, the first one computes alone, with all of num_threads: 1 to 8; on "
        "CPU with native kernels only so far",
        flags=("-cp", "--prefill-context-parallel-size"),
    )
    pipeline_parallel_size: int = setting(
        1,
        "stages, each with some of the layers and their KV cache, that compute several steps at "
        "once, one behind the other; each has tensor_parallel_size processes: 1 to 16; on CPU only "
        "so far",
        flags=("-pp",),
    )
    pipeline_steps_in_flight: int = setting(
        0,
        "steps that the stages of a pipeline compute at once, each with its share of the requests "
        "and of num_threads; 1: stages take turns, with all requests and all threads, which reads "
        "the weights least often; 0: what is best where all stages share the cores of a host: 1",
    )
    rank_timeout: float = setting(
        10.0,
        "seconds that others may wait for one of several ranks that neither computes nor waits for "
        "a core, before it is taken to hang, killed and replaced by a new process",
    )
    data_parallel_size: int = setting(
        1,
        "replicas: whole engines beside each other, among which requests are shared out by what "
        "they have cached and by load, and of which one can die or be restarted while others "
        "serve; num_threads, kv_cache_memory and kv_ram_size are for all of them together, "
        "max_num_seqs and max_queued_requests for each",
        flags=("-dp",),
    )
    kernels: Literal["auto", "native", "torch"] = setting(
        "auto",
        "what computes on CPU: our native kernels or PyTorch; auto: native where they are built",
    )
    compilation: str = setting(
        "off",
        "where PyTorch computes (a GPU, kernels=torch): compile the feed-forward part of layers at "
        "start; torch: with torch.compile's inductor; or the name of an installed plug-in, such as "
        "openvino or tensorrt; takes seconds to minutes at every start",
    )

    def __post_init__(self) -> None:
        require(
            self.max_model_len is None or self.max_model_len > 0,
            "max_model_len", self.max_model_len, "give a positive number, or leave it out",
        )  # fmt: skip
        require(self.num_threads >= 0, "num_threads", self.num_threads, "give 0 or more")
        require(
            self.tensor_parallel_size in (1, 2, 4), "tensor_parallel_size",
            self.tensor_parallel_size, "choose 1, 2 or 4",
        )  # fmt: skip
        require(
            1 <= self.context_parallel_size <= 8, "context_parallel_size",
            self.context_parallel_size, "choose 1 to 8",
        )  # fmt: skip
        require(
            1 <= self.pipeline_parallel_size <= 16, "pipeline_parallel_size",
            self.pipeline_parallel_size, "choose 1 to 16",
        )  # fmt: skip
        require(
            0 <= self.pipeline_steps_in_flight <= 32, "pipeline_steps_in_flight",
            self.pipeline_steps_in_flight, "choose 1 to 32, or 0",
        )  # fmt: skip
        require(
            self.rank_timeout > 0, "rank_timeout", self.rank_timeout, "give seconds, such as 10"
        )
        require(
            1 <= self.data_parallel_size <= MOST_REPLICAS, "data_parallel_size",
            self.data_parallel_size, f"give a number from 1 to {MOST_REPLICAS}",
        )  # fmt: skip
        require(
            self.packed_cache_size >= 0, "packed_cache_size", self.packed_cache_size,
            "give a size such as 32Gi, or 0",
        )  # fmt: skip
        check_region("region", self.region)
        parse_weight_layers(self.quantization_layers)
        parse_variants(self.variants)
        size = self.quantization_group_size
        require(
            size in (None, 32, 64, 128), "quantization_group_size", size,
            "choose 32, 64 or 128, or leave it out",
        )  # fmt: skip


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


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What may run in one step."""

    max_num_seqs: int = setting(64, "most requests in one step")
    max_num_batched_tokens: int = setting(
        2048, "most tokens in one step, prompts and outputs together"
    )
    scheduling_policy: Literal["fair", "fcfs", "priority", "deadline"] = setting(
        "fair",
        "who goes first; fair: the lower priority number, then tenants in turn by what they were "
        "served, in proportion to their weights; fcfs: by arrival; priority: the lower number, "
        "then by arrival; deadline: whose first token is due first (slo_class, ttft_slo)",
    )
    priority_ageing: float = setting(
        30.0,
        "fair: waiting requests of a priority that are never let in count, after so long, as those "
        "of the next named one (normal for low): so nobody waits for ever; 0: they do",
        unit="s",
    )
    shared_chunk_tokens: int = setting(
        128,
        "fair: most prompt tokens in a step of tenants with far more requests than another that "
        "has just been there, so that its next request does not wait for a long step; 0: no limit",
    )
    enable_chunked_prefill: bool = setting(
        True, "compute long prompts in parts beside running requests"
    )
    max_queued_requests: int = setting(1024, "most requests waiting; more are refused with 503")
    preemption_mode: Literal["swap", "recompute"] = setting(
        "swap",
        "a request whose KV blocks are needed for others: its tokens go to the KV tier in RAM, or "
        "are computed again",
    )

    def __post_init__(self) -> None:
        for key in ("max_num_seqs", "max_num_batched_tokens", "max_queued_requests"):
            require(getattr(self, key) > 0, key, getattr(self, key), "give a positive number")
        require(
            self.priority_ageing >= 0, "priority_ageing", self.priority_ageing, "give 0 or more"
        )
        require(
            self.shared_chunk_tokens >= 0, "shared_chunk_tokens", self.shared_chunk_tokens,
            "give 0 or more",
        )  # fmt: skip
        require(
            self.max_num_batched_tokens >= self.max_num_seqs,
            "max_num_batched_tokens", self.max_num_batched_tokens,
            f"must be at least max_num_seqs ({self.max_num_seqs}), a token for each",
        )  # fmt: skip


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
