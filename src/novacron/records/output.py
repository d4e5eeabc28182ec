"""What comes back from the engine: tokens across the process line, text to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from novacron.records.codec_totals import CodecTotals, sum_of_codecs
from novacron.records.latency_counts import LatencyCounts
from novacron.records.parallel_stats import LinkStats, RankLinkStats, RankStats
from novacron.records.request import FinishReason
from novacron.records.share_stats import ShareStats, sum_of_shares
from novacron.records.step import PositionLogprobs


class EngineOutput(msgspec.Struct, frozen=True, array_like=True):
    """News of one request from one step, as the engine process sends it.

    `stop_token_id` names the token that ended the request when that is not the end-of-sequence
    token; `error` is set if and only if `finish_reason` is ERROR; `was_shed`: the request was sent
    away before it began, because too many wait. Times are time.monotonic(), which processes of one
    host share; they are set on the first output of a request and on its last.
    """

    request_id: str
    new_token_ids: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()
    prompt_logprobs: tuple[PositionLogprobs, ...] = ()
    embedding: tuple[float, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    error: str | None = None
    num_cached_tokens: int = 0
    first_scheduled_time_s: float | None = None
    was_shed: bool = False


class WatchStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the watch over a variant's quality has found. `quality`, `top1_agreement` and `kl` (nats
    a token) are of the answers that were scored last; None before the first."""

    num_scored: int = 0
    num_dropped: int = 0  # sampled, and given up for lack of time or room
    num_alerts: int = 0
    seconds: float = 0.0  # spent on scoring
    quality: float | None = None
    top1_agreement: float | None = None
    kl: float | None = None
    is_alarmed: bool = False


PREFETCH_BUFFER: Final = "prefetch"  # the kind of a tier that holds what was fetched ahead


class TierSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A place for blocks below the device. It never takes more than `capacity_bytes` (0: what is
    there to take is the business of the server that it is on). A shared one is asked for what
    others have put there. `region`: where it is; empty: not said."""

    kind: str  # ram, prefetch, disk, redis, object
    capacity_bytes: int
    is_shared: bool = False
    region: str = ""


PRESSURES: Final = ("low", "medium", "high", "critical")
BREAKERS: Final = ("closed", "half_open", "open")  # the states of a circuit breaker, best first


class TierStats(msgspec.Struct, frozen=True, kw_only=True):
    """A KV tier: how full it is, and totals since the engine's start."""

    kind: str
    capacity_bytes: int
    used_bytes: int = 0  # of a shared folder: all that is in it
    num_blocks: int = 0  # that requests of this model can find
    hit_tokens: int = 0  # of prompts, brought from here
    num_stored: int = 0  # blocks, like the next ones
    num_parked: int = 0  # among them, of interrupted work, while a step waited
    num_demoted: int = 0  # among them, because they left a faster tier
    num_warmed: int = 0  # among them, brought from disk after the start
    num_warm_used: int = 0  # of these, found by a request
    num_loaded: int = 0
    num_missing: int = 0  # were expected and gone
    num_mismatches: int = 0  # did not check, and were dropped
    num_errors: int = 0  # times that the tier itself failed
    num_evicted: int = 0  # left to make room
    num_regretted: int = 0  # of these, asked for again not long after
    loaded_bytes: int = 0
    load_s: float = 0.0  # reading, checking and copying
    stored_bytes: int = 0
    store_s: float = 0.0  # choosing places, and writing
    lookups: LatencyCounts = LatencyCounts()  # asking what is there, of tiers on other machines
    loads: LatencyCounts = LatencyCounts()  # each of some blocks of one request
    stores: LatencyCounts = LatencyCounts()  # each of some blocks
    load_breaker: str = "closed"  # half_open, open: it failed, and is left alone for a while
    store_breaker: str = "closed"
    pressure: str = "low"  # medium, high, critical: the machine runs out of what it is made of
    codec: CodecTotals | None = None  # where blocks are compressed


