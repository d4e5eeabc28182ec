from __future__ import annotations

from collections.abc import Iterator

import pytest

from novacron.testing.fake_openai_server import FakeOpenAIServer, running


@pytest.fixture
def server() -> Iterator[FakeOpenAIServer]:
    with running(FakeOpenAIServer()) as fake:
        yield fake
