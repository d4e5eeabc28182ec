"""What of a model fits into a device's memory: a pure decision, made before a weight is read.

Memory is weights, what the largest step needs, and the KV cache, which gets the rest as far as
requests can use it. `plan_memory` refuses what does not fit, with numbers and what would help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from novacron.config.cache import CacheConfig
from novacron.config.engine import SpeculativeConfig
from novacron.config.kv_layers import KVPrecision
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, ModelLoadError
from novacron.kernels.kv_format import choose_kv_formats, describe_kv_formats

_COPIES_OF_LOGITS = 6  # that sampling makes: edited, weights (64 bit), their running sum
_PROMPT_LOGITS_ROWS = 128  # that logprobs of a prompt compute at a time
_LOGIT_BYTES = 4
_PLACES_OF_SUMS, _SUM_BYTES = 2, 4  # of partial sums that ranks exchange
_ALTERNATIVES = (
    "float32", "bfloat16", "float16", "bfloat16/int8", "int8", "fp8", "int8/int4", "int4"
)  # fmt: skip
_SUGGESTED = ("bfloat16", "int8", "int4")  # as far as they take less


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a model, of all its ranks together. `ffn_width` counts what a token needs
    between the matrices of a feed-forward network, experts included; `value_bytes` is one
    activation's size, and `kv_precision` what the KV cache is held in where its settings say
    "auto"."""

    name: str
    precision: str  # of its weights
    weight_bytes: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    ffn_width: int
    vocab_size: int
    kv_precision: KVPrecision
    value_bytes: int
    context_length: int
    longest_context: int
    num_ranks: int = 1  # that hold a slice of each layer
    num_stages: int = 1  # of so many ranks each
    steps_in_flight: int = 1
    layers: range | None = None  # those on this device; None: all


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a device before the model is loaded. `usable_share` is for us: on a GPU of all there
    is, elsewhere of what the weights leave free."""

    name: str
    free_bytes: int
    total_bytes: int
    usable_share: float
    is_own: bool  # a GPU's, which we expect to have for ourselves

    def left_for_cache(self, weight_bytes: int, step_bytes: int) -> int:
        """Bytes; 0 if there are none."""
        if self.is_own:
            used = self.total_bytes - self.free_bytes
            left = int(self.total_bytes * self.usable_share) - used - weight_bytes
        else:
            left = int((self.free_bytes - weight_bytes) * self.usable_share)
        return max(0, left - step_bytes)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another variant of the model that shares the device, and what it needs beside its KV
    cache."""

    name: str
    weight_bytes: int
    step_bytes: int


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a KV cache of one precision holds in the memory that there is for it."""

    kv_dtype: str  # or a description of several
    bytes_per_token: float
    max_streams: int  # requests of the longest context at once, as far as they may run at once
    context_of_all: int  # tokens for each of as many requests as may run at once
    context_of_one: int


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a device's memory is shared out."""

    device: DeviceMemory
    weight_bytes: int
    step_bytes: int
    step_tokens: int
    logit_rows: int
    kv_cache_bytes: int
    block_size: int
    num_blocks: int
    context: int  # tokens of a request at its longest, as asked for
    max_model_len: int  # the same as far as it fits
    max_num_seqs: int
    capacity: Capacity
    alternatives: tuple[Capacity, ...]
    neighbours: tuple[Neighbour, ...] = ()
    num_replicas: int = 1  # each of which takes all of this

    @property
    def num_caches(self) -> int:
        """Equal parts that the memory for KV caches is cut into."""
        return (1 + len(self.neighbours)) * self.num_replicas

    @property
    def summary(self) -> str:
        """One line for the log."""
        beside = "".join(
            f"; beside it {other.name}, {size_text(other.weight_bytes)} weights, "
            f"{size_text(other.step_bytes)} for its largest step, and as much for its KV cache"
            for other in self.neighbours
        )
        if self.num_replicas > 1:
            beside += f"; the same again for each of {self.num_replicas - 1} more replicas"
        return (
            f"{size_text(self.weight_bytes)} weights, {size_text(self.step_bytes)} for the largest "
            f"step, {size_text(self.kv_cache_bytes)} KV cache in {self.capacity.kv_dtype}, of "
            f"{size_text(self.device.free_bytes)} free on {self.device.name}{beside}; {self.fits}"
        )

    @property
    def fits(self) -> str:
        """What can run at once, and what else could."""
        here = self.capacity
        found = f"max_model_len {self.max_model_len:,} at {_streams(max(1, here.max_streams))}"
        if here.max_streams >= self.max_num_seqs:
            return f"{found}, all that max_num_seqs allows"
        found += f", or {here.context_of_all:,} tokens for each of {self.max_num_seqs}"
        better = [
            f"{_streams(other.max_streams)} of {self.context:,} with {other.kv_dtype}"
            for other in self.alternatives
            if other.kv_dtype in _SUGGESTED and other.max_streams > here.max_streams
        ]
        return "; ".join([found, *better])


