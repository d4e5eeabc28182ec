"""VariantsClient over engines that recite: where requests go, and what the loss of one changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from novacron.config.engine import EngineConfig, WatchConfig
from novacron.config.model import ModelConfig
from novacron.config.variants import Variant
from novacron.engine.client import EngineState
from novacron.engine.tokenization import Tokenizer
from novacron.engine.variant_engines import variant_engines
from novacron.engine.variant_switch import RECOVERY_ANSWERS
from novacron.engine.variants_client import VariantsClient
from novacron.errors import EngineDead, InvalidRequest, NotReady
from novacron.records.output import RequestOutput, WatchStats
from novacron.records.request import FinishReason, Request, SamplingParams
from novacron.testing.fake_engine_client import FakeEngineClient, fake_tokenizer
from novacron.testing.waiting import until

BYTES = {"int4": 5, "int8": 9, "none": 16}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return fake_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Engines:
    """The fakes that were made, by variant."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.made: dict[str, FakeEngineClient] = {}
        self.configs: dict[str, EngineConfig] = {}

    def make(self, config: EngineConfig) -> FakeEngineClient:
        name = config.model.quantization
        self.configs[name] = config
        self.made[name] = FakeEngineClient(
            self.tokenizer,
            reply=lambda request: f"computed in {name}",
            quantization=name,
            weight_bytes=BYTES[name],
        )
        return self.made[name]


@pytest.fixture
def engines(tokenizer: Tokenizer) -> Engines:
    return Engines(tokenizer)


@pytest.fixture
async def client(engines: Engines) -> AsyncIterator[VariantsClient]:
    """int8 is the main variant."""
    config = EngineConfig(
        model=ModelConfig(quantization="int8", variants=("int4", "none")),
        watch=WatchConfig(quality_watch=1.0, quality_floor=0.9),
    )
    client = VariantsClient(variant_engines(config, Variant("int8")), engines.make, config.watch)
    client.spawn()
    await client.start()
    await client.wait_ready()
    await until(lambda: len(engines.made) == 3)
    yield client
    await client.close()


def request(request_id: str, variant: str = "") -> Request:
    return Request(
        request_id=request_id,
        prompt_token_ids=(1, 2, 3),
        sampling=SamplingParams(max_tokens=40),
        arrival_time_s=0.0,
        variant=variant,
    )


async def answer(client: VariantsClient, variant: str = "", request_id: str = "r") -> str:
    outputs = client.generate((request(request_id, variant),))
    return "".join([output.text async for output in outputs])


def default_of(client: VariantsClient) -> str:
    [name] = [one.name for one in client.variants if one.is_default]
    return name


def scored(quality: float, num_scored: int) -> WatchStats:
    return WatchStats(quality=quality, num_scored=num_scored)


async def test_a_request_goes_where_it_says_and_else_to_the_main_variant(
    client: VariantsClient,
) -> None:
    assert await answer(client) == "computed in int8"
    for name in BYTES:
        assert await answer(client, name) == f"computed in {name}"
    with pytest.raises(InvalidRequest, match="no variant 'int3'"):
        await answer(client, "int3")
    assert [one.name for one in client.variants] == ["int8", "int4", "none"]
    assert client.stats.generation_tokens == sum(
        one.stats.generation_tokens for one in client.variants
    )


async def test_all_plan_from_what_the_first_found_free(
    client: VariantsClient, engines: Engines
) -> None:
    assert engines.configs["int8"].shared.free_bytes is None
    free_bytes = engines.made["int8"].spec.device_free_bytes
    for name in ("int4", "none"):
        assert engines.configs[name].shared.free_bytes == free_bytes
        assert len(engines.configs[name].shared.others) == 2


