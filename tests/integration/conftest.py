from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from novacron.config.server import ServerConfig
from novacron.engine.tokenization import Tokenizer
from novacron.gateway.app import build_app
from novacron.kernels.native.library import NativeUnavailable, native_levels
from novacron.testing.fake_engine_client import CHAT_TEMPLATE, FakeEngineClient, fake_tokenizer
from novacron.testing.serving import serving

TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}. Answer with <tool_call>"
    "<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)


@dataclass
class Server:
    """A gateway on a free port, over an engine that recites."""

    url: str
    engine: FakeEngineClient


@pytest.fixture(scope="session")
def needs_native_kernels() -> None:
    try:
        native_levels()
    except NativeUnavailable:
        pytest.skip("no native kernels")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"), TOOL_TEMPLATE)


@pytest.fixture
async def server(tokenizer: Tokenizer) -> AsyncIterator[Server]:
    engine = FakeEngineClient(tokenizer)
    config = ServerConfig(keep_alive_interval=0.05)
    async with serving(build_app(engine, config, model_names=("fake",))) as url:
        yield Server(url, engine)
