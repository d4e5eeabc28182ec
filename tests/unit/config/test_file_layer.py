from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config.load import Settings, load
from novacron.config.remote_tiers import tier_order
from novacron.errors import ConfigError

SEEDS_SCHEMA = """
llm_engine:
  coordinator:
    replicas: 3
    resources: {cpu: "16", memory: "64Gi", storage: "2Ti"}
  workers:
    replicas: 64
    resources:
      cpu: "32"
      memory: "128Gi"
      gpu: "2xH100"
      storage: "8Ti"
      network_bandwidth: "200Gbps"
  model:
    model_id: "llama-405b"
    quantization: "INT8"
    sharding: {tensor_parallel: 1, pipeline_parallel: 1, sequence_parallel: 1}
  performance:
    max_batch_size: 256
    target_latency: "200ms"
    cache_size: "1Ti"
    compression: true
  networking:
    transport: "rdma"
    compression: true
    priority_queuing: true
    bandwidth_limit: "100Gbps"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def load_text(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load(file=file, env={}, flags={})


@pytest.mark.parametrize(
    "text",
    [
        "max_num_seqs: 8",
        "max-num-seqs: 8",
        "scheduler: {max_num_seqs: 8}",
        "scheduler:\n  max-num-seqs: 8",
        '{"scheduler": {"max_num_seqs": 8}}',
        "llm_engine: {performance: {max_batch_size: 8}}",
    ],
)
def test_all_forms_of_a_key_mean_the_same(file: Path, text: str) -> None:
    assert load_text(file, text).engine.scheduler.max_num_seqs == 8


def test_a_file_for_vllm_is_understood(file: Path) -> None:
    settings = load_text(
        file,
        """
        model: /models/llama
        served-model-name: [llama, "gpt-4"]
        host: "0.0.0.0"
        port: 6379
        dtype: half
        tensor-parallel-size: 2
        max-model-len: 4096
        kv-cache-memory-bytes: 1073741824
        gpu-memory-utilization: 0.85
        enable-prefix-caching: false
        allowed-origins: ["https://a.example"]
        """,
    )
    assert settings.engine.model.model == "/models/llama"
    assert settings.engine.model.served_model_name == ("llama", "gpt-4")
    assert settings.engine.model.dtype == "float16"
    assert settings.engine.model.tensor_parallel_size == 2
    assert settings.engine.cache.kv_cache_memory == 2**30
    assert settings.engine.cache.enable_prefix_caching is False
    assert settings.server.cors_allow_origins == ("https://a.example",)
    assert settings.warnings == ()


def test_model_is_a_key_and_a_section(file: Path) -> None:
    assert load_text(file, "model: a").engine.model.model == "a"
    assert load_text(file, "model: {model: b, dtype: float32}").engine.model.model == "b"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "scheduler:\nport:\nllm_engine:\n"])
def test_nothing_in_the_file_means_the_defaults(file: Path, text: str) -> None:
    settings = load_text(file, text)
    assert {origin.kind for origin in settings.origins.values()} == {"default"}


# Unknown, doubled and misplaced keys


@pytest.mark.parametrize(
    ("text", "path", "guess"),
    [
        ("max_num_seq: 8", "max_num_seq", "max_num_seqs"),
        ("scheduler: {max_num_sequences: 8}", "scheduler.max_num_sequences",
         "scheduler.max_num_seqs"),
        ("schedular: {max_num_seqs: 8}", "schedular", "scheduler"),
        ("cache: {port: 8}", "cache.port", "server.port"),
        ("llm_engine: {performance: {max_batchsize: 8}}", "llm_engine.performance.max_batchsize",
         "llm_engine.performance.max_batch_size"),
        ("llm_engine: {modle: {}}", "llm_engine.modle", "llm_engine.model"),
        ("true: 8", "True", ""),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_file_path_and_guess(
    file: Path, text: str, path: str, guess: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, text)
    assert f"Unknown key '{path}' in {file}." in str(caught.value)
    assert f"'{guess}'" in str(caught.value) if guess else "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "port: 1\nserver: {port: 2}",
        "max-num-seqs: 1\nllm_engine: {performance: {max_batch_size: 2}}",
        "max-num-seqs: 1\nmax_num_seqs: 1",
    ],
)
def test_a_setting_given_twice_is_refused(file: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        load_text(file, text)


def test_a_key_written_twice_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="'port' stands there twice"):
        load_text(file, "port: 1\nport: 2")


def test_yaml_anchors_and_merges_still_work(file: Path) -> None:
    text = "model: &m {dtype: float32}\nscheduler: {max_num_seqs: 3}\n"
    assert load_text(file, text).engine.model.dtype == "float32"


# Files that are none


def test_a_missing_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{file} cannot be read: No such file"):
        load(file=file, env={}, flags={})


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tx: 1", "x: !!python/object:os.system {}"])
def test_broken_yaml(file: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_text(file, text)


@pytest.mark.parametrize("text", ["- 1", "5", "text"])
def test_yaml_that_is_no_mapping(file: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="expected keys and values"):
        load_text(file, text)


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\xfa\x00\x01")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load(file=file, env={}, flags={})


# The root llm_engine


def test_the_schema_of_llm_engine_is_accepted_whole(file: Path) -> None:
    settings = load_text(file, SEEDS_SCHEMA)
    assert settings.engine.model.model == "llama-405b"
    assert settings.engine.model.quantization == "int8"
    assert settings.engine.scheduler.max_num_seqs == 256
    assert settings.engine.cache.kv_cache_memory == 2**40
    assert settings.origins["kv_cache_memory"].detail.endswith("llm_engine.performance.cache_size")


def test_keys_without_effect_are_reported_once_each(file: Path) -> None:
    settings = load_text(file, SEEDS_SCHEMA)
    names = [one.key for one in settings.without_effect]
    assert "llm_engine.performance.target_latency" in names
    assert "llm_engine.networking.transport" in names
    assert "llm_engine.workers.replicas" in names
    assert len(names) == len(set(names)) == len(settings.warnings) == 16
    assert all("has no effect: " in warning for warning in settings.warnings)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("model: {sharding: {pipeline_parallel: 17}}", "choose 1 to 16"),
        ("model: {sharding: {sequence_parallel: 9}}", "choose 1 to 8"),
    ],
)
def test_what_would_change_results_or_capacity_is_refused(
    file: Path, text: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        load_text(file, f"llm_engine: {{{text}}}")


@pytest.mark.parametrize(
    "text",
    [
        "performance: {target_latency: soon}",
        "performance: {cache_size: big}",
        "performance: {max_batch_size: 0}",
        "performance: {compression: 3}",
        "performance: fast",
        "workers: {replicas: -1}",
        "workers: {resources: {memory: 128Qi}}",
        "workers: {resources: {cpu: all}}",
        "networking: {bandwidth_limit: wide}",
        "networking: {transport: {rdma: true}}",
        "model: {model_id: {a: b}}",
        "[1]",
    ],
)
def test_a_wrong_value_below_llm_engine_is_refused(file: Path, text: str) -> None:
    text = text if text == "[1]" else f"{{{text}}}"
    with pytest.raises(ConfigError, match=r"serve\.yaml"):
        load_text(file, f"llm_engine: {text}")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("quantization: awq", "expected one of auto, .* int8, int4, memory_critical"),
        ("trust-remote-code: true", "never runs code"),
        ("kv-cache-dtype: fp8_e5m2", "choose auto, .* fp8_e4m3, int4"),
    ],
)
def test_flags_of_vllm_that_we_cannot_honour_are_refused(
    file: Path, text: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        load_text(file, text)


def load_tiers(folder: Path, text: str) -> Settings:
    file = folder / "tiers.yaml"
    file.write_text(text)
    return load(file=file, env={}, flags={})


def test_kv_tiers_as_a_list(tmp_path: Path) -> None:
    text = "kv_tiers: [{kind: ram, size: 1Gi}, {kind: disk, path: /kv, size: 20Gi}]"
    for written in (text, "cache:\n  " + text, text.replace("kv_tiers", "kv-tiers")):
        cache = load_tiers(tmp_path, written).engine.cache
        assert (cache.kv_ram_size, cache.kv_disk_size) == (2**30, 20 * 2**30)
        assert cache.kv_disk_path == "/kv"
    cache = load_tiers(tmp_path, "kv_tiers: [{kind: disk}]").engine.cache
    assert (cache.kv_ram_size, cache.kv_disk_size) == (0, None)
    cache = load_tiers(tmp_path, "kv_tiers: []").engine.cache
    assert (cache.kv_ram_size, cache.kv_disk_size) == (0, 0)


def test_kv_tiers_say_how_they_compress(tmp_path: Path) -> None:
    text = "kv_tiers: [{kind: ram, compression: int8, max_error: 0.01}, {kind: disk}]"
    cache = load_tiers(tmp_path, text).engine.cache
    assert (cache.kv_ram_compression, cache.kv_ram_max_error) == ("int8", 0.01)
    assert (cache.kv_disk_compression, cache.kv_disk_max_error) == ("auto", None)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{kind: ram}", "expected a list"),
        ("[ram]", "expected a list"),
        ("[{kind: tape}]", "no kind 'tape'"),
        ("[{kind: redis}]", "needs a url"),
        ("[{kind: object, url: 'ftp://x'}]", "kv_object_url"),
        ("[{kind: ram}, {kind: ram}]", "may stand there once"),
        ("[{kind: ram, path: /kv}]", "has no 'path'"),
        ("[{kind: ram, size: much}]", "kv_ram_size"),
        ("[{kind: ram, compression: int3}]", "kv_ram_compression"),
        ("[{kind: disk, max_error: 2}]", "kv_disk_max_error"),
    ],
)
def test_kv_tiers_that_make_no_sense(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load_tiers(tmp_path, f"kv_tiers: {written}")
    assert "tiers.yaml: kv_tiers" in str(error.value)


def test_tiers_of_other_machines_and_their_order(tmp_path: Path) -> None:
    cache = load_tiers(
        tmp_path,
        """
