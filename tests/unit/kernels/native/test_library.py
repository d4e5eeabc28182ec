from __future__ import annotations

from pathlib import Path

import pytest

from novacron.errors import ConfigError
from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels


def test_without_the_library(tmp_path: Path) -> None:
    with pytest.raises(NativeUnavailable, match="without a C\\+\\+ compiler"):
        native_levels(tmp_path / "missing.so")


def test_a_damaged_library(tmp_path: Path) -> None:
    path = tmp_path / "damaged.so"
    path.write_bytes(b"not a library")
    with pytest.raises(NativeUnavailable, match="cannot be loaded"):
        NativeContext(1, path=path)


def test_an_unknown_level(level: str) -> None:
    assert native_levels()[0] == "portable"
    with pytest.raises(ConfigError, match=f"no kernels for 'mmx'.*portable.*{level}|portable"):
        NativeContext(1, "mmx")
