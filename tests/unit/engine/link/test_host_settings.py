"""What a host knows better than the server that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.keys import KEYS
from novacron.config.model import ModelConfig
from novacron.engine.link.host_settings import HOST_KEYS, settings_of_host
from novacron.errors import ConfigError, ModelLoadError

WANTED = EngineConfig(
    model=ModelConfig(quantization="int8", num_threads=2),
    cache=CacheConfig(kv_ram_size=5, block_size=32),
)


def test_what_is_given_here_wins_and_nothing_else_changes(tmp_path: Path) -> None:
    given = {"model": str(tmp_path), "num_threads": 8, "kv_ram_size": 7}
    config, path = settings_of_host(WANTED, given)
    assert path == tmp_path
    assert (config.model.num_threads, config.cache.kv_ram_size) == (8, 7)
    assert (config.model.quantization, config.cache.block_size) == ("int8", 32)
    assert settings_of_host(WANTED, {})[0] == WANTED


def test_a_model_that_is_not_here_is_named_with_the_host(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"engine's host.*gone\.gguf.*--model"):
        settings_of_host(WANTED, {"model": str(tmp_path / "gone.gguf")})


def test_what_cannot_be_is_refused_as_anywhere() -> None:
    with pytest.raises(ConfigError, match="num_threads"):
        settings_of_host(WANTED, {"num_threads": -1})


def test_they_are_settings() -> None:
    assert set(HOST_KEYS) <= set(KEYS)
