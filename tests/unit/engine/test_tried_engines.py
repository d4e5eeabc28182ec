"""A client tries its engine now and then: one that answers wrongly, or not, is started anew, and
what runs on one that replaces a rank can be handed over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.engine.test_process_client import (
    PATIENCE_S,
    ScriptedEngine,
    Setting,
    failure_of,
    tokenizer_folder,
    until,
)

from novacron.engine import process_client
from novacron.engine.client import EngineState
from novacron.engine.heart_monitor import VitalSigns
from novacron.engine.pulse import Reading
from novacron.errors import EngineDead
from novacron.records import wire
from novacron.records.output import CanaryStats, EngineOutput, EngineStats
from novacron.records.request import FinishReason

__all__ = ["tokenizer_folder"]  # a fixture


@pytest.fixture
def settings() -> dict[str, float]:
    return {"canary_interval": 2.0, "canary_timeout": 1e6}


@pytest.fixture
async def trying(
    settings: dict[str, float], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Setting]:
    """Looks are a thousandth of a second apart, and say that they are half a one."""
    setting = Setting(tokenizer_folder)
    sleep = asyncio.sleep

    async def soon(seconds: float) -> None:
        await sleep(0.001 if seconds == process_client._LOOK_S else seconds)

    monkeypatch.setattr(process_client.asyncio, "sleep", soon)
    config = replace(setting.config, **settings)
    monkeypatch.setattr(setting.client, "_config", config)
    await setting.client.start()
    await setting.make_ready()
    yield setting
    await setting.client.close()


async def canary_of(engine: ScriptedEngine, number: int = 1) -> str:
    """The id of its canary with this number, from 1, once it has it."""

    def ids() -> list[str]:
        submits = [one for one in engine.received if isinstance(one, wire.Submit)]
        requests = [request for one in submits for request in one.requests]
        return [one.request_id for one in requests if one.uncounted]

    await until(lambda: len(ids()) >= number, PATIENCE_S)
    return ids()[number - 1]


def answer(engine: ScriptedEngine, request_id: str, *tokens: int) -> None:
    output = EngineOutput(request_id, new_token_ids=tokens, finish_reason=FinishReason.LENGTH)
    engine.say(wire.Outputs((output,), EngineStats()))


def stats_of(setting: Setting) -> CanaryStats:
    found = setting.client.stats.canary
    assert found is not None
    return found


async def test_an_engine_that_answers_as_at_first_is_left_alone(trying: Setting) -> None:
    for number in (1, 2, 3):
        answer(trying.engine, await canary_of(trying.engine, number), 7, 8)
        await until(lambda number=number: stats_of(trying).num_passed == number, PATIENCE_S)
    assert len(trying.engines) == 1
    assert not stats_of(trying).is_failing


async def test_one_that_answers_otherwise_is_started_anew_and_tried_before_long(
    trying: Setting,
) -> None:
    answer(trying.engine, await canary_of(trying.engine), 7, 8)
    await until(lambda: stats_of(trying).num_passed == 1, PATIENCE_S)
    answer(trying.engine, await canary_of(trying.engine, 2), 7, 9)
    await trying.until_started(num_engines=2)
    assert stats_of(trying).is_failing
    await trying.make_ready()
    answer(trying.engine, await canary_of(trying.engine), 7, 8)
    await until(lambda: not stats_of(trying).is_failing, PATIENCE_S)
    assert stats_of(trying).num_wrong == 1


async def test_three_in_a_row_are_the_end(trying: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(trying.engine, await canary_of(trying.engine), 7)
    await until(lambda: stats_of(trying).num_passed == 1, PATIENCE_S)
    answer(trying.engine, await canary_of(trying.engine, 2), 8)
    for number in (2, 3):
        await trying.until_started(num_engines=number)
        await trying.make_ready()
        answer(trying.engine, await canary_of(trying.engine), 8)
    await trying.until_state(EngineState.DEAD)
    with pytest.raises(EngineDead, match="another answer to the canary"):
        await trying.client.wait_ready()


@pytest.mark.parametrize("settings", [{"canary_interval": 2.0, "canary_timeout": 5.0}])
async def test_no_answer_is_a_failure_too(trying: Setting) -> None:
    await canary_of(trying.engine)
    await trying.until_started(num_engines=2)
    assert stats_of(trying).num_missing == 1


@pytest.mark.parametrize("settings", [{"canary_interval": 0.0}])
async def test_what_runs_while_a_rank_is_replaced_can_be_handed_over(
    trying: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, ...]] = []
    client, engine = trying.client, trying.engine
    client.on_rank_loss(lambda: told.append(client.stats.lost_ranks))
    task = await trying.start_request()
    beats, lost_ranks = itertools.count(10), [0b1010]

    def signs(rank_pids: tuple[int, ...]) -> VitalSigns:
        return VitalSigns(Reading(next(beats), 0, lost_ranks[0]))

    monkeypatch.setattr(engine, "vital_signs", signs)
    await until(lambda: told == [(1, 3)], PATIENCE_S)
    client.hand_over()
    error = await failure_of(task)
    assert isinstance(error, EngineDead)
    assert error.was_cut_off, "nobody is to blame"
    assert wire.Abort(("r",)) in engine.received
    assert client.state is EngineState.READY
    lost_ranks[0] = 0
    await until(lambda: told == [(1, 3), ()], PATIENCE_S)