class SessionStats(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations: how many are remembered, and totals of their turns. A return is a turn after
    the first; its tokens are those of its prompt, hits those of them that were cached."""

    num_sessions: int = 0
    num_turns: int = 0
    num_returns: int = 0
    return_tokens: int = 0
    return_hit_tokens: int = 0


class CanaryStats(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the small requests by which an engine is tried: see engine/canary.py.
    `last_passed_s` is time.monotonic() here; 0: none has."""

    num_passed: int = 0
    num_wrong: int = 0
    num_missing: int = 0  # that had no answer in time
    last_passed_s: float = 0.0
    last_took_s: float = 0.0
    is_failing: bool = False  # the last one


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """State and totals of the engine after a step. Totals only grow while the engine lives."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_used_blocks: int = 0  # held by running requests
    num_cached_blocks: int = 0  # held by nobody, kept for their content
    num_steps: int = 0
    num_preemptions: int = 0
    num_shed: int = 0  # requests sent away for others, because too many waited
    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    prompt_tokens: int = 0  # computed, cached ones left out
    generation_tokens: int = 0
    num_drafts: int = 0  # times that a request's next tokens were guessed
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0  # of the draft tokens, those that were right
    speculative_method: str = "off"  # where they come from
    step_time_s: float = 0.0  # total inside steps
    draft_time_s: float = 0.0  # total that a draft model took of it
    schedule_time_s: float = 0.0  # total inside Scheduler.schedule and update
    watch: WatchStats | None = None  # where quality is watched
    kv_tiers: tuple[TierStats, ...] = ()
    num_loading: int = 0  # requests that wait for blocks from a tier
    num_tier_stores_dropped: int = 0  # blocks whose place was needed before they were stored
    num_tier_waits: int = 0  # times that a request waited for blocks from a tier
    tier_wait_s: float = 0.0  # total of these
    num_recomputed_instead: int = 0  # times that a prefix was computed because that is quicker
    tier_lookup_s: float = 0.0  # total of looking for prefixes in tiers
    tier_lookups: LatencyCounts = LatencyCounts()  # of these, without asking any tier
    sessions: SessionStats = SessionStats()
    shares: ShareStats = ShareStats()
    num_pinned_blocks: int = 0  # that tiers keep whatever comes
    rank_pids: tuple[int, ...] = ()  # processes beside the engine's own that compute its steps
    num_ranks_replaced: int = 0  # by new processes, because they had ended or hung
    lost_ranks: tuple[int, ...] = ()  # whose processes do not compute with the others yet, or again
    canary: CanaryStats | None = None  # where there is one
    ranks: tuple[RankStats, ...] = ()  # where there are several
    rank_links: tuple[RankLinkStats, ...] = ()  # where they are on several hosts
    link: LinkStats | None = None  # where the engine is on another host

    def after_the_end(self) -> EngineStats:
        """Those of an engine that is gone: its totals, and nothing that runs or is held."""
        return msgspec.structs.replace(
            self,
            num_running=0,
            num_waiting=0,
            num_blocks=0,
            num_used_blocks=0,
            num_cached_blocks=0,
            num_loading=0,
            num_pinned_blocks=0,
            rank_pids=(),
            lost_ranks=(),
        )


_NO_NUMBERS: Final = (
    "watch", "speculative_method", "kv_tiers", "sessions", "shares", "rank_pids", "lost_ranks",
    "canary", "ranks", "rank_links", "link",
)  # fmt: skip


def sum_of(stats: Sequence[EngineStats]) -> EngineStats:
    """The figures of several engines as if they were one, the watches left out: their figures do
    not add up. What is of single ranks, links and canaries is that of the first."""
    if len(stats) == 1:
        return stats[0]
    numbers = {
        name: sum(getattr(one, name) for one in stats)
        for name in EngineStats.__struct_fields__
        if name not in _NO_NUMBERS
    }
    tiers: dict[str, list[TierStats]] = {}
    for tier in (tier for one in stats for tier in one.kv_tiers):
        tiers.setdefault(tier.kind, []).append(tier)
    return EngineStats(
        speculative_method=stats[0].speculative_method,
        kv_tiers=tuple(map(_sum_of_tiers, tiers.values())),
        sessions=_sum_of_sessions([one.sessions for one in stats]),
        shares=sum_of_shares([one.shares for one in stats]),
        rank_pids=tuple(pid for one in stats for pid in one.rank_pids),
        lost_ranks=stats[0].lost_ranks,
        canary=stats[0].canary,
        ranks=stats[0].ranks,
        rank_links=stats[0].rank_links,
        link=stats[0].link,
        **numbers,
    )


def _sum_of_sessions(sessions: Sequence[SessionStats]) -> SessionStats:
    names = SessionStats.__struct_fields__
    return SessionStats(**{name: sum(getattr(one, name) for one in sessions) for name in names})


def _sum_of_tiers(tiers: Sequence[TierStats]) -> TierStats:
    """Of one kind. On disk they share a folder, of which each tells the whole. A breaker counts as
    open if any is, and the worst pressure is that of all."""
    of_folder = ("capacity_bytes", "used_bytes") if tiers[0].kind == "disk" else ()
    breakers = ("load_breaker", "store_breaker")
    numbers = {
        name: (max if name in of_folder else sum)(getattr(tier, name) for tier in tiers)
        for name in TierStats.__struct_fields__
        if name not in ("kind", "codec", "pressure", *breakers)
    }
    worst = {
        name: max((getattr(tier, name) for tier in tiers), key=BREAKERS.index) for name in breakers
    }
    codec = sum_of_codecs([tier.codec for tier in tiers if tier.codec is not None])
    pressure = max((tier.pressure for tier in tiers), key=PRESSURES.index)
    return TierStats(kind=tiers[0].kind, codec=codec, pressure=pressure, **worst, **numbers)


class DraftModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the draft model. It guesses up to `context_length` tokens of a request."""

    name: str
    architecture: str
    num_parameters: int
    weight_bytes: int
    kv_cache_bytes: int
    context_length: int


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about the loaded model, learnt by the engine process and passed to everyone else."""

    name: str
    model_version: str  # digest of config and weights
    architecture: str
    vocab_size: int
    hidden_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    dtype: str
    quantization: str = "none"  # of the weights, for people
    device: str
    num_parameters: int
    weight_bytes: int
    num_blocks: int
    block_size: int
    kv_cache_bytes: int
    kv_precision: str = ""  # of the cache's layers, for people
    kv_identity: str = ""  # what equal blocks agree in beside the model: precisions, order of bytes
    load_phases_s: dict[str, float] = {}  # start-up time by phase, in order
    draft_model: DraftModelSpec | None = None
    kv_tiers: tuple[TierSpec, ...] = ()  # below the device, fastest first
    device_free_bytes: int = 0  # of the device's memory, before this model was loaded
    tensor_parallel_size: int = 1  # processes that compute each layer together
    context_parallel_size: int = 1  # processes that share the tokens of prompts out
    pipeline_parallel_size: int = 1  # groups of such, each with some of the layers
    rank_pids: tuple[int, ...] = ()  # those beside the engine's own
    rank_hosts: tuple[str, ...] = ()  # names of those of ranks 1 and following, if elsewhere
    host: str = ""  # its name, where that is not this one
    region: str = ""  # where it computes; empty: not said
    follows_a_crash: bool = False  # of a rank on another host, in whose place one of its ranks is

    @property
    def fineness(self) -> tuple[float, float]:
        """Orders the variants of one model: the finer one takes more bytes for its weights, or else
        for a cached token."""
        tokens = max(1, self.num_blocks * self.block_size)
        return float(self.weight_bytes), self.kv_cache_bytes / tokens


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token, its text and its log-probability. `data` are the bytes the text is a part of."""

    token_id: int
    text: str
    logprob: float
    data: bytes


class TextLogprobs(msgspec.Struct, frozen=True):
    """The chosen token at one position of the text, and the likeliest ones there."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


class RequestOutput(msgspec.Struct, frozen=True, kw_only=True):
    """News of one request for its caller: a piece of text, and at the end why it ended.

    Pieces joined give the text. A slow caller gets fewer, longer pieces. Exactly one output of a
    request has a finish_reason, and it is the last. `stop_reason` is the stop string or token id.
    `first_scheduled_time_s` (time.monotonic()) is set on the first output at the latest. `pause_s`
    is set on the first output after an engine's death: how long nothing came because of it.
    """

    request_id: str
    index: int = 0  # which of the n completions
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TextLogprobs, ...] = ()
    prompt_logprobs: tuple[TextLogprobs | None, ...] = ()
    embedding: tuple[float, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: str | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0  # so far
    num_cached_tokens: int = 0
    first_scheduled_time_s: float | None = None
    pause_s: float | None = None
    was_shed: bool = False

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None
