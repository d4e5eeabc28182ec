"""Tiers on other machines: what may be set, what is shown, what has to be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config import remote_tiers
from novacron.config.cache import CacheConfig
from novacron.config.explain import explain, render_json, render_table
from novacron.config.load import load
from novacron.config.remote_tiers import require_extras
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://me:hush@host/0", "redis://***@host/0"),
        ("rediss://:hu@sh@host", "rediss://***@host"),
        ("redis://:hu/s?h#hush@host", "redis://***@host"),
        ("redis://host?password=hush", "redis://host?***"),
        ("s3://hush:hush@bucket/a/b?secret=hush#hush", "s3://***@bucket/a/b?***"),
    ],
)
def test_a_url_is_shown_without_what_opens_the_door(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_config_explain_hides_passwords_and_shows_hosts(tmp_path: Path) -> None:
    env = {"NOVACRON_KV_REDIS_URL": "redis://me:hush@cache:6379/0"}
    settings = load(file=None, env=env, flags={})
    for text in (render_table(explain(settings)), render_json(explain(settings))):
        assert "redis://***@cache:6379/0" in text
        assert "hush" not in text
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kv_redis_url": "http://host"}, "kv_redis_url is 'http://host'"),
        ({"kv_redis_url": "host:6379"}, "give redis://"),
        ({"kv_redis_url": "redis:///0"}, "give redis://"),
        ({"kv_object_url": "s3:///prefix"}, "give s3://"),
        ({"kv_redis_ttl": -1.0}, "kv_redis_ttl"),
        ({"kv_redis_deadline": 0.0}, "kv_redis_deadline"),
        ({"kv_object_deadline": float("nan")}, "kv_object_deadline"),
        ({"kv_redis_prefix": "a b"}, "kv_redis_prefix"),
        ({"kv_redis_size": -1}, "kv_redis_size"),
        ({"kv_tier_order": ("ram", "ram")}, "at most once"),
        ({"kv_tier_order": ("tape",)}, "ram, disk, redis, object"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CacheConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ({"kv_redis_url": "redis://host"}, r"novacron\[redis\]"),
        ({"kv_object_url": "s3://bucket"}, r"novacron\[s3\]"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(
    settings: dict[str, str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_tiers, "find_spec", lambda name: None)
    require_extras(CacheConfig())
    with pytest.raises(ConfigError, match=extra):
        require_extras(CacheConfig(**settings))  # type: ignore[arg-type]