async def test_below_the_floor_new_requests_go_to_the_finer_and_old_ones_stay(
    client: VariantsClient, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engines.made["int8"].step_s = 0.001
    old = client.generate((request("old"),))
    first = await anext(old)
    engines.made["int8"].watch = scored(0.8, 30)
    with caplog.at_level(logging.WARNING):
        assert await answer(client) == "computed in none"
    assert "variant switch: new requests go to none instead of int8: its quality is" in caplog.text
    assert first.text + "".join([output.text async for output in old]) == "computed in int8"
    assert await answer(client, "int8") == "computed in int8", "whoever names it gets it"
    assert default_of(client) == "none"
    assert [one.num_left for one in client.variants] == [1, 0, 0]


async def test_the_variant_that_was_left_scores_the_answers_of_the_other_and_comes_back(
    client: VariantsClient, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    int8 = engines.made["int8"]
    await answer(client)
    assert int8.to_score == []
    int8.watch = scored(0.8, 30)
    await answer(client)
    [document] = int8.to_score
    assert document.token_ids[:3] == (1, 2, 3)
    assert document.first_scored == 3
    text = client.tokenizer.decode(document.token_ids[3:], skip_special_tokens=True)
    assert text == "computed in none"
    await answer(client, "int8")
    assert len(int8.to_score) == 1, "its own answers it has anyway"
    int8.watch = scored(0.99, 30 + RECOVERY_ANSWERS)
    with caplog.at_level(logging.WARNING):
        assert await answer(client) == "computed in int8"
    assert "int8 has recovered" in caplog.text
    assert len(int8.to_score) == 1
    assert [one.num_left for one in client.variants] == [1, 0, 0]


async def test_an_answer_that_is_broken_off_is_not_scored(
    client: VariantsClient, engines: Engines
) -> None:
    engines.made["int8"].watch = scored(0.8, 30)
    engines.made["none"].step_s = 0.01
    outputs = client.generate((request("r"),))
    await anext(outputs)
    assert await client.abort("r")
    ends: list[RequestOutput] = [output async for output in outputs]
    assert ends[-1].finish_reason is FinishReason.ABORT
    assert engines.made["int8"].to_score == []
    assert not await client.abort("r")


async def test_a_dead_further_variant_takes_nothing_along(
    client: VariantsClient, engines: Engines
) -> None:
    engines.made["none"].die(for_good=True)
    assert client.state is EngineState.READY
    assert await answer(client) == "computed in int8"
    with pytest.raises(EngineDead):
        await answer(client, "none")
    engines.made["int8"].watch = scored(0.5, 30)
    assert await answer(client) == "computed in int8", "there is nothing finer that is ready"
    states = {one.name: one.state for one in client.variants}
    assert states["none"] is EngineState.DEAD


async def test_while_the_main_one_restarts_a_finer_one_serves(
    client: VariantsClient, engines: Engines
) -> None:
    assert await answer(client) == "computed in int8"
    engines.made["int8"].die()
    assert client.state is EngineState.LOADING
    assert await answer(client) == "computed in none"
    engines.made["int8"].enter(EngineState.READY)
    assert await answer(client) == "computed in int8"
    assert client.num_restarts == 1
    assert [one.num_left for one in client.variants] == [0, 0, 0]


async def test_unload_and_load_concern_all(client: VariantsClient, engines: Engines) -> None:
    await client.unload(1.0)
    assert {one.state for one in client.variants} == {EngineState.UNLOADED}
    await client.load()
    await until(lambda: {one.state for one in client.variants} == {EngineState.READY})
    assert await answer(client, "none") == "computed in none"


async def test_further_variants_wait_for_the_main_one(engines: Engines) -> None:
    config = EngineConfig(model=ModelConfig(quantization="int8", variants=("none",)))
    client = VariantsClient(variant_engines(config, Variant("int8")), engines.make, config.watch)
    main = engines.made["int8"]
    main.enter(EngineState.LOADING)
    await client.start()
    await asyncio.sleep(0.01)
    assert engines.made.keys() == {"int8"}
    assert [one.state for one in client.variants] == [EngineState.LOADING] * 2
    with pytest.raises(NotReady, match="variant none is not loaded yet"):
        await answer(client, "none")
    main.die(for_good=True)
    await asyncio.sleep(0.01)
    assert engines.made.keys() == {"int8"}, "nothing is left to stand beside"
    assert [one.state for one in client.variants] == [EngineState.DEAD] * 2
    await client.close()


async def test_an_unload_while_a_further_one_loads_ends_that_too(engines: Engines) -> None:
    def make(config: EngineConfig) -> FakeEngineClient:
        made = engines.make(config)
        if config.model.quantization == "none":
            made.enter(EngineState.LOADING)
        return made

    config = EngineConfig(model=ModelConfig(quantization="int8", variants=("none", "int4")))
    client = VariantsClient(variant_engines(config, Variant("int8")), make, config.watch)
    await client.start()
    await until(lambda: len(engines.made) == 2)
    await client.unload(1.0)
    assert {one.state for one in client.variants} == {EngineState.UNLOADED}
    assert engines.made.keys() == {"int8", "none"}, "nothing more was begun"
    await client.load()
    await until(lambda: {one.state for one in client.variants} == {EngineState.READY})
    assert engines.made.keys() == BYTES.keys()
    await client.close()
