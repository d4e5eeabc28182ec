from __future__ import annotations

from collections.abc import Callable

import pytest

from novacron.kernels.native.library import NativeContext, NativeUnavailable, native_levels

try:
    LEVELS = native_levels()
except NativeUnavailable:
    LEVELS = ()

Contexts = Callable[..., NativeContext]


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    """Opens each combination of threads and level once."""
    opened: dict[tuple[int, str], NativeContext] = {}

    def get(level: str, num_threads: int = 1) -> NativeContext:
        key = (num_threads, level)
        if key not in opened:
            opened[key] = NativeContext(*key)
        return opened[key]

    return get


_NONE = pytest.param("", marks=pytest.mark.skip("no native kernels"))


@pytest.fixture(scope="session", params=LEVELS or [_NONE])
def level(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this machine has."""
    name: str = request.param
    return name


@pytest.fixture
def context(contexts: Contexts, level: str) -> NativeContext:
    return contexts(level)