def logit_rows(scheduler: SchedulerConfig, speculative: SpeculativeConfig) -> int:
    """Rows of logits of the largest step: one per request and one after each guess."""
    guesses = 0
    if speculative.speculative_method != "off":
        guesses = speculative.num_speculative_tokens
    rows = min(scheduler.max_num_batched_tokens, scheduler.max_num_seqs * (1 + guesses))
    return max(rows, _PROMPT_LOGITS_ROWS)


def step_bytes(
    shape: ModelShape, scheduler: SchedulerConfig, speculative: SpeculativeConfig
) -> int:
    """About what the largest step needs beside weights and cache; rather too much."""
    ranks = shape.num_ranks
    widths = 6 * shape.hidden_size * ranks + 4 * shape.num_heads * shape.head_dim + shape.ffn_width
    hidden = scheduler.max_num_batched_tokens * widths * shape.value_bytes
    if ranks > 1:  # what they exchange
        sums = _PLACES_OF_SUMS * ranks * shape.hidden_size * _SUM_BYTES
        hidden += scheduler.max_num_batched_tokens * sums
    if shape.num_stages > 1:  # what they hand on, and each one's copy of it
        handed_on = shape.num_stages * (shape.steps_in_flight + ranks) * shape.hidden_size
        hidden += scheduler.max_num_batched_tokens * handed_on * shape.value_bytes
    rows = logit_rows(scheduler, speculative)
    return hidden + rows * shape.vocab_size * _LOGIT_BYTES * _COPIES_OF_LOGITS


def block_bytes(shape: ModelShape, cache: CacheConfig) -> int:
    """Bytes that one block takes, all layers of the device together."""
    formats = choose_kv_formats(cache, shape.num_layers, shape.kv_precision)
    layers = range(shape.num_layers) if shape.layers is None else shape.layers
    of_one_head = sum(
        formats[layer].block_bytes(cache.block_size, shape.head_dim) for layer in layers
    )
    return shape.num_kv_heads * of_one_head


