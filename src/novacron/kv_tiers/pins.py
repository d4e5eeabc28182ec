"""Pins: prefixes that tiers must keep, by name. Pure bookkeeping; no torch, no I/O.

A pin names blocks by their hashes, whether or not a tier has them yet. Scopes cannot see each
other's pins, and share the room for them: all pins together and those of one scope are bounded, so
that pins can never fill a tier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from novacron.errors import PinLimit, PinNotFound
from novacron.records.block import BlockHash


@dataclass(frozen=True, slots=True)
class PinLimits:
    """Blocks that may be pinned: in all, and by one scope. Everyone's pins have no scope, and only
    the first bound."""

    most_blocks: int
    most_blocks_of_scope: int


class PinnedPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """`expires_s` is Unix time; None: until it is unpinned."""

    name: str
    scope: bytes = b""
    is_public: bool = False
    keys: tuple[BlockHash, ...]
    num_tokens: int
    expires_s: float | None = None


class Pins:
    """All pins of one engine. Blocks that several pins share count once in the whole, and for each
    scope that pins them."""

    def __init__(self, limits: PinLimits, kept: Iterable[PinnedPrefix] = ()) -> None:
        self.limits = limits
        self._pins: dict[tuple[bytes, str], PinnedPrefix] = {}
        self._num_pins_of: Counter[BlockHash] = Counter()
        self._public: frozenset[BlockHash] = frozenset()
        self._next_expiry_s: float | None = None
        for pin in kept:
            self._pins[pin.scope, pin.name] = pin
            self._num_pins_of.update(pin.keys)
        self._look_again()

    def __len__(self) -> int:
        return len(self._pins)

    @property
    def keys(self) -> frozenset[BlockHash]:
        """All pinned blocks."""
        return frozenset(self._num_pins_of)

    @property
    def public_keys(self) -> frozenset[BlockHash]:
        """Blocks of public prefixes, which callers of any scope share."""
        return self._public

    @property
    def all(self) -> tuple[PinnedPrefix, ...]:
        return tuple(self._pins.values())

    def visible_to(self, scope: bytes) -> tuple[PinnedPrefix, ...]:
        """Those of the scope, and those that are everyone's."""
        return tuple(pin for pin in self._pins.values() if pin.scope in (scope, b""))

    def add(self, pin: PinnedPrefix) -> None:
        """Pin, in place of what the scope has under this name. Raises PinLimit, and then nothing
        has changed."""
        replaced = self._pins.get((pin.scope, pin.name))
        others = [other for other in self._pins.values() if other is not replaced]
        self._check(pin, others, self.limits.most_blocks, "all pins together")
        if pin.scope:
            own = [other for other in others if other.scope == pin.scope]
            self._check(pin, own, self.limits.most_blocks_of_scope, "your pins together")
        if replaced is not None:
            self._drop(replaced)
        self._pins[pin.scope, pin.name] = pin
        self._num_pins_of.update(pin.keys)
        self._look_again()

    def remove(self, scope: bytes, name: str) -> None:
        """Raises PinNotFound."""
        pin = self._pins.get((scope, name))
        if pin is None:
            raise PinNotFound(f"There is no pin '{name}' of yours; GET .../cache/pins lists them.")
        self._drop(pin)
        self._look_again()

    def clear(self, scope: bytes | None = None) -> None:
        """All, or those of a scope."""
        for pin in list(self._pins.values()):
            if scope in (None, pin.scope):
                self._drop(pin)
        self._look_again()

    def expire(self, now_s: float) -> bool:
        """Remove the pins whose time is over. Whether there were such."""
        if self._next_expiry_s is None or now_s < self._next_expiry_s:
            return False
        for pin in list(self._pins.values()):
            if pin.expires_s is not None and pin.expires_s <= now_s:
                self._drop(pin)
        self._look_again()
        return True

    def check_integrity(self) -> None:
        """Recount the slow way. Raises AssertionError on a bug of ours."""
        assert self._num_pins_of == Counter(k for pin in self._pins.values() for k in pin.keys)
        assert len(self._num_pins_of) <= self.limits.most_blocks

    def _drop(self, pin: PinnedPrefix) -> None:
        del self._pins[pin.scope, pin.name]
        self._num_pins_of -= Counter(pin.keys)

    def _look_again(self) -> None:
        pins = self._pins.values()
        self._public = frozenset(key for pin in pins if pin.is_public for key in pin.keys)
        ends = [pin.expires_s for pin in pins if pin.expires_s is not None]
        self._next_expiry_s = min(ends, default=None)

    @staticmethod
    def _check(
        pin: PinnedPrefix, others: Sequence[PinnedPrefix], most_blocks: int, what: str
    ) -> None:
        num_blocks = len({key for one in (pin, *others) for key in one.keys})
        if num_blocks > most_blocks:
            raise PinLimit(
                f"With '{pin.name}' {what} would take {num_blocks} blocks of KV cache, but at most "
                f"{most_blocks} may be pinned. Unpin something, pin a shorter prefix, or give the "
                "tiers more room (kv_ram_size, kv_disk_size, kv_pin_share)."
            )


def kept_within(
    pins: Iterable[PinnedPrefix], limits: PinLimits, is_valid: Callable[[PinnedPrefix], bool]
) -> Pins:
    """Pins that were written down earlier, as far as they are valid and the limits now allow, in
    their order."""
    kept = Pins(limits)
    for pin in filter(is_valid, pins):
        try:
            kept.add(pin)
        except PinLimit:
            continue
    return kept
