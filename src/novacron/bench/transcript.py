"""What a recorded stream says: when tokens came, how many, and the text. Pure.

Understands the server-sent events of OpenAI's chat and text completions. Times are those at which
the last byte of an event arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from novacron.bench.http_client import Exchange

_SPOKEN_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")


@dataclass(frozen=True)
class Transcript:
    """One generation as its client saw it.

    `arrivals_s` are the times of events that carried tokens, `e2e_s` that of the end, both after
    the request was sent. A server may put several tokens into an event, so tokens are counted by
    its usage report, if it sent one.
    """

    started_s: float
    arrivals_s: tuple[float, ...]
    e2e_s: float
    num_output_tokens: int
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    text: str = ""
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and bool(self.arrivals_s)

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.arrivals_s[0]

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for a single one."""
        if self.num_output_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.num_output_tokens - 1)

    @property
    def itls_s(self) -> tuple[float, ...]:
        """Gaps between neighbouring events."""
        return tuple(
            later - earlier
            for earlier, later in zip(self.arrivals_s, self.arrivals_s[1:], strict=False)
        )

    @property
    def ended_s(self) -> float:
        """On the clock of `started_s`."""
        return self.started_s + self.e2e_s


def read_transcript(exchange: Exchange) -> Transcript:
    """Make sense of a streamed answer. A failed one has `error` set and no times."""
    if not exchange.ok:
        return _failed(exchange, exchange.error or _refusal(exchange))
    arrivals: list[float] = []
    text: list[str] = []
    usage: dict[str, Any] = {}
    finish_reason: str | None = None
    finished_s = 0.0
    for arrived_s, data in events(exchange.chunks):
        if data == b"[DONE]":
            continue
        try:
            event = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            return _failed(exchange, f"an event of the stream is no JSON: {error}")
        if event.get("error"):
            return _failed(exchange, _message_of(event))
        usage = event.get("usage") or usage
        for choice in event.get("choices", ()):
            if choice.get("finish_reason"):
                finish_reason = choice["finish_reason"]
                finished_s = arrived_s - exchange.started_s
            piece = _spoken(choice)
            if piece is not None:
                arrivals.append(arrived_s - exchange.started_s)
                text.append(piece)
    if finish_reason is None and not arrivals:
        return _failed(exchange, "the stream carried no token")
    arrivals = arrivals or [finished_s]
    details = usage.get("prompt_tokens_details") or {}
    return Transcript(
        started_s=exchange.started_s,
        arrivals_s=tuple(arrivals),
        e2e_s=max(finished_s, arrivals[-1]),
        num_output_tokens=usage.get("completion_tokens") or len(arrivals),
        num_prompt_tokens=usage.get("prompt_tokens") or 0,
        num_cached_tokens=details.get("cached_tokens") or 0,
        text="".join(text),
        finish_reason=finish_reason,
    )


def events(chunks: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The data lines of a stream of server-sent events, each with the time it was complete."""
    rest = b""
    for arrived_s, data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield arrived_s, line[5:].strip()
    if rest.startswith(b"data:"):
        yield chunks[-1][0], rest[5:].strip()


def _spoken(choice: dict[str, Any]) -> str | None:
    """The text of an event, or None if it carries no token (a role, or only the end)."""
    if choice.get("text") or ("text" in choice and not choice.get("finish_reason")):
        return str(choice["text"])
    delta = choice.get("delta") or {}
    if any(delta.get(name) for name in _SPOKEN_FIELDS):
        return str(delta.get("content") or "")
    return None


def _failed(exchange: Exchange, error: str) -> Transcript:
    return Transcript(exchange.started_s, (), 0.0, 0, error=error)


def _refusal(exchange: Exchange) -> str:
    try:
        message = _message_of(msgspec.json.decode(exchange.body))
    except (msgspec.DecodeError, AttributeError):
        message = exchange.body[:200].decode("utf-8", "replace")
    return f"status {exchange.status}: {message}"


def _message_of(answer: dict[str, Any]) -> str:
    error = answer.get("error", answer)
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)
