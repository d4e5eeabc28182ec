"""Guardians and specialists of one server: what happens to a body before it becomes a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from novacron.engine.client import EngineClient
from novacron.errors import ContentBlocked, GuardianUnavailable
from novacron.gateway.call_guard import CallGuard, Watch
from novacron.gateway.calls import Call, CallOrigin, Fallback
from novacron.gateway.guarded_bodies import asked_of, texts_of, with_texts
from novacron.gateway.openai.schema import Body
from novacron.gateway.specialists import Specialist
from novacron.guardians.guardian import Guardian

AnyBody = TypeVar("AnyBody", bound=Body)


Parse = Callable[[AnyBody, CallOrigin], Awaitable[Call]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Guarding:
    """Who judges which calls. `variant_of` tells the variant that a name asks for, if any."""

    client: EngineClient
    watch: Watch
    guardians: Sequence[Guardian]
    specialists: Mapping[str, Specialist]
    variant_of: Callable[[str], str]

    def guard(self, origin: CallOrigin, specialist: Specialist | None = None) -> CallGuard:
        wanted = None if specialist is None else specialist.guardians
        return CallGuard(
            self.watch,
            [one for one in self.guardians if wanted is None or one.duty.name in wanted],
            call_id=origin.call_id,
            tenant=origin.caller.tenant,
        )

    async def close(self) -> None:
        """Observers stop looking. What enforcing guardians are asked ends with its calls."""
        await self.watch.observers.close()
        self.watch.panel.close()

    async def admit(
        self, origin: CallOrigin, body: AnyBody, parse: Parse[AnyBody]
    ) -> tuple[CallOrigin, AnyBody]:
        """The body as the engine may have it: that of the specialist, and masked. The first of a
        chain whose guardians let it pass. Raises ContentBlocked and GuardianUnavailable."""
        asked_for = origin.model.partition("@")[0]
        first = self.specialists.get(asked_for)
        chain = [asked_for, *(first.fallback if first else ())]
        for place, name in enumerate(chain):
            is_last = place == len(chain) - 1
            try:
                here = origin if place == 0 else self._computed_as(name, origin)
                origin_here, body_here = await self._as(name, here, body)
            except ContentBlocked:
                if is_last or first is None or not first.on_block:
                    raise
            except GuardianUnavailable:
                if is_last or first is None or not first.on_error:
                    raise
            else:
                later = self._fallbacks(first, chain[place + 1 :], origin, body, parse)
                return replace(origin_here, fallbacks=later), body_here
            self.watch.totals.fallbacks[asked_for] += 1
        raise AssertionError("the last of the chain either returns or raises")

    def _fallbacks(
        self,
        first: Specialist | None,
        names: Sequence[str],
        origin: CallOrigin,
        body: AnyBody,
        parse: Parse[AnyBody],
    ) -> tuple[Fallback, ...]:
        if first is None:
            return ()
        return tuple(
            Fallback(
                specialist=name,
                make_call=partial(self._call_of, name, origin, body, parse),
                on_error=first.on_error,
                on_block=first.on_block,
            )
            for name in names
        )

    async def _call_of(
        self, name: str, origin: CallOrigin, body: AnyBody, parse: Parse[AnyBody]
    ) -> Call:
        origin, body = await self._as(name, self._computed_as(name, origin), body)
        return await parse(body, origin)

    def _computed_as(self, name: str, origin: CallOrigin) -> CallOrigin:
        """By the variant that `name` asks for, if it asks for one."""
        return replace(origin, variant=self.variant_of(name) or origin.variant)

    async def _as(self, name: str, origin: CallOrigin, body: AnyBody) -> tuple[CallOrigin, AnyBody]:
        """As `name`, a specialist or a model, would answer it."""
        specialist = self.specialists.get(name)
        if specialist is not None:
            body = specialist.applied(body)
        guard = self.guard(origin, specialist)
        if guard.guardians:
            texts = texts_of(body, self.client.tokenizer)
            passed = await guard.admit(texts, asked_of(body, texts))
            if passed != texts:
                body = with_texts(body, passed)
        return replace(origin, guard=guard), body
