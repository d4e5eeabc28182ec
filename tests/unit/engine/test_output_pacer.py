"""Nothing is lost, reordered or held longer than the interval; first and last tokens never wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.engine.output_pacer import OutputPacer
from novacron.records.output import EngineOutput
from novacron.records.request import FinishReason
from novacron.testing.waiting import until

FIRST = EngineOutput("a", new_token_ids=(1,), first_scheduled_time_s=0.0)
LAST = EngineOutput("a", new_token_ids=(9,), finish_reason=FinishReason.LENGTH)


def token(number: int) -> EngineOutput:
    return EngineOutput("a", new_token_ids=(number,))


class Delivered:
    """Batches, as they were handed on."""

    def __init__(self, interval_s: float) -> None:
        self.batches: list[list[EngineOutput]] = []
        self.pacer = OutputPacer(interval_s, self._take)

    def _take(self, outputs: Sequence[EngineOutput]) -> None:
        self.batches.append(list(outputs))


async def test_without_an_interval_every_message_goes_at_once() -> None:
    delivered = Delivered(0.0)
    for number in range(3):
        delivered.pacer.put([token(number)])
    assert delivered.batches == [[token(0)], [token(1)], [token(2)]]


async def test_tokens_within_the_interval_travel_together() -> None:
    delivered = Delivered(3600.0)
    delivered.pacer.put([token(0)])
    delivered.pacer.put([token(1)])
    delivered.pacer.put([token(2)])
    assert delivered.batches == [[token(0)]]
    delivered.pacer.flush()
    assert delivered.batches == [[token(0)], [token(1), token(2)]]


async def test_what_waits_is_delivered_when_the_interval_is_over() -> None:
    delivered = Delivered(0.005)
    delivered.pacer.put([token(0)])
    delivered.pacer.put([token(1)])
    await until(lambda: len(delivered.batches) == 2, 10.0)
    assert delivered.batches == [[token(0)], [token(1)]]


@pytest.mark.parametrize("urgent", [FIRST, LAST])
async def test_a_first_and_a_last_token_take_along_what_waits(urgent: EngineOutput) -> None:
    delivered = Delivered(3600.0)
    delivered.pacer.put([token(0)])
    delivered.pacer.put([token(1)])
    delivered.pacer.put([urgent])
    assert delivered.batches == [[token(0)], [token(1), urgent]]


async def test_a_message_without_outputs_delivers_nothing() -> None:
    delivered = Delivered(0.0)
    delivered.pacer.put([])
    delivered.pacer.flush()
    assert delivered.batches == []


@given(st.lists(st.lists(st.sampled_from([FIRST, LAST, token(2), token(3)]), max_size=3)))
def test_everything_arrives_in_order(messages: list[list[EngineOutput]]) -> None:
    async def run() -> Delivered:
        delivered = Delivered(3600.0)
        for outputs in messages:
            delivered.pacer.put(outputs)
        delivered.pacer.flush()
        return delivered

    sent = [output for outputs in messages for output in outputs]
    assert [output for batch in asyncio.run(run()).batches for output in batch] == sent
