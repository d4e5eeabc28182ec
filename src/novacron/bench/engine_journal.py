"""What an engine has computed, by its own count: a file that outlives whoever writes it.

A line is one write to a file opened for appending, so that a process killed at any moment leaves
whole lines only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

What = Literal["computed", "answered"]


class EngineJournal:
    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def computed(self, id: str, tokens: int) -> None:
        """`tokens` more, of the call with this id in the ledger."""
        self._write(f"computed {id} {tokens}")

    def answered(self, number: int, status: int) -> None:
        """The request with this number has its answer."""
        self._write(f"answered {number} {status}")

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, line: str) -> None:
        os.write(self._descriptor, line.encode() + b"\n")


def read(file: Path) -> Iterator[tuple[What, str, int]]:
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        what, name, value = line.split()
        yield ("computed" if what == "computed" else "answered"), name, int(value)