def plan_memory(
    shape: ModelShape,
    device: DeviceMemory,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
    *,
    max_model_len: int | None,
    draft: ModelShape | None = None,
    neighbours: tuple[Neighbour, ...] = (),
    num_replicas: int = 1,
) -> MemoryPlan:
    """Share out the memory. Without `max_model_len` the context is the model's, or what fits. A
    `draft` model has weights, steps, and a block beside each block of the model. `neighbours` are
    other variants on the device, none of which is loaded yet: what all weights and steps leave
    goes to the KV caches in equal parts. With `num_replicas` all of this is there as often; weights
    count for each, because those that are not mapped from the packed cache are in memory so often.

    Raises ModelLoadError if the weights do not fit, ConfigError if what was asked for does not.
    """
    weight_bytes = shape.weight_bytes + (0 if draft is None else draft.weight_bytes)
    all_weights = weight_bytes + sum(other.weight_bytes for other in neighbours)
    all_weights *= num_replicas
    if all_weights > device.free_bytes:
        beside = "".join(
            f" and those of the variant {other.name} {size_text(other.weight_bytes)}"
            for other in neighbours
        )
        fewer = " fewer variants," if neighbours else ""
        if num_replicas > 1:
            beside += f", {num_replicas} times (data_parallel_size)"
            fewer += " fewer replicas,"
        raise ModelLoadError(
            f"{shape.name}: the weights take {size_text(weight_bytes)} in {shape.precision}"
            f"{beside}, but {device.name} has {size_text(device.free_bytes)} free. Take a smaller "
            f"model,{fewer} or free some memory."
        )
    wanted = max_model_len or shape.context_length
    if wanted > shape.longest_context:
        raise ConfigError(
            f"max_model_len is {wanted}, but the model reaches {shape.longest_context} tokens. "
            "Ask for fewer."
        )
    for_step = step_bytes(shape, scheduler, speculative)
    beside_each_block = 0
    if draft is not None:
        for_step += step_bytes(draft, scheduler, SpeculativeConfig())
        beside_each_block = block_bytes(draft, CacheConfig(block_size=cache.block_size))
    all_steps = (for_step + sum(other.step_bytes for other in neighbours)) * num_replicas
    budget = device.left_for_cache(all_weights, all_steps)
    if cache.kv_cache_memory is not None:
        budget = cache.kv_cache_memory
    budget //= (1 + len(neighbours)) * num_replicas
    per_block = block_bytes(shape, cache) + beside_each_block
    blocks_each = -(-wanted // cache.block_size)
    num_blocks = min(budget // per_block, scheduler.max_num_seqs * blocks_each)
    longest = min(wanted, num_blocks * cache.block_size)

    def capacity(kv_dtype: str, of: CacheConfig) -> Capacity:
        return _capacity(
            kv_dtype,
            block_bytes(shape, of) + beside_each_block,
            budget,
            cache.block_size,
            wanted,
            scheduler,
        )

    chosen = describe_kv_formats(choose_kv_formats(cache, shape.num_layers, shape.kv_precision))
    plan = MemoryPlan(
        device=device,
        weight_bytes=weight_bytes,
        step_bytes=for_step,
        step_tokens=scheduler.max_num_batched_tokens,
        logit_rows=logit_rows(scheduler, speculative),
        kv_cache_bytes=num_blocks * per_block,
        block_size=cache.block_size,
        num_blocks=num_blocks,
        context=wanted,
        max_model_len=longest,
        max_num_seqs=scheduler.max_num_seqs,
        capacity=capacity(chosen, cache),
        alternatives=tuple(
            capacity(kv_dtype, replace(cache, kv_cache_dtype=kv_dtype, kv_cache_dtype_layers=()))
            for kv_dtype in _ALTERNATIVES
            if kv_dtype != chosen
        ),
        neighbours=neighbours,
        num_replicas=num_replicas,
    )
    _refuse_what_does_not_fit(plan, wanted, budget, per_block, cache, asked_for=max_model_len)
    return plan


def _capacity(
    kv_dtype: str,
    per_block: int,
    budget: int,
    block_size: int,
    context: int,
    scheduler: SchedulerConfig,
) -> Capacity:
    blocks, blocks_each = budget // per_block, -(-context // block_size)
    return Capacity(
        kv_dtype=kv_dtype,
        bytes_per_token=per_block / block_size,
        max_streams=min(scheduler.max_num_seqs, blocks // blocks_each),
        context_of_all=min(context, blocks // scheduler.max_num_seqs * block_size),
        context_of_one=min(context, blocks * block_size),
    )


def _refuse_what_does_not_fit(
    plan: MemoryPlan,
    wanted: int,
    budget: int,
    per_block: int,
    cache: CacheConfig,
    *,
    asked_for: int | None,
) -> None:
    what_there_is = (
        f"{size_text(plan.device.free_bytes)} free on {plan.device.name}, "
        f"{size_text(plan.weight_bytes)} weights, {size_text(plan.step_bytes)} for a step of "
        f"{plan.step_tokens} tokens and {plan.logit_rows} rows of logits"
    )
    weights_and_steps = plan.weight_bytes + plan.step_bytes
    for other in plan.neighbours:
        weights_and_steps += other.weight_bytes + other.step_bytes
        what_there_is += (
            f", beside them for the variant {other.name} {size_text(other.weight_bytes)} weights "
            f"and {size_text(other.step_bytes)} for a step"
        )
    if plan.num_replicas > 1:
        weights_and_steps *= plan.num_replicas
        what_there_is += f", all of it {plan.num_replicas} times (data_parallel_size)"
    if plan.num_caches > 1:
        what_there_is += f", and the KV caches in {plan.num_caches} equal parts"
    if cache.kv_cache_memory is not None:
        rest = max(0, plan.device.free_bytes - weights_and_steps)
        if plan.kv_cache_bytes * plan.num_caches > rest:
            raise ConfigError(
                f"kv_cache_memory is {size_text(cache.kv_cache_memory)}, but {size_text(rest)} are "
                f"left for it: {what_there_is}. Ask for less, or free some memory."
            )
    elif plan.device.usable_share < 1:
        what_there_is += f", of which the utilization setting allows {plan.device.usable_share:.0%}"
    if plan.num_blocks < 1:
        raise ConfigError(
            f"The KV cache may use {size_text(budget)}, but one block takes {size_text(per_block)} "
            f"({what_there_is}). Raise kv_cache_memory or the memory utilization, lower "
            "max_num_batched_tokens or max_num_seqs, or free some memory."
        )
    if asked_for is None or plan.max_model_len >= wanted:
        return
    others = [
        f"{other.context_of_one:,} with kv_cache_dtype {other.kv_dtype}"
        for other in plan.alternatives
        if other.kv_dtype in _SUGGESTED and other.context_of_one > plan.max_model_len
    ]
    raise ConfigError(
        f"max_model_len is {wanted}, but the KV cache has room for {plan.max_model_len} tokens "
        f"only: one takes {size_text(plan.capacity.bytes_per_token)} in {plan.capacity.kv_dtype}, "
        f"and {size_text(budget)} are left ({what_there_is}). What fits: "
        f"{', '.join([f'max_model_len {plan.max_model_len:,}', *others])}; or raise "
        "kv_cache_memory or the memory utilization."
    )


def size_text(num_bytes: float) -> str:
    """1610612736 -> 1.5 GiB"""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if num_bytes >= 1024**power:
            return f"{num_bytes / 1024**power:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
