from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.explain import text_of, value_of
from novacron.config.keys import KEYS, Key
from novacron.config.layer import Origin
from novacron.config.load import Settings, load
from novacron.config.model import MOST_REPLICAS
from novacron.errors import ConfigError


def load_env(**env: str) -> Settings:
    return load(file=None, env=env, flags={})


def load_flags(**flags: object) -> Settings:
    return load(file=None, env={}, flags=flags)


# Defaults and precedence


def test_nothing_given_means_the_defaults() -> None:
    settings = load(file=None, env={}, flags={})
    assert settings.server.port == 8080
    assert settings.engine.scheduler.max_num_seqs == 64
    assert set(settings.origins) == set(KEYS)
    assert set(settings.origins.values()) == {Origin("default")}
    assert settings.warnings == ()


@given(st.sets(st.sampled_from(["file", "env", "flag"])), st.permutations([2, 3, 4]))
def test_the_highest_source_wins(
    tmp_path_factory: pytest.TempPathFactory, sources: set[str], values: list[int]
) -> None:
    file = tmp_path_factory.mktemp("config") / "serve.yaml"
    file.write_text(f"max_num_seqs: {values[0]}" if "file" in sources else "")
    env = {"NOVACRON_MAX_NUM_SEQS": str(values[1])} if "env" in sources else {}
    flags = {"max_num_seqs": values[2] if "flag" in sources else None}

    settings = load(file=file, env=env, flags=flags)

    winner = next((one for one in ("flag", "env", "file") if one in sources), "default")
    expected = {"flag": values[2], "env": values[1], "file": values[0], "default": 64}[winner]
    assert settings.engine.scheduler.max_num_seqs == expected
    assert settings.origins["max_num_seqs"].kind == winner


