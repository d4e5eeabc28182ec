"""Lane: a thread that makes calls for others, who wait for them no longer than they want."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

Result = TypeVar("Result")

_MOST_WAITING: Final = 64


class Lane:
    """Calls are made one after another. A call that nobody waits for any more is not begun; one
    that has begun holds the lane up until it ends, and whoever comes meanwhile is told at once.

    The thread is a daemon: a call that never ends does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._is_given_up = False  # the call that is being made
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Result], patience_s: float) -> Result:
        """What `work` returns or raises. Raises TimeoutError if that takes longer than
        `patience_s`, or if an earlier call that took too long has not ended yet."""
        future = self._add(work)
        if future is None:
            raise TimeoutError("an earlier call has not ended yet")
        try:
            return future.result(patience_s)
        except TimeoutError:
            with self._changed:
                if future.done() and not future.cancelled():  # its own, or just in time
                    return future.result()
                if not future.cancel():
                    self._is_given_up = True
            raise TimeoutError(f"no answer within {patience_s:g} s") from None

    def post(self, work: Callable[[], object]) -> Future[object] | None:
        """Have `work` done some time; None if too much waits already."""
        return self._add(work)

    def close(self, patience_s: float) -> bool:
        """Do what waits, and end. False if that takes longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _add(self, work: Callable[[], Result]) -> Future[Result] | None:
        future: Future[Result] = Future()
        with self._changed:
            if self._is_given_up or self._is_closed or len(self._waiting) >= _MOST_WAITING:
                return None
            self._waiting.append((work, future))  # type: ignore[arg-type]
            self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed:
                        return
                    self._changed.wait()
                work, future = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
            try:
                result = work()
            except BaseException as error:
                with self._changed:
                    self._is_given_up = False
                    future.set_exception(error)
            else:
                with self._changed:
                    self._is_given_up = False
                    future.set_result(result)
