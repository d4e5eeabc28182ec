"""What kernels call amid a program where ranks share no memory: Python, which has the network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from novacron.kernels.native.library import ExchangeFunction, MeetCall, NativeContext

logger = logging.getLogger(__name__)


def guarded(exchange: Callable[[int], None]) -> Any:
    """As kernels can call it: nothing may be raised through them."""

    def run(rows: int) -> int:
        try:
            with torch.inference_mode():
                exchange(rows)
        except ConnectionError as error:
            logger.warning("The step stops: %s.", error)
            return 1
        except BaseException:
            logger.exception("The step stops.")
            return 1
        return 0

    return ExchangeFunction(run)


class ExchangeMeeting:
    """An AttentionMetadata.meet, which has `exchange` called. It lives as long as any program that
    was recorded with it."""

    def __init__(self, context: NativeContext, exchange: Callable[[int], None]) -> None:
        self._context, self._exchange = context, guarded(exchange)

    def __call__(self, num_tokens: int) -> None:
        self._context.stream.submit(MeetCall(exchange=self._exchange, rows=num_tokens))
