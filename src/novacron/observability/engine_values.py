"""What metrics tell of the engine as a whole."""

from __future__ import annotations

from novacron.observability.definition import Values, counter, gauge, single
from novacron.observability.ratios import hit_rates, kv_cache_usage
from novacron.observability.snapshots import EngineSnapshot
from novacron.records.output import ModelSpec

DEFINITIONS = (
    gauge("vllm:num_requests_running", "Requests in the running batch."),
    gauge("vllm:num_requests_waiting", "Requests waiting to be scheduled."),
    gauge("vllm:kv_cache_usage_perc", "Share of KV blocks held by requests, 0 to 1."),
    gauge(
        "vllm:cache_config_info",
        "Shape of the KV cache; always 1.",
        "block_size",
        "num_gpu_blocks",
        "kv_cache_bytes",
    ),
    counter("vllm:prompt_tokens", "Prompt tokens, cached ones included."),
    counter("vllm:generation_tokens", "Generated tokens."),
    counter(
        "vllm:num_preemptions", "Requests put back into the queue, for lack of KV blocks or seats."
    ),
    counter(
        "novacron_ranks_replaced", "Ranks that ended or hung, and whose place a new process took."
    ),
    counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    counter(
        "vllm:spec_decode_num_drafts", "Times that a request's next tokens were guessed.", "method"
    ),
    counter("vllm:spec_decode_num_draft_tokens", "Tokens guessed.", "method"),
    counter("vllm:spec_decode_num_accepted_tokens", "Guessed tokens that were right.", "method"),
    counter("llm_tokens_generated", "Generated tokens."),
    gauge(
        "llm_cache_hit_rate",
        "Share of prompt tokens found in a cache since the engine's start, 0 to 1.",
        "cache_level",
    ),
    gauge("novacron_engine_state", "1 for the state the engine is in, else 0.", "state"),
    counter("novacron_engine_restarts", "Engine processes started anew after a death."),
    counter("novacron_steps", "Steps of the engine."),
    counter("novacron_step_seconds", "Time inside steps."),
    counter("novacron_schedule_seconds", "Time that scheduling took of it."),
    counter("novacron_draft_seconds", "Time that a draft model took of it."),
    gauge("novacron_kv_blocks", "KV blocks, by what they are: used, cached, free.", "kind"),
    gauge("novacron_startup_phase_seconds", "Duration of a phase of start-up.", "phase"),
)


def engine_values(engine: EngineSnapshot) -> Values:
    stats = engine.stats
    method = (stats.speculative_method,)
    free = stats.num_blocks - stats.num_used_blocks - stats.num_cached_blocks
    values: Values = {
        "vllm:num_requests_running": single(stats.num_running),
        "vllm:num_requests_waiting": single(stats.num_waiting),
        "vllm:kv_cache_usage_perc": single(kv_cache_usage(stats)),
        "vllm:prompt_tokens": single(stats.prompt_tokens + stats.prefix_hits_tokens),
        "vllm:generation_tokens": single(stats.generation_tokens),
        "llm_tokens_generated": single(stats.generation_tokens),
        "vllm:num_preemptions": single(stats.num_preemptions),
        "novacron_ranks_replaced": single(stats.num_ranks_replaced),
        "vllm:prefix_cache_queries": single(stats.prefix_queries_tokens),
        "vllm:prefix_cache_hits": single(stats.prefix_hits_tokens),
        "vllm:spec_decode_num_drafts": [(method, stats.num_drafts)],
        "vllm:spec_decode_num_draft_tokens": [(method, stats.num_draft_tokens)],
        "vllm:spec_decode_num_accepted_tokens": [(method, stats.num_accepted_tokens)],
        "llm_cache_hit_rate": [((level,), rate) for level, rate in hit_rates(stats).items()],
        "novacron_engine_state": [
            ((state,), float(state == engine.state)) for state in engine.states
        ],
        "novacron_engine_restarts": single(engine.num_restarts),
        "novacron_steps": single(stats.num_steps),
        "novacron_step_seconds": single(stats.step_time_s),
        "novacron_schedule_seconds": single(stats.schedule_time_s),
        "novacron_draft_seconds": single(stats.draft_time_s),
        "novacron_kv_blocks": [
            (("used",), stats.num_used_blocks),
            (("cached",), stats.num_cached_blocks),
            (("free",), free),
        ],
    }
    if engine.spec is None:
        return values
    return {**values, **_model_values(engine.spec)}


def _model_values(spec: ModelSpec) -> Values:
    shape = (str(spec.block_size), str(spec.num_blocks), str(spec.kv_cache_bytes))
    return {
        "vllm:cache_config_info": [(shape, 1.0)],
        "novacron_startup_phase_seconds": [
            ((phase,), seconds) for phase, seconds in spec.load_phases_s.items()
        ],
    }
