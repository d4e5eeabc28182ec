"""What people see while a model loads and when it is ready."""

from __future__ import annotations

import asyncio
import logging

import pytest

from novacron.cli import announcement
from novacron.cli.announcement import banner, show_loading
from novacron.config.load import load
from novacron.engine.client import EngineState
from novacron.errors import ModelLoadError
from novacron.records.output import ModelSpec

SPEC = ModelSpec(
    name="tiny",
    model_version="v",
    architecture="LlamaForCausalLM",
    vocab_size=100,
    hidden_size=8,
    max_model_len=2048,
    eos_token_ids=(1,),
    dtype="bfloat16",
    device="cpu",
    num_parameters=6_400_000,
    weight_bytes=12_800_000,
    num_blocks=4096,
    block_size=16,
    kv_cache_bytes=2**30,
    load_phases_s={"import": 1.25, "weights": 0.5},
)


@pytest.mark.parametrize(("key", "shown"), [(None, False), ("secret", True)])
def test_the_banner_tells_all_one_needs(key: str | None, shown: bool) -> None:
    settings = load(file=None, env={}, flags={"max_num_seqs": 9, "api_key": key})
    text = banner("http://127.0.0.1:8080", SPEC, settings, 2.5, needs_key=key is not None)
    for part in (
        "ready at http://127.0.0.1:8080",
        "tiny (LlamaForCausalLM, 6.4M parameters)",
        "cpu, bfloat16",
        "4096 blocks of 16 tokens, 1.0 GiB",
        "up to 9 at once, 2048 tokens",
        "in 2.50 s (engine: import 1.25, weights 0.50)",
        "novacron chat --url http://127.0.0.1:8080",
        'base_url="http://127.0.0.1:8080/v1"',
    ):
        assert part in text
    assert ("Authorization" in text) is shown
    assert "secret" not in text


class _LoadingClient:
    """Goes through phases, then is ready or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.state = EngineState.LOADING
        self.loading_progress = ("start", 0.0)
        self._failure = failure

    async def wait_ready(self) -> None:
        for phase in ("weights", "weights", "warm_up"):
            self.loading_progress = (phase, 0.5)
            await asyncio.sleep(0)
            await asyncio.sleep(0.002)
        if self._failure is not None:
            raise self._failure


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_loading_is_followed(monkeypatch, caplog, is_terminal: bool) -> None:
    monkeypatch.setattr(announcement, "_POLL_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    with caplog.at_level(logging.INFO):
        await show_loading(_LoadingClient())  # type: ignore[arg-type]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == (
        [] if is_terminal else ["loading: reading the weights", "loading: warming up"]
    )


async def test_a_failure_is_raised() -> None:
    with pytest.raises(ModelLoadError):
        await show_loading(_LoadingClient(ModelLoadError("bad")))  # type: ignore[arg-type]
