"""FakeClock: time that moves only when a test says so."""

from __future__ import annotations


class FakeClock:
    """Stands in for time.monotonic; `advance` stands in for time.sleep."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds
