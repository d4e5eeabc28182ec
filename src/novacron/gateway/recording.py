"""What a call does about its record, which outlives this process. Most calls have none.

A call with a record (handover/recorded.py) tells it what it brings, and how it ends; or it goes on
from the record that another coordinator has left.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Protocol

from novacron.accounts.posting import Entry
from novacron.coordination.streams import StreamStart
from novacron.engine.client import EngineClient
from novacron.errors import NovaCronError
from novacron.records.output import RequestOutput
from novacron.records.request import Request

if TYPE_CHECKING:
    from novacron.gateway.calls import Call


class Recording(Protocol):
    """`entry` is the reservation of a call that goes on."""

    @property
    def entry(self) -> Entry | None: ...

    def start_of(self, call: Call) -> StreamStart | None:
        """What goes on record with the call's reservation."""
        ...

    def go_without(self) -> bool:
        """Its id has a record already. True, if it runs without one: then it never begins."""
        ...

    def begin(self) -> None:
        """It is on record."""
        ...

    def outputs(
        self, client: EngineClient, requests: tuple[Request, ...]
    ) -> AsyncGenerator[RequestOutput, None]:
        """As EngineClient.generate, with what was told before at the beginning."""
        ...

    async def tell(self, output: RequestOutput) -> None:
        """Return when readers may have it."""
        ...

    async def until_begun(self) -> None:
        """Return when the call is on record; never, if it is refused."""
        ...

    def end(self) -> None:
        """All was told."""
        ...

    def fail(self, error: NovaCronError) -> bool:
        """It has ended by `error`. True, if another coordinator may go on with it nevertheless:
        then the error is no part of the stream."""
        ...

    def leave(self) -> None:
        """Nobody wants it any more."""
        ...


class Unrecorded:
    """Implements Recording."""

    entry: Entry | None = None

    def start_of(self, call: Call) -> StreamStart | None:
        return None

    def go_without(self) -> bool:
        return False

    def begin(self) -> None:
        pass

    def outputs(
        self, client: EngineClient, requests: tuple[Request, ...]
    ) -> AsyncGenerator[RequestOutput, None]:
        return client.generate(requests)

    async def tell(self, output: RequestOutput) -> None:
        pass

    async def until_begun(self) -> None:
        pass

    def end(self) -> None:
        pass

    def fail(self, error: NovaCronError) -> bool:
        return False

    def leave(self) -> None:
        pass


UNRECORDED: Final = Unrecorded()
