from __future__ import annotations

from dataclasses import fields

from novacron.config.keys import COMPONENTS, KEYS
from novacron.config.server import ServerConfig

EVERY_KEY = """
model.model model.served_model_name model.tokenizer model.chat_template model.dtype
model.quantization model.quantization_layers model.quantization_group_size model.variants
model.packed_cache_size model.cache_dir
model.device model.max_model_len model.seed model.region model.num_threads
model.tensor_parallel_size model.context_parallel_size model.pipeline_parallel_size
model.pipeline_steps_in_flight
model.rank_timeout model.data_parallel_size model.kernels model.compilation
cache.block_size cache.kv_cache_dtype cache.kv_cache_dtype_layers cache.kv_cache_memory
cache.gpu_memory_utilization cache.cpu_memory_utilization cache.enable_prefix_caching
cache.kv_ram_size cache.kv_eviction_policy cache.kv_eviction_weights cache.kv_eviction_ttl
cache.kv_disk_size cache.kv_disk_path
cache.kv_redis_url cache.kv_redis_size cache.kv_redis_compression cache.kv_redis_ttl
cache.kv_redis_region cache.kv_redis_prefix cache.kv_redis_deadline
cache.kv_object_url cache.kv_object_region cache.kv_object_size cache.kv_object_compression
cache.kv_object_deadline
cache.kv_object_refresh cache.kv_tier_order
cache.kv_prefetch cache.kv_prefetch_bandwidth cache.kv_trace cache.kv_pin_share cache.kv_scope_share
cache.kv_tier_profile cache.kv_ram_compression cache.kv_ram_max_error cache.kv_disk_compression
cache.kv_disk_max_error cache.encryption_key
scheduler.max_num_seqs scheduler.max_num_batched_tokens scheduler.scheduling_policy
scheduler.priority_ageing scheduler.shared_chunk_tokens
scheduler.enable_chunked_prefill scheduler.max_queued_requests scheduler.preemption_mode
speculative.speculative_method speculative.speculative_model
speculative.num_speculative_tokens
speculative.prompt_lookup_min speculative.prompt_lookup_max
watch.quality_watch watch.quality_floor
guard.guardians guard.guardian_deadline guard.guardian_cache_entries guard.specialists
cluster.executor cluster.engine_hosts cluster.rank_hosts cluster.activation_compression
cluster.link_key cluster.link_timeout cluster.ray_address cluster.ray_resources
cluster.coordinator_address cluster.coordinator_timeout cluster.stream_journal
server.host server.port server.api_key server.api_key_shares server.tls_cert server.tls_key
server.tls_client_ca server.cors_allow_origins server.allowed_hosts server.state_dir
server.database server.audit_log server.audit_inference
server.max_connections server.receive_timeout server.keep_alive_timeout server.shutdown_timeout
server.recovery_timeout server.heartbeat_timeout server.step_timeout
server.canary_interval server.canary_timeout
server.keep_alive_interval server.stream_flush_interval
server.response_cache server.response_cache_threshold server.response_cache_thresholds
server.response_cache_embedding server.response_cache_url server.response_cache_region
server.response_cache_size
server.response_cache_ttl
server.max_body_bytes
server.replay_buffer_bytes server.replay_seconds server.quality_score
server.log_level server.log_format server.access_log
identity.allow_anonymous identity.custom_roles identity.jwt_secret identity.jwt_jwks_url
identity.oidc_issuer identity.jwt_issuer identity.jwt_audience identity.jwt_leeway
identity.jwt_tenant_claim identity.jwt_user_claim identity.jwt_role_claim
tenants.tenant_policies tenants.purge_interval
""".split()


def test_the_settings_are_exactly_these() -> None:
    """A new setting has to be wanted: whoever adds one adds it here, with a user who needs it."""
    assert [key.path for key in KEYS.values()] == EVERY_KEY


def test_a_name_is_unique_over_all_components() -> None:
    names = [field.name for config in COMPONENTS.values() for field in fields(config)]
    assert sorted(names) == sorted(set(names))


def test_every_setting_says_what_it_means() -> None:
    assert all(key.meaning and not key.meaning.endswith(".") for key in KEYS.values())
    assert {key.unit for key in KEYS.values()} == {"", "bytes", "s"}


def test_spellings() -> None:
    key = KEYS["max_num_seqs"]
    assert (key.path, key.flag, key.variable) == (
        "scheduler.max_num_seqs",
        "--max-num-seqs",
        "NOVACRON_MAX_NUM_SEQS",
    )


def test_secrets_stay_out_of_the_repr() -> None:
    secrets = [key for key in KEYS.values() if key.secret]
    assert [key.name for key in secrets] == [
        "kv_redis_url",
        "kv_object_url",
        "api_key",
        "database",
        "response_cache_url",
        "jwt_secret",
    ]
    config = ServerConfig(api_key=("sk-very-secret",))
    assert "sk-very-secret" not in repr(config)
