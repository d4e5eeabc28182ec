"""Where clients read streams: here, or wherever they run (handover/handover.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from novacron.gateway.calls import CallOrigin
from novacron.gateway.handover.forwarding import Credentials
from novacron.gateway.native.generations import Generations
from novacron.gateway.openai.schema import ChatBody, CompletionBody
from novacron.gateway.replay import Event, StreamId

Events = AsyncGenerator[Event, None]

# By which door a body came, which tells how it is read: "messages" is Anthropic's, "text" and "raw"
# are Ollama's prompts, with the model's template or without.
Form = Literal["native", "openai", "messages", "text", "raw"]


@dataclass(frozen=True)
class Asked:
    """What a call is made of."""

    body: ChatBody | CompletionBody
    form: Form
    is_background: bool = False


class Streams(Protocol):
    """Belongs to one event loop."""

    def recorded(self, origin: CallOrigin, asked: Asked) -> CallOrigin:
        """For a call whose stream is to outlive this process, where there is a place for that."""
        ...

    async def attach(
        self, stream: StreamId, start: int, credentials: Credentials, *, is_forwarded: bool = False
    ) -> Events | None:
        """The events of a stream from `start` on; None: there are no more. Forwarded ones are
        looked for here only.

        Raises RequestNotFound; and NotReady if nobody can go on with it.
        """
        ...

    def follow(self, source: Events, stream: StreamId, credentials: Credentials) -> Events:
        """`source`, which is read here; and then wherever the stream moves to."""
        ...

    async def is_known(self, stream: StreamId) -> bool:
        """Whether there is such a stream, or was a while ago."""
        ...

    async def cancel(self, stream: StreamId, credentials: Credentials) -> bool:
        """End a call that runs elsewhere. False if there is none."""
        ...


class LocalStreams:
    """Implements Streams for a server that shares nothing with others."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    def recorded(self, origin: CallOrigin, asked: Asked) -> CallOrigin:
        return origin

    async def attach(
        self, stream: StreamId, start: int, credentials: Credentials, *, is_forwarded: bool = False
    ) -> Events | None:
        if not self._generations.has_more(stream, start):
            return None
        return self._generations.events(stream, start)

    def follow(self, source: Events, stream: StreamId, credentials: Credentials) -> Events:
        return source

    async def is_known(self, stream: StreamId) -> bool:
        return self._generations.knows(stream)

    async def cancel(self, stream: StreamId, credentials: Credentials) -> bool:
        return False