def test_origins_name_the_exact_place(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("scheduler:\n  max-num-seqs: 8\n")
    settings = load(file=file, env={"NOVACRON_PORT": "9000"}, flags={"host": "0.0.0.0"})
    assert str(settings.origins["max_num_seqs"]) == f"file {file}: scheduler.max-num-seqs"
    assert str(settings.origins["port"]) == "env NOVACRON_PORT"
    assert str(settings.origins["host"]) == "flag --host"


# Any value of any setting, from any source


def values_of(key: Key) -> st.SearchStrategy[object]:
    """Values that the annotation allows and that every check of the components accepts."""
    special: dict[str, st.SearchStrategy[object]] = {
        "block_size": st.sampled_from([8, 16, 32, 64, 128]),
        "tensor_parallel_size": st.sampled_from([1, 2, 4]),
        "context_parallel_size": st.integers(1, 8),
        "data_parallel_size": st.integers(1, MOST_REPLICAS),
        "pipeline_parallel_size": st.integers(1, 16),
        "pipeline_steps_in_flight": st.integers(1, 32),
        "quantization_group_size": st.sampled_from([32, 64, 128]),
        "quantization_layers": st.lists(
            st.sampled_from(["*.0.*=int8", "*down*=bf16"]), min_size=1
        ).map(tuple),
        "link_timeout": st.integers(1, 3600).map(float),
        "coordinator_address": st.sampled_from(["http://node-1:8080", "https://a.b"]),
        "coordinator_timeout": st.integers(1, 3600).map(float),
        "ray_resources": st.lists(st.sampled_from(["CPU=8", "GPU=0.5"]), min_size=1).map(tuple),
        "port": st.integers(0, 65535),
        "jwt_secret": st.text("abcXYZ019/._-", min_size=32, max_size=40),
        "custom_roles": st.lists(
            st.sampled_from(["a=llm:*", "b=llm:keys:read+llm:keys:write"]), min_size=1, unique=True
        ).map(tuple),
        "quality_score": st.floats(0.0, 1.0),
        "variants": st.lists(
            st.sampled_from(["none", "int8", "int4:int8/int4"]), min_size=1, unique=True
        ).map(tuple),
        "allowed_hosts": st.lists(st.sampled_from(["*", "a.b", "*.c"]), min_size=1).map(tuple),
        "kv_cache_dtype": st.sampled_from(["auto", "int8", "bf16/int8"]),
        "kv_cache_dtype_layers": st.lists(
            st.sampled_from(["0=bf16", "-2:=int8/int4"]), min_size=1
        ).map(tuple),
        "response_cache_thresholds": st.just(("/v1/completions=0.9",)),
        "response_cache_url": st.sampled_from(["sqlite:///answers", "redis://a:b@host:1/0"]),
        "kv_redis_url": st.sampled_from(["redis://a:b@host:1/0", "unix:///run/redis.sock"]),
        "kv_object_url": st.sampled_from(["s3://bucket/prefix", "file:///folder"]),
        "kv_redis_prefix": st.text("abcXYZ019._-", min_size=1, max_size=9),
        "kv_tier_order": st.permutations(["ram", "disk", "redis", "object"]).map(tuple),
        **dict.fromkeys(
            ("region", "kv_redis_region", "kv_object_region", "response_cache_region"),
            st.sampled_from(["eu", "us-east.1"]),
        ),
        "encryption_key": st.sampled_from(
            ["env:KEY", "file:/run/key", "vault:https://v:8200/v1/secret/data/n#key"]
        ),
        "guardians": st.sampled_from(
            [
                ({"kind": "pii"},),
                ({"kind": "words", "words": ["a, b"]}, {"kind": "pii", "share": 1}),
            ]
        ),
        "tenant_policies": st.just(({"name": "a, b", "retain": {"audit": "9d"}},)),
        "specialists": st.just(({"name": "lawyer", "system": "You know, the law."},)),
        "max_num_seqs": st.integers(1, 2048),
        "max_num_batched_tokens": st.integers(64, 10**6),
        "prompt_lookup_min": st.integers(1, 8),
        "prompt_lookup_max": st.integers(2, 100),
    }
    word = st.text("abcXYZ019/._-", min_size=1)
    if key.name in special:
        return special[key.name]
    if key.annotation is bool:
        return st.booleans()
    if get_origin(key.annotation) is Literal:
        return st.sampled_from(get_args(key.annotation))
    if get_origin(key.annotation) is tuple:
        return st.lists(word, min_size=1).map(tuple)
    if key.annotation is str:
        return word
    if key.annotation in (float, float | None):
        return st.floats(0.01, 1.0)
    return st.integers(1, 2**40)


NEED_OTHERS = {
    "jwt_jwks_url", "oidc_issuer", "tls_key", "tls_client_ca", "api_key_shares",
    "activation_compression",
}  # fmt: skip
A_SETTING = st.sampled_from([key for key in KEYS.values() if key.name not in NEED_OTHERS]).flatmap(
    lambda key: st.tuples(st.just(key), values_of(key))
)


@given(A_SETTING)
def test_every_source_gives_the_value_back(
    tmp_path_factory: pytest.TempPathFactory, setting: tuple[Key, object]
) -> None:
    key, value = setting
    file = tmp_path_factory.mktemp("config") / "serve.yaml"
    file.write_text(yaml.safe_dump({key.component: {key.name: to_yaml(value)}}))
    text = text_of(key, value) if key.unit != "s" else f"{value!r}s"

    for settings in (
        load(file=file, env={}, flags={}),
        load(file=None, env={key.variable: text}, flags={}),
        load(file=None, env={}, flags={key.name: value}),
        load(file=None, env={}, flags={key.name: text}),
    ):
        assert value_of(key, settings) == value
        others = {name for name in KEYS if name != key.name}
        assert {settings.origins[name].kind for name in others} == {"default"}


def to_yaml(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# Environment


def test_a_well_known_variable_is_understood_but_ours_wins() -> None:
    assert load_env(VLLM_API_KEY="a,b").server.api_key == ("a", "b")
    assert load_env(VLLM_API_KEY="a", NOVACRON_API_KEY="c").server.api_key == ("c",)


def test_an_empty_variable_is_not_given() -> None:
    settings = load_env(NOVACRON_PORT="", VLLM_API_KEY="")
    assert settings.origins["port"].kind == "default"
    assert settings.server.api_key == ()


def test_an_unknown_variable_of_ours_is_a_warning_with_a_guess() -> None:
    (warning,) = load_env(NOVACRON_MAX_NUM_SEQ="3").warnings
    assert "NOVACRON_MAX_NUM_SEQ " in warning
    assert "'NOVACRON_MAX_NUM_SEQS'" in warning


def test_what_kubernetes_sets_beside_a_service_called_novacron_is_no_setting() -> None:
    settings = load_env(
        NOVACRON_PORT="tcp://10.0.0.7:8080",
        NOVACRON_SERVICE_HOST="10.0.0.7",
        NOVACRON_SERVICE_PORT_HTTP="8080",
        NOVACRON_PORT_8080_TCP_ADDR="10.0.0.7",
    )
    assert settings.server.port == 8080
    assert settings.warnings == ()


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    named, given_ = tmp_path / "named.yaml", tmp_path / "given.yaml"
    named.write_text("port: 1001")
    given_.write_text("port: 1002")
    env = {"NOVACRON_CONFIG": str(named)}
    assert load(file=None, env=env, flags={}).server.port == 1001
    assert load(file=given_, env=env, flags={}).server.port == 1002


# Wrong values


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("max_num_seqs", "many", "a whole number"),
        ("max_num_seqs", "8.5", "a whole number"),
        ("gpu_memory_utilization", "nan", "a number"),
        ("enable_prefix_caching", "perhaps", "true or false"),
        ("dtype", "int4", "one of auto, float32, bfloat16, float16"),
        ("kv_cache_memory", "64Qi", "64Gi"),
        ("shutdown_timeout", "soon", "200ms"),
        ("port", "99999", "from 0 to 65535"),
        ("block_size", "17", "choose 8, 16"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_origin_and_remedy(
    key: str, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_env(**{KEYS[key].variable: text})
    message = str(caught.value)
    assert message.startswith(f"{key} is ")
    for part in (text, f"env {KEYS[key].variable}", expected):
        assert part in message


@pytest.mark.parametrize(
    ("key", "value"),
    [("port", True), ("port", 8080.0), ("host", 5), ("api_key", [1]), ("access_log", 1),
     ("kv_cache_memory", True), ("gpu_memory_utilization", False), ("served_model_name", 3)],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} is "):
        load_flags(**{key: value})


def test_a_wrong_value_is_refused_even_where_another_source_overrides_it() -> None:
    with pytest.raises(ConfigError, match="NOVACRON_PORT"):
        load(file=None, env={"NOVACRON_PORT": "http"}, flags={"port": 9000})


def test_a_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load_flags(api_key=["sk-secret", 5])
    assert "sk-secret" not in str(caught.value)


def test_a_flag_that_does_not_exist_is_refused_with_a_guess() -> None:
    with pytest.raises(ConfigError, match="'max_num_seqs'"):
        load_flags(max_num_seq=3)


def test_other_spellings_of_a_choice() -> None:
    assert load_env(NOVACRON_DTYPE="half").engine.model.dtype == "float16"
    assert load_env(NOVACRON_LOG_LEVEL="WARN").server.log_level == "warning"


def test_the_engine_logs_at_the_level_of_the_server() -> None:
    assert load_flags(log_level="debug").engine.log_level == "debug"


def test_quantities_are_understood() -> None:
    settings = load_env(NOVACRON_KV_CACHE_MEMORY="4Gi", NOVACRON_SHUTDOWN_TIMEOUT="2m")
    assert settings.engine.cache.kv_cache_memory == 4 * 2**30
    assert settings.server.shutdown_timeout == 120.0
