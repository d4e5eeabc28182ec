"""Several streams of outputs as one, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from novacron.records.output import RequestOutput

_Stream = AsyncGenerator[RequestOutput, None]


def merged(streams: Sequence[_Stream]) -> _Stream:
    """Ends when all have ended. An error of one ends all, as does closing this. Who reads slowly
    makes each stream wait, which then has longer pieces."""
    return streams[0] if len(streams) == 1 else _merged(streams)


async def _merged(streams: Sequence[_Stream]) -> _Stream:
    news: asyncio.Queue[RequestOutput | BaseException | None] = asyncio.Queue(1)
    tasks = [asyncio.create_task(_forward(stream, news)) for stream in streams]
    num_left = len(tasks)
    try:
        while num_left:
            item = await news.get()
            if item is None:
                num_left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(
    stream: _Stream, news: asyncio.Queue[RequestOutput | BaseException | None]
) -> None:
    try:
        async with aclosing(stream) as outputs:
            async for output in outputs:
                await news.put(output)
        await news.put(None)
    except Exception as error:
        await news.put(error)
