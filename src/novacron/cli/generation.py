"""One streamed answer: its text as it comes, and its statistics at the end."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass

from novacron.cli.api_client import ApiClient, Json


@dataclass
class Statistics:
    """Counts and times of one answer."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    first_text_s: float = 0.0
    total_s: float = 0.0
    finish_reason: str | None = None

    @property
    def tokens_per_s(self) -> float:
        """Over the whole answer, the wait for its first token included."""
        return self.num_output_tokens / self.total_s if self.total_s > 0 else 0.0

    def __str__(self) -> str:
        cached = f" ({self.num_cached_tokens} cached)" if self.num_cached_tokens else ""
        return (
            f"{self.num_prompt_tokens} prompt tokens{cached}, {self.num_output_tokens} generated, "
            f"first text after {self.first_text_s:.2f} s, {self.tokens_per_s:.1f} tokens/s"
        )


class Generation:
    """A call of the API with `stream`. Iterate over it once; then read `statistics`."""

    def __init__(self, client: ApiClient, path: str, body: Mapping[str, object]) -> None:
        self.statistics = Statistics()
        self._client = client
        self._path = path
        self._body = {**body, "stream": True, "stream_options": {"include_usage": True}}

    def __iter__(self) -> Generator[str, None, None]:
        """Pieces of text. Closing the iterator, or an exception inside the loop, ends the call."""
        started_s = time.perf_counter()
        with closing(self._client.stream(self._path, self._body)) as events:
            for event in events:
                self._count(event)
                if text := self._text_of(event):
                    if not self.statistics.first_text_s:
                        self.statistics.first_text_s = time.perf_counter() - started_s
                    yield text
        self.statistics.total_s = time.perf_counter() - started_s

    def _text_of(self, event: Json) -> str:
        for choice in event.get("choices") or ():
            self.statistics.finish_reason = choice.get("finish_reason")
            delta = choice.get("delta") or {}
            return str(delta.get("content") or choice.get("text") or "")
        return ""

    def _count(self, event: Json) -> None:
        usage = event.get("usage")
        if not usage:
            return
        details = usage.get("prompt_tokens_details") or {}
        self.statistics.num_prompt_tokens = usage.get("prompt_tokens", 0)
        self.statistics.num_cached_tokens = details.get("cached_tokens") or 0
        self.statistics.num_output_tokens = usage.get("completion_tokens", 0)