kv_tiers:
  - {kind: ram}
  - {kind: redis, url: "redis://cache/0", ttl: 1h, prefix: team-a, size: 1Gi, deadline: 200ms}
  - {kind: object, url: "s3://bucket/kv", deadline: 2s, refresh: 1m}
""",
    ).engine.cache
    assert (cache.kv_redis_url, cache.kv_redis_ttl, cache.kv_redis_prefix) == (
        "redis://cache/0",
        3600.0,
        "team-a",
    )
    assert (cache.kv_redis_size, cache.kv_redis_deadline) == (2**30, 0.2)
    assert (cache.kv_object_url, cache.kv_object_deadline, cache.kv_object_refresh) == (
        "s3://bucket/kv",
        2.0,
        60.0,
    )
    assert (cache.kv_disk_size, cache.kv_ram_size) == (0, None)
    assert tier_order(cache) == ("ram", "redis", "object", "disk")


@pytest.mark.parametrize(
    "written",
    [
        "[{kind: redis, url: 'redis://me:PASSWORD@host', size: much}]",
        "[{kind: redis, url: 'redis://me:PASSWORD@host', siez: 1Gi}]",
        "[{kind: redis, url: 'http://me:PASSWORD@host'}]",
        "[{kind: object, url: 'https://me:PASSWORD@host'}]",
        "[{kind: redis, url: {PASSWORD: 1}}]",
        "{PASSWORD: 1}",
    ],
)
def test_what_is_wrong_with_a_tier_is_said_without_its_password(
    tmp_path: Path, written: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_tiers(tmp_path, f"kv_tiers: {written}")
    assert "PASSWORD" not in str(error.value)


def test_tiers_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        load_tiers(tmp_path, "kv_ram_size: 1Gi\nkv_tiers: [{kind: ram, size: 2Gi}]")
