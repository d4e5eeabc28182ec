from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from novacron.cluster.merged_outputs import merged
from novacron.errors import EngineDead
from novacron.records.output import RequestOutput


class Source:
    """A stream that waits to be told, and knows whether it was closed."""

    def __init__(self, name: str, count: int, error: Exception | None = None) -> None:
        self.name, self.count, self.error = name, count, error
        self.go = asyncio.Event()
        self.is_closed = False

    async def stream(self) -> AsyncGenerator[RequestOutput, None]:
        try:
            await self.go.wait()
            for _ in range(self.count):
                yield RequestOutput(request_id=self.name)
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


async def test_all_of_several_streams_come_as_they_are_ready() -> None:
    late, early = Source("late", 2), Source("early", 3)
    early.go.set()
    seen = []
    async for output in merged([late.stream(), early.stream()]):
        seen.append(output.request_id)
        if len(seen) == 3:
            late.go.set()
    assert seen == ["early"] * 3 + ["late"] * 2
    assert late.is_closed
    assert early.is_closed


async def test_an_error_of_one_ends_all() -> None:
    dying, other = Source("dying", 1, EngineDead("gone")), Source("other", 1)
    dying.go.set()
    outputs = merged([other.stream(), dying.stream()])
    assert (await anext(outputs)).request_id == "dying"
    with pytest.raises(EngineDead, match="gone"):
        await anext(outputs)
    assert other.is_closed


@pytest.mark.parametrize("count", [1, 2])
async def test_closing_it_closes_them(count: int) -> None:
    sources = [Source(str(place), 5) for place in range(count)]
    for source in sources:
        source.go.set()
    async with aclosing(merged([source.stream() for source in sources])) as outputs:
        async for _ in outputs:
            break
    assert all(source.is_closed for source in sources)
