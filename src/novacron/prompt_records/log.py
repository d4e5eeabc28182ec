"""PromptLog: kept prompts for an event loop, written by a thread of its own.

Nobody waits for it. What cannot be written is lost, counted and warned of: keeping prompts is for
the tenant's own use, and no reason to refuse a call.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from novacron.prompt_records.files import Cipher, append, file_of
from novacron.prompt_records.record import PromptRecord

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 1000
_MOST_AT_ONCE: Final = 100

Make = Callable[[], PromptRecord]  # called by the thread: turning tokens into text takes a while


class PromptLog:
    """`start` comes before anything is kept."""

    def __init__(self, root: Path, cipher: Cipher) -> None:
        self.root = root
        self.cipher = cipher
        self.num_lost = 0
        self._process = secrets.token_hex(8)
        self._waiting: queue.Queue[Make | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="prompts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def keep(self, make: Make) -> None:
        """Returns at once."""
        try:
            self._waiting.put_nowait(make)
        except queue.Full:
            self.num_lost += 1

    def close(self, patience_s: float) -> None:
        """Write what waits."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join(patience_s)

    def _work(self) -> None:
        is_closing = False
        while not is_closing:
            batch = [self._waiting.get()]
            while len(batch) < _MOST_AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            is_closing = None in batch
            self._write([make for make in batch if make is not None])

    def _write(self, batch: list[Make]) -> None:
        files: dict[Path, list[PromptRecord]] = {}
        try:
            for make in batch:
                record = make()
                path = file_of(self.root, record.tenant, record.time, self._process)
                files.setdefault(path, []).append(record)
            for path, records in files.items():
                append(path, records, self.cipher)
        except Exception as error:  # whatever it is, the next ones may be kept
            self.num_lost += len(batch)
            logger.warning(
                "prompts that a tenant wants kept are lost (%d so far): %s",
                self.num_lost, type(error).__name__,
            )  # fmt: skip
