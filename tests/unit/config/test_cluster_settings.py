"""Settings of several hosts."""

from __future__ import annotations

import pytest

from novacron.config.cluster import ClusterConfig
from novacron.errors import ConfigError


def test_engines_are_here_unless_told_otherwise() -> None:
    assert not ClusterConfig().is_apart
    assert ClusterConfig(engine_hosts=("a",)).is_apart
    assert ClusterConfig(executor="ray").is_apart


def test_resources_have_amounts() -> None:
    config = ClusterConfig(ray_resources=("CPU=8", "GPU=0.5", "big_host=1"))
    assert config.resources() == {"CPU": 8.0, "GPU": 0.5, "big_host": 1.0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ray_resources": ("CPU",)}, "ray_resources"),
        ({"ray_resources": ("CPU=many",)}, "ray_resources"),
        ({"ray_resources": ("CPU=-1",)}, "ray_resources"),
        ({"ray_resources": ("=1",)}, "ray_resources"),
        ({"link_timeout": 0.1}, "link_timeout"),
        ({"executor": "ray", "engine_hosts": ("a",)}, "engine_hosts"),
        ({"rank_hosts": ("a",), "engine_hosts": ("b",)}, "rank_hosts"),
        ({"rank_hosts": ("a",), "executor": "ray"}, "rank_hosts"),
        ({"activation_compression": "int8"}, "activation_compression"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}"):
        ClusterConfig(**settings)  # type: ignore[arg-type]
