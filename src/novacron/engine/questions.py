"""Questions that an engine was sent and has not answered yet. Nobody waits for ever: each ends with
its answer, or with the reason why none will come."""

from __future__ import annotations

import asyncio
import itertools

from novacron import errors
from novacron.records.cache_orders import CacheAnswer, Refused


class Questions:
    """Of one client. All methods belong to its event loop."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[CacheAnswer]] = {}
        self._numbers = itertools.count()

    def open(self) -> tuple[int, asyncio.Future[CacheAnswer]]:
        """A new question: its number, and what will hold the answer."""
        number = next(self._numbers)
        future = self._open[number] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._open.pop(number, None))
        return number, future

    def settle(self, number: int, answer: CacheAnswer) -> None:
        """Nothing happens if whoever asked has gone."""
        future = self._open.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def fail_all(self, error: errors.NovaCronError) -> None:
        for future in list(self._open.values()):
            if not future.done():
                future.set_exception(error)


def raise_if_refused(answer: CacheAnswer) -> CacheAnswer:
    """Raises the error that the engine has named."""
    if isinstance(answer, Refused):
        raise error_named(answer.kind, answer.message, errors.NovaCronError)
    return answer


def error_named(
    kind: str, message: str, default: type[errors.NovaCronError]
) -> errors.NovaCronError:
    """An error of the class that the engine process named, with the engine's words."""
    error_class = getattr(errors, kind, default)
    error: errors.NovaCronError = error_class.__new__(error_class)
    Exception.__init__(error, message)
    if isinstance(error, errors.InvalidRequest):
        error.param = None
    return error
