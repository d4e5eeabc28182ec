"""Seat: this process among the coordinators, as two threads keep it.

One beats: it says that this coordinator lives, keeps the duties that it has and takes those that
are free. The other does what is due of them, under their fences, for as long as it takes. A duty
is ours only while our own clock says that the lease cannot have run out; if it has all the same,
its fence refuses what is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from novacron.coordination.lease import Fence, Lease, LeaseLost
from novacron.coordination.member import Member, Picture
from novacron.coordination.shared_state import Registry
from novacron.errors import NovaCronError

logger = logging.getLogger(__name__)

_BEATS: Final = 3  # within the time after which one counts as ended
_LAST_WORD_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What one coordinator does for all. `run` may raise NovaCronError: then it tries again."""

    name: str
    every_s: float
    run: Callable[[Fence], object]


class Seat:
    """`timeout_s`: who is silent for so long is taken to have ended."""

    def __init__(
        self,
        registry: Registry,
        member: Member,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.member = member
        self.picture = Picture()
        self._registry = registry
        self._timeout_s = timeout_s
        self._clock = clock
        self._duties: list[Duty] = []
        self._held: dict[str, tuple[Fence, float]] = {}  # and until when, by our clock
        self._due_s: dict[str, float] = {}
        self._ending = threading.Event()
        self._changed = threading.Event()  # there may be something to do
        self._is_silent = False
        self._threads: list[threading.Thread] = []

    @property
    def member_id(self) -> str:
        return self.member.id

    def add(self, *duties: Duty) -> None:
        """Before `start`."""
        self._duties += duties

    def start(self) -> None:
        for name, work in (("beats", self._beat_for_ever), ("duties", self._work_for_ever)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Blocks. Leaves our duties to others, if the database lets us."""
        self._ending.set()
        self._changed.set()
        for thread in self._threads:
            thread.join(_LAST_WORD_S)
        self._held.clear()
        try:
            self._registry.leave(self.member_id)
        except NovaCronError as error:
            logger.warning("others learn of our end by our silence: %s", error)

    def beat(self) -> None:
        """Once. Raises DatabaseUnavailable."""
        began_s = self._clock()
        duties = [duty.name for duty in self._duties]
        picture = self._registry.beat(self.member, duties, round(self._timeout_s * 1000))
        self.picture = picture
        ours = {lease.duty: lease for lease in picture.leases if self._is_ours(lease)}
        until_s = began_s + self._timeout_s  # not later than by the database's clock
        self._note_changes(ours)
        self._held = {
            name: (Fence(name, lease.holder, lease.epoch), until_s) for name, lease in ours.items()
        }
        self._changed.set()

    def fence_of(self, duty: str) -> Fence | None:
        """Under which we may do it now; None: it is another one's, as far as we know."""
        fence, until_s = self._held.get(duty, (None, 0.0))
        return fence if self._clock() < until_s else None

    def work(self) -> None:
        """Do what is due of the duties that are ours."""
        for duty in self._duties:
            fence = self.fence_of(duty.name)
            if fence is None or self._clock() < self._due_s.get(duty.name, 0.0):
                continue
            self._due_s[duty.name] = self._clock() + duty.every_s
            try:
                duty.run(fence)
            except LeaseLost as error:
                logger.warning("%s", error)
                self._held.pop(duty.name, None)
            except NovaCronError as error:
                logger.warning("the duty '%s' could not be done: %s", duty.name, error)
            except Exception:
                logger.exception("the duty '%s' failed by a bug", duty.name)

    def _beat_for_ever(self) -> None:
        while not self._ending.is_set():
            try:
                self.beat()
                self._is_silent = False
            except NovaCronError as error:
                if not self._is_silent:
                    logger.warning("other coordinators do not hear of us: %s", error)
                self._is_silent = True
            except Exception:
                logger.exception("a sign of life failed by a bug")
            self._ending.wait(self._timeout_s / _BEATS)

    def _work_for_ever(self) -> None:
        while not self._ending.is_set():
            self.work()
            self._changed.wait()
            self._changed.clear()

    def _is_ours(self, lease: Lease) -> bool:
        return lease.holder == self.member_id and lease.is_held(self.picture.now_ms)

    def _note_changes(self, ours: dict[str, Lease]) -> None:
        for name in sorted(ours.keys() - self._held.keys()):
            logger.info("the duty '%s' is ours (epoch %d)", name, ours[name].epoch)
        for name in sorted(self._held.keys() - ours.keys()):
            logger.warning("the duty '%s' is not ours any more", name)
